"""Many scenarios at once: sweeps, searches, sensitivity, procurement."""
