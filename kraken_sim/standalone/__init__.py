"""Questions without a model: one op, one table of a collective, several collectives at once."""
