"""Launch costs from what was measured around kernels: medians, put together as the engine charges them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.measurements.records import LaunchRecord
from kraken_sim.profiles.profile import Provenance, ProvenanceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.measurements.schema import MeasurementFile

LAYER_CALLS: Final[Mapping[str, int]] = {"gemm": 4, "norm": 2, "add": 2, "copy": 1, "attention": 1, "gelu": 1}
"""Kernels of one decoder layer, by definition: four products and two norms (through torch.nn), two residual sums, the
cache write, attention and GELU. Their mean is the host time of a kernel; Kraken's layers have one sum and one copy
more, which changes it by less than a tenth."""

NEEDED: Final[Mapping[str, str]] = {
    "eager_kernel_s": "host_layer",
    "eager_collective_s": "host_all_reduce/blocking",
    "eager_event_s": "host_event",
    "eager_side_collective_s": "host_all_reduce/side_stream",
    "eager_kernel_gap_s": "queued_chain",
    "graph_launch_s": "graph_start",
    "graph_node_gap_s": "graph_node_gap",
    "graph_edge_s": "graph_edge",
}
"""The launch records that a cost is read off."""

Quantities = dict[tuple[str, str], list[float]]
"""Medians in seconds of (quantity, detail), one for each condition and process it was measured in."""


class _Found(NamedTuple):
    """A cost in seconds, what it was read off, and how many records those are."""

    value_s: float
    text: str
    records: int


@dataclass(frozen=True, slots=True)
class LaunchFit:
    """Launch costs, where each one that was measured is from, and from how many records."""

    constants: LaunchCosts
    sources: Mapping[str, Provenance]
    records: Mapping[str, int]

    @property
    def missing(self) -> dict[str, str]:
        """What no record tells, and which record would."""
        return {name: f"no {what} records" for name, what in NEEDED.items() if name not in self.sources}


def launch_costs(measurements: MeasurementFile, initial: LaunchCosts, machine: str) -> LaunchFit:
    """The launch costs that a file tells; the others stay as in `initial`.

    Args:
        measurements: a file with launch records.
        initial: what holds where nothing was measured.
        machine: the measured machine and its software, for the sources.
    """
    quantities: Quantities = {}
    for record in measurements.each(LaunchRecord):
        quantities.setdefault((record.quantity, record.detail), []).append(record.time_s[1])
    found = _host(quantities) | _device(quantities)
    # A slope of noisy times can come out below zero, a cost cannot.
    values = {name: max(0.0, cost.value_s) for name, cost in found.items()}
    sources = {name: Provenance(ProvenanceKind.MEASURED, f"{cost.text}; {machine}") for name, cost in found.items()}
    return LaunchFit(replace(initial, **values), sources, {name: cost.records for name, cost in found.items()})


def _host(found: Quantities) -> dict[str, _Found]:
    """What the host needs for a kernel, a collective and an event."""
    result: dict[str, _Found] = {}
    num_kernels = sum(LAYER_CALLS.values())
    if layer := found.get(("host_layer", "standard")):
        # Loops of one call tell less: its branches and caches stay warm, a whole layer took 1.1 to 2.6 times as long in
        # the processes of validation/measurements/launch. Without a layer the base's time stays.
        text = f"host_layer: a decoder layer's host time over its {num_kernels} kernels{_several(layer, 'processes')}"
        result["eager_kernel_s"] = _Found(median(layer) / num_kernels, text, len(layer))
    blocking, side = found.get(("host_all_reduce", "blocking")), found.get(("host_all_reduce", "side_stream"))
    if blocking:
        text = f"host_all_reduce/blocking{_several(blocking, 'conditions')}"
        result["eager_collective_s"] = _Found(median(blocking), text, len(blocking))
    record, wait = found.get(("host_event", "record")), found.get(("host_event", "wait"))
    if record and wait:
        event_s = (median(record) + median(wait)) / 2.0
        text = f"host_event, mean of record and wait{_several(record, 'processes')}"
        result["eager_event_s"] = _Found(event_s, text, len(record) + len(wait))
        if side:
            # Two records and two waits surround the call; the engine charges them as events.
            text = f"host_all_reduce/side_stream less its four events{_several(side, 'conditions')}"
            result["eager_side_collective_s"] = _Found(median(side) - 4.0 * event_s, text, len(side))
    return result


def _several(values: list[float], what: str) -> str:
    return f", median of {len(values)} {what}" if len(values) > 1 else ""


def _device(found: Quantities) -> dict[str, _Found]:
    """What lies between kernels on the device."""
    result: dict[str, _Found] = {}
    gap, chain = found.get(("graph_node_gap", "")), found.get(("graph_chain", ""))
    if gap:
        text = "graph_node_gap: what remains of the period of kernels of known length as that length goes to nothing"
        result["graph_node_gap_s"] = _Found(median(gap), text, len(gap))
    if edge := found.get(("graph_edge", "")):
        text = "graph_edge: half of what a fork and a join add to the critical path"
        result["graph_edge_s"] = _Found(median(edge), text, len(edge))
    starts = [times for (quantity, _), times in found.items() if quantity == "graph_start"]
    if starts:
        text = "graph_start, from the launch call on an idle device to the first node, median over sizes of graphs"
        result["graph_launch_s"] = _Found(median(map(median, starts)), text, sum(map(len, starts)))
    queued = found.get(("queued_chain", ""))
    if queued and gap and chain:
        work_s = median(chain) - median(gap)
        text = "queued_chain less the kernel's own work, which is graph_chain less graph_node_gap"
        result["eager_kernel_gap_s"] = _Found(median(queued) - work_s, text, len(queued))
    return result
