"""The question: what a file says, and the shapes it resolves to."""
