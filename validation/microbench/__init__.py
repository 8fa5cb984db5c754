"""Single kernels, single collectives, pairs of both, sustained load and launch costs, each measured alone."""
