"""Predictions for people: text tables, HTML, traces."""
