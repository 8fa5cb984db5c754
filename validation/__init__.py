"""Real models and microbenchmarks in PyTorch, and the files of measurements they produce.

Nothing in `kraken_sim` imports this package except to read a measurement file (`validation.schema`, which
imports no torch).
"""
