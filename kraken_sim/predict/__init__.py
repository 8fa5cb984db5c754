"""The one way from a question to its answer."""
