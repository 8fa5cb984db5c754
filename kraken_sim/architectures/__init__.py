"""One file an architecture: a model on N devices becomes a Program."""
