"""Measurements become constants: robust fits of the cost models to kernels measured alone."""
