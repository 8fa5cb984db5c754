"""Timelines of real machines, as profilers write them, beside predicted ones."""
