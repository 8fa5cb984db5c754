"""Training of real models, and whether an architecture is as good as a standard Transformer of as many parameters."""
