"""A machine: its device, its graph, and constants of cost models with their provenance."""
