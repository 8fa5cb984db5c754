"""Collectives: one function an algorithm, and the selection that libraries make between them."""
