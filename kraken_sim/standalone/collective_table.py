"""A collective over a range of sizes, as nccl-tests measures it: sizes, times, and both bandwidths."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.kinds import bus_factor
from kraken_sim.measurements.nccl_tests import MeasuredCollective
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.standalone.collective_trust import collective_interval, unmeasured
from kraken_sim.standalone.one_op import CollectiveOpSpec, collective_cost_on
from kraken_sim.standalone.sizes import ELEMENT_BYTES, PER_RANK, REDUCING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.profiles.profile import HardwareProfile


@dataclass(frozen=True, slots=True)
class CollectiveRow:
    """One line of nccl-tests' table, with what ran, and what was measured where that is known.

    `algbw` is size / time and `busbw` what crosses each GPU's links, in 1e9 bytes/s as nccl-tests counts.
    `error` is predicted / measured - 1. The time lies between `low_s` and `high_s` with a probability of 90 %,
    as far as the errors of the constants tell.
    """

    size_bytes: int
    count: int
    type: str
    redop: str
    root: int
    time_s: float
    algbw_gb_per_s: float
    busbw_gb_per_s: float
    algorithm: str
    protocol: str
    channels: int
    latency_s: float
    low_s: float
    high_s: float
    measured_s: float | None = None
    error: float | None = None
    measured_in_place_s: float | None = None


@dataclass(frozen=True, slots=True)
class CollectiveTable:
    """A collective on a machine, one row for each size.

    `unmeasured` says of which of the constants used nobody measured this machine or a relative, `warnings` what differs
    between the measurements and the question.
    """

    hardware: str
    op: str
    num_devices: int
    library: str
    rows: tuple[CollectiveRow, ...]
    unmeasured: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def average_busbw_gb_per_s(self) -> float:
        """The mean that nccl-tests prints below its table."""
        return sum(row.busbw_gb_per_s for row in self.rows) / len(self.rows)

    @property
    def errors(self) -> list[CollectiveRow]:
        """The rows with a measurement."""
        return [row for row in self.rows if row.error is not None]

    @property
    def mean_error(self) -> float | None:
        """Mean of |predicted / measured - 1|, None without measurements."""
        errors = [abs(row.error) for row in self.rows if row.error is not None]
        return sum(errors) / len(errors) if errors else None

    @property
    def worst(self) -> CollectiveRow | None:
        """The row with the largest error, None without measurements."""
        return max(self.errors, key=lambda row: abs(row.error or 0.0), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON holds it."""
        rows = [{**asdict(row), "time_us": row.time_s * 1e6} for row in self.rows]
        worst = self.worst
        return {
            "hardware": self.hardware,
            "op": self.op,
            "num_devices": self.num_devices,
            "library": self.library,
            "rows": rows,
            "average_busbw_gb_per_s": self.average_busbw_gb_per_s,
            "mean_error": self.mean_error,
            "unmeasured": list(self.unmeasured),
            "warnings": list(self.warnings),
            "worst_error": None if worst is None else {"size_bytes": worst.size_bytes, "error": worst.error},
        }


def sweep_collective(
    profile: HardwareProfile,
    spec: CollectiveOpSpec,
    sizes: Sequence[int],
    dtype: str,
    measured: Sequence[MeasuredCollective] = (),
    warnings: Sequence[str] = (),
) -> CollectiveTable:
    """The table of `spec` (whose bytes are ignored) at every size, or at every measurement where there are some.

    Rows of measurements have the type and the operation that these say.

    Raises:
        InputError, InfeasibleError: see `kraken_sim.standalone.one_op.predict_op`.
    """
    if not measured:
        measured = [MeasuredCollective(size, 0.0) for size in sizes]
    costs = [collective_cost_on(profile, spec.model_copy(update={"bytes": one.size_bytes})) for one in measured]
    rows = tuple(_row(profile, spec, one, cost, dtype) for one, cost in zip(measured, costs, strict=True))
    return CollectiveTable(
        profile.name,
        spec.op.value,
        spec.num_devices,
        spec.library.value,
        rows,
        unmeasured(profile, spec, costs),
        tuple(warnings),
    )


def _row(
    profile: HardwareProfile, spec: CollectiveOpSpec, one: MeasuredCollective, cost: CollectiveCost, dtype: str
) -> CollectiveRow:
    kind, n, size = spec.op, spec.num_devices, one.size_bytes
    gap_s = profile.launch.graph_node_gap_s if cost.busy_s > 0.0 else 0.0
    time_s = cost.busy_s + gap_s
    algbw = size / time_s * 1e-9 if time_s > 0.0 else 0.0
    likely = collective_interval(profile, spec, cost, gap_s)
    element = one.type if one.type in ELEMENT_BYTES else dtype
    return CollectiveRow(
        size_bytes=size,
        count=max(1, size // ELEMENT_BYTES[element] // (n if kind in PER_RANK else 1)),
        type=element,
        redop=one.redop or ("sum" if kind in REDUCING else "none"),
        root=0 if kind is CollectiveKind.BROADCAST else -1,
        time_s=time_s,
        algbw_gb_per_s=algbw,
        busbw_gb_per_s=algbw * bus_factor(kind, n),
        algorithm=cost.algorithm,
        protocol=cost.protocol,
        channels=cost.channels,
        latency_s=cost.latency_s,
        low_s=likely.low_s,
        high_s=likely.high_s,
        measured_s=one.time_s or None,
        error=time_s / one.time_s - 1.0 if one.time_s else None,
        measured_in_place_s=one.in_place_s,
    )
