"""Many scenarios at once: what to ask of all of them, and how to run and keep them."""
