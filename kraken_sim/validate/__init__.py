"""Predictions held against measured passes."""
