"""Exploring designs and machines: sweeps, searches, sensitivity, procurement."""
