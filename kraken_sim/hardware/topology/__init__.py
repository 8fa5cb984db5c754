"""The graph of a machine, and what a group of its GPUs communicates over."""
