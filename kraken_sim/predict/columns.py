"""A prediction as one flat row: the columns that results of sweeps and rows of comparisons share."""

from __future__ import annotations

from typing import Final

from kraken_sim.architectures.registry import architectures
from kraken_sim.program.program import Category

FLOAT, INT, TEXT = "float64", "int64", "string"

_NUMBERS: Final = (
    ("latency_s", FLOAT),
    ("ttft_s", FLOAT),
    ("tpot_s", FLOAT),
    ("interval_s.low", FLOAT),
    ("interval_s.high", FLOAT),
    *((f"breakdown_s.{category.value}", FLOAT) for category in Category),
    ("exposed_communication_s", FLOAT),
    ("hidden_communication_s", FLOAT),
    ("communication_alone_s", FLOAT),
    ("overlap_cost_s.waiting", FLOAT),
    ("overlap_cost_s.compute_slowdown", FLOAT),
    ("overlap_cost_s.collective_slowdown", FLOAT),
    ("host_wait_s", FLOAT),
    ("slowdown", FLOAT),
    ("num_parameters", INT),
    ("memory_bytes.weights", INT),
    ("memory_bytes.kv_cache", INT),
    ("memory_bytes.activations", INT),
)


def prediction_columns() -> tuple[tuple[str, str], ...]:
    """Names and types of `Prediction.row`: the names of its JSON, nested ones with dots."""
    own = ((f"{record.kind}.{name}", INT) for record in architectures() for name in record.columns)
    return (*_NUMBERS, *own, ("num_events", INT))
