"""A prediction as one flat row: the columns that results of sweeps and rows of comparisons share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.registry import architectures
from kraken_sim.program.program import Category

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction

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
    """Names and types of a prediction's columns: the names of its JSON, nested ones with dots."""
    own = ((f"{record.kind}.{name}", INT) for record in architectures() for name in record.columns)
    return (*_NUMBERS, *own, ("num_events", INT))


def prediction_record(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a flat row with the names of its columns: architecture, kernel set, then those of a sweep."""
    names = [name for name, _ in prediction_columns()]
    asked = {"architecture": prediction.resolved.kind, "kernels": prediction.scenario.runtime.kernels.value}
    return asked | dict(zip(names, prediction_row(prediction), strict=True))


def prediction_row(prediction: Prediction) -> tuple[Any, ...]:
    """A prediction in the order of `prediction_columns`."""
    totals, memory, reports = prediction.totals, prediction.memory, prediction.resolved.reports()
    interval, cost = prediction.interval, totals.overlap_cost
    own = [(reports.get(record.kind) or {}).get(name) for record in architectures() for name in record.columns]
    return (
        prediction.latency_s, prediction.ttft_s, prediction.tpot_s, interval.low_s, interval.high_s,
        *totals.breakdown_s.values(),
        totals.exposed_s, totals.hidden_s, totals.alone_s,
        cost.waiting_s, cost.compute_slowdown_s, cost.collective_slowdown_s,
        totals.host_wait_s, prediction.slowdown, prediction.num_parameters,
        memory.weights_bytes, memory.kv_cache_bytes, memory.activation_bytes,
        *own, prediction.timeline.num_events,
    )  # fmt: skip
