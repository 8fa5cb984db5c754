"""Predicts how fast Transformers answer on several GPUs, and why."""
