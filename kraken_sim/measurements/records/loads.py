"""A load that a card keeps up for a while (sustained), or meets after a rest (wake): clocks, power and temperature."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kraken_sim.measurements.records.base import Case, Positive, Quartiles, Seconds, Timed
from kraken_sim.measurements.records.together import PairedOp
from kraken_sim.program.formats import Quantization
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch


class SustainedCase(Case):
    """A chain of kernels that runs for `duration_s` after `idle_before_s` of rest, on every device at once."""

    kind: Literal["sustained"] = "sustained"
    shapes: tuple[tuple[Positive, Positive, Positive], ...] = ()
    """(m, n, k) of the GEMMs, in turn; or"""
    compute: tuple[PairedOp, ...] = ()
    """kernels of any kind, in turn."""
    idle_before_s: float
    duration_s: float
    dtype: DType
    device_index: int
    launch: Launch = Launch.EAGER
    """graph: rounds of the chain in CUDA graphs, so that short kernels do not wait for the host."""
    quantization: Quantization | None = None
    """fp8: GEMMs of float8_e4m3fn operands, without bias."""
    load_before_s: Annotated[float, Field(ge=0.0)] = 0.0
    """The same chain for so long before the rest."""
    chunk_s: Annotated[float, Field(gt=0.0)] = 0.1
    """Longest chunk whose rate is read."""
    pause_ctas: Annotated[int, Field(ge=0)] = 0
    """CTAs of a spinning kernel behind each round,"""
    pause_share: Annotated[float, Field(ge=0.0)] = 0.0
    """and how long it spins, over the time of a round."""

    @property
    def key(self) -> str:
        """Names this case."""
        shapes = "+".join(["x".join(map(str, shape)) for shape in self.shapes] + [str(op) for op in self.compute])
        times = f"idle{self.idle_before_s:g}/run{self.duration_s:g}"
        parts = ["sustained", str(self.quantization or self.dtype), times, f"device{self.device_index}", shapes]
        parts += ["graph"] if self.launch is Launch.GRAPH else []
        parts += [f"after{self.load_before_s:g}"] if self.load_before_s else []
        parts += [f"pause{self.pause_ctas}x{self.pause_share:g}"] if self.pause_share else []
        return "/".join(parts)


class SustainedRecord(SustainedCase):
    """The rate from chunk to chunk and what the card's sensors said meanwhile.

    `chunk_end_s` counts from the start of the first kernel; `chunk_flops` is the rate within the chunk that ends
    there, `chunk_rounds_per_s` that of whole rounds of the chain. A sample is (seconds from the start, SM clock in
    Hz, power in W, temperature in °C).
    """

    chunk_end_s: tuple[float, ...]
    chunk_flops: tuple[float, ...]
    chunk_rounds_per_s: tuple[float, ...] = ()
    samples: tuple[tuple[float, float, float, float], ...] = ()
    energy_j: tuple[tuple[float, float], ...] = ()
    """(seconds from the start, J used since the first entry), where the card's counter moved."""
    pause_s: Seconds = 0.0
    """How long the spinning kernel behind each round was told to spin."""


class WakeCase(Case):
    """A graph of a few rounds of a chain on a device that has rested: what its first launch waits for."""

    kind: Literal["wake"] = "wake"
    compute: tuple[PairedOp, ...]
    rounds: Positive
    rest_s: Annotated[float, Field(ge=0.0)]
    wait: Literal["sleep", "spin", "device"]
    """Who rests: both, the host asleep; the device, the host spins; the host, the device runs a kernel of one CTA."""
    dtype: DType
    remapped: bool = False
    """In memory mapped anew, after the process has given a large part of the device's back to the driver."""

    @property
    def key(self) -> str:
        """Names this case."""
        return f"wake/{self.dtype}/{self.wait}/rest{self.rest_s:g}/{self.work}"

    @property
    def work(self) -> str:
        """Names what the graph does, and where."""
        memory = "/remapped" if self.remapped else ""
        return f"{'+'.join(map(str, self.compute))}/x{self.rounds}{memory}"


class WakeRecord(WakeCase, Timed):
    """Times of a repeat, medians of its rounds, and the card's state before and after.

    `time_s`: from an event before the graph's launch to one behind it. `inside_s`: between events in the graph, at its
    start and its end. `host_s`: what the launch took of the host. `round_s`: each round of the graph, or the mean of
    several, medians.

    Clocks in Hz and power in W are those of a repeat of its own, read at the end of the rest and behind the graph.
    """

    time_s: Quartiles
    inside_s: Quartiles
    host_s: Quartiles
    round_s: tuple[Seconds, ...] = ()
    sm_clock_hz: tuple[float, float] | None = None
    memory_clock_hz: tuple[float, float] | None = None
    power_w: tuple[float, float] | None = None
