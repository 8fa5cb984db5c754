"""Real models and microbenchmarks in PyTorch, and the files of measurements they produce.

Nothing in `kraken_sim` imports this package; both read `kraken_sim.measurements`.
"""
