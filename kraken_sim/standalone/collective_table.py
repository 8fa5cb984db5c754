"""A collective over a range of sizes, as nccl-tests measures it: sizes, times, and both bandwidths."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kraken_sim.costs.collectives.kinds import bus_factor
from kraken_sim.errors import InputError, closest
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.standalone.one_op import CollectiveOpSpec, collective_cost_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.nccl_tests import MeasuredCollective
    from kraken_sim.profiles.profile import HardwareProfile

MAX_SIZES = 10_000
"""Most sizes of a table; a limit of ours, where a step too small would run for minutes."""

ELEMENT_BYTES = {
    "int8": 1, "uint8": 1, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "half": 2, "float": 4, "double": 8, "bfloat16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1,
}  # fmt: skip
"""NCCL's types as nccl-tests names them, and the bytes of one element."""
TORCH_NAMES = {"float16": "half", "float32": "float", "float64": "double", "fp16": "half", "fp32": "float"}
REDUCING = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER)
PER_RANK = (CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_TO_ALL)
"""Collectives whose `count` nccl-tests gives for one rank's share."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """A size as nccl-tests takes it: 8, 1K, 512M, 1G, in powers of 1024.

    Raises:
        InputError: It is no size, or below one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) * 1024.0 ** " KMG".index(match[2].upper() or " ") if match else 0.0
    if number < 1.0 or number != int(number):
        raise InputError.single(option, "must be a size of at least one byte", text, "512M, or 8, 64K, 1G")
    return int(number)


def sizes_between(begin: int, end: int, factor: float | None, step: int | None) -> list[int]:
    """Begin, begin * factor, ... or begin, begin + step, ... up to `end`.

    Raises:
        InputError: An empty range, both or no way to get from one size to the next, or too many sizes.
    """
    if begin > end:
        raise InputError.single("-b", f"must not be above -e ({end})", begin, "-b 8 -e 512M -f 2")
    if factor is not None and step is not None:
        raise InputError.single("-i", "is a step and -f a factor: give one of them", step, "-b 8 -e 512M -f 2")
    if step is None and not (factor is not None and 1.0 < factor < float("inf")):
        raise InputError.single("-f", "must be above 1", factor, "-f 2")
    if step is not None and (end - begin) // step >= MAX_SIZES:
        message = f"gives more than {MAX_SIZES} sizes from {begin} to {end}"
        raise InputError.single("-i", message, step, "-i 1M")
    found = list(_sizes(begin, end, factor or 0.0, step))
    if len(found) > MAX_SIZES:
        raise InputError.single("-f", f"gives more than {MAX_SIZES} sizes from {begin} to {end}", factor, "-f 2")
    return found


def _sizes(begin: int, end: int, factor: float, step: int | None) -> Iterator[int]:
    size, number = begin, 0
    while size <= end and number <= MAX_SIZES:
        yield size
        number += 1
        size = size + step if step is not None else max(size + 1, int(size * factor))


def element_type(name: str) -> str:
    """A type by nccl-tests' name or torch's.

    Raises:
        InputError: There is none.
    """
    word = TORCH_NAMES.get(name.lower(), name.lower())
    if word not in ELEMENT_BYTES:
        known = [*ELEMENT_BYTES, *TORCH_NAMES]
        message = f"must be one of {', '.join(ELEMENT_BYTES)}"
        raise InputError.single("--dtype", message, name, "--dtype half", closest(name, known))
    return word


@dataclass(frozen=True, slots=True)
class CollectiveRow:
    """One line of nccl-tests' table, with what ran, and what was measured where that is known.

    `algbw` is size / time and `busbw` what crosses each GPU's links, in 1e9 bytes/s as nccl-tests counts.
    `error` is predicted / measured - 1.
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
    measured_s: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class CollectiveTable:
    """A collective on a machine, one row for each size."""

    hardware: str
    op: str
    num_devices: int
    library: str
    rows: tuple[CollectiveRow, ...]

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
            "worst_error": None if worst is None else {"size_bytes": worst.size_bytes, "error": worst.error},
        }


def sweep_collective(
    profile: HardwareProfile,
    spec: CollectiveOpSpec,
    sizes: Sequence[int],
    dtype: str,
    measured: Sequence[MeasuredCollective] = (),
) -> CollectiveTable:
    """The table of `spec` (whose bytes are ignored) at every size, or at every measurement where there are some.

    Raises:
        InputError, InfeasibleError: see `kraken_sim.standalone.one_op.predict_op`.
    """
    wanted: list[tuple[int, float | None]] = [(one.size_bytes, one.time_s) for one in measured]
    wanted = wanted or [(size, None) for size in sizes]
    rows = tuple(_row(profile, spec, size, dtype, time_s) for size, time_s in wanted)
    return CollectiveTable(profile.name, spec.op.value, spec.num_devices, spec.library.value, rows)


def _row(
    profile: HardwareProfile, spec: CollectiveOpSpec, size: int, dtype: str, measured_s: float | None
) -> CollectiveRow:
    kind, n = spec.op, spec.num_devices
    cost = collective_cost_on(profile, spec.model_copy(update={"bytes": size}))
    time_s = cost.busy_s + profile.launch.graph_node_gap_s if cost.busy_s > 0.0 else 0.0
    algbw = size / time_s * 1e-9 if time_s > 0.0 else 0.0
    return CollectiveRow(
        size_bytes=size,
        count=max(1, size // ELEMENT_BYTES[dtype] // (n if kind in PER_RANK else 1)),
        type=dtype,
        redop="sum" if kind in REDUCING else "none",
        root=0 if kind is CollectiveKind.BROADCAST else -1,
        time_s=time_s,
        algbw_gb_per_s=algbw,
        busbw_gb_per_s=algbw * bus_factor(kind, n),
        algorithm=cost.algorithm,
        protocol=cost.protocol,
        channels=cost.channels,
        latency_s=cost.latency_s,
        measured_s=measured_s,
        error=None if measured_s is None else time_s / measured_s - 1.0,
    )
