"""Bytes on links: what a collective moves over each of them, and how several share them."""
