"""The paper's latency experiment: grids, their alternatives, and what the result rests on."""
