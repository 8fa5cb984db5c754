"""Metal and wires: a GPU and its launch costs, the graph of a machine, what a group of GPUs communicates over."""
