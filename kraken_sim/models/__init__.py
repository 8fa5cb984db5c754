"""Transformer shapes: presets, Hugging Face configs, parameter counts, Kraken widths."""
