"""The best shapes for a parameter budget."""
