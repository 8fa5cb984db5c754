"""Many points of one question, streamed to a file."""
