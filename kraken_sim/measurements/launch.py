"""Launch costs from what was measured around kernels: medians, put together as the engine charges them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, sqrt
from statistics import median, variance
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.measurements.records.launched import LaunchRecord
from kraken_sim.measurements.records.loads import WakeRecord
from kraken_sim.profiles.profile import Provenance, ProvenanceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    "graph_launch_rested_s": "wake",
    "graph_node_gap_s": "graph_node_gap",
    "graph_edge_s": "graph_edge",
    "eager_shares": "host_kernel",
    "eager_shares.generated": "host_layer/llama",
    "eager_spread": "second process's",
}
"""The launch records that a cost is read off."""

LLAMA_CALLS: Final[Mapping[str, int]] = {"gemm": 4, "norm": 2, "pointwise": 2, "attention": 1, "generated": 3}
"""Kernels of one Llama-like decoder layer of validation/models, by definition: four products, two norms, two sums,
attention; rotary positions, the cache write and SiLU-mul are kernels that torch.compile has generated."""

_MODULES: Final[Mapping[str, str]] = {"gemm": "linear", "norm": "layer_norm"}
"""Kernels that a model calls through a module of torch.nn."""

CALLS: Final = ("host_kernel", "host_module", "host_layer", "eager_chain", "round_trip")
"""Launch records of calls that every host of an eager step makes."""

LEAST_SHARE: Final = 0.05
"""Least share of a kernel, against noise; a limit of ours."""

RESTED_S: Final = 0.1
"""From so long a rest on the first launch takes as long after any; measured on an H200."""

Quantities = dict[tuple[str, str], list[float]]
"""Medians in seconds of (quantity, detail), one for each condition and process it was measured in."""


class _Found(NamedTuple):
    """A cost in seconds or a share, what it was read off, and how many records those are."""

    value: float
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
        told = {*self.sources, *(name.partition(".")[0] for name in self.sources)}
        return {name: f"no {what} records" for name, what in NEEDED.items() if name not in told}


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
    found = _host(quantities) | _device(quantities) | _shares(quantities) | _spread(measurements)
    found |= _rested(measurements.sample(WakeRecord))
    # A slope of noisy times can come out below zero, a cost cannot.
    values = {name: max(0.0, cost.value) for name, cost in found.items() if "." not in name}
    shares = {name.partition(".")[2]: cost.value for name, cost in found.items() if "." in name}
    sources = {name: Provenance(ProvenanceKind.MEASURED, f"{cost.text}; {machine}") for name, cost in found.items()}
    constants = replace(initial, **values, eager_shares={**initial.eager_shares, **shares})
    return LaunchFit(constants, sources, {name: cost.records for name, cost in found.items()})


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


def _shares(found: Quantities) -> dict[str, _Found]:
    """Host time of each kind of kernel over the mean of a decoder layer's; by their dotted path in the launch costs."""
    if any(("host_kernel", kernel) not in found for kernel in LAYER_CALLS):
        return {}
    calls = {kernel: _call_s(kernel, found) for kernel in LAYER_CALLS}
    mean_s = sum(count * calls[kernel] for kernel, count in LAYER_CALLS.items()) / sum(LAYER_CALLS.values())
    pointwise = {kernel: LAYER_CALLS[kernel] for kernel in ("add", "gelu")}
    pointwise_s = sum(count * calls[kernel] for kernel, count in pointwise.items()) / sum(pointwise.values())
    times = {kind: calls[kind] for kind in ("gemm", "attention", "norm", "copy")} | {"pointwise": pointwise_s}
    text = "host_kernel and host_module over their mean in a decoder layer"
    records = sum(len(found["host_kernel", kernel]) for kernel in LAYER_CALLS)
    shares = {kind: max(LEAST_SHARE, time_s / mean_s) for kind, time_s in times.items()}
    result = {f"eager_shares.{kind}": _Found(share, text, records) for kind, share in shares.items()}
    standard, llama = found.get(("host_layer", "standard")), found.get(("host_layer", "llama"))
    if standard and llama:
        kernel_s = median(standard) / sum(LAYER_CALLS.values())
        others = sum(count * shares[kind] for kind, count in LLAMA_CALLS.items() if kind != "generated")
        share = (median(llama) / kernel_s - others) / LLAMA_CALLS["generated"]
        text = "host_layer/llama: what its three generated kernels take more than the layer's others"
        result["eager_shares.generated"] = _Found(max(LEAST_SHARE, share), text, len(llama))
    elif generated := found.get(("host_kernel", "generated")):
        result["eager_shares.generated"] = _Found(median(generated) / mean_s, text, len(generated))
    return result


def _call_s(kernel: str, found: Quantities) -> float:
    """Host seconds of one call, through its module where a model has one."""
    module = found.get(("host_module", _MODULES.get(kernel, "")))
    return median(module if module else found["host_kernel", kernel])


def _spread(measurements: MeasurementFile) -> dict[str, _Found]:
    """How far the host's times differ from process to process: standard deviation of their logarithm over all calls.

    Nothing where no call was measured in two processes.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for record in measurements.each(LaunchRecord):
        if record.quantity in CALLS and record.condition is None and record.time_s[1] > 0.0:
            times.setdefault((record.quantity, record.detail), []).append(log(record.time_s[1]))
    several = [values for values in times.values() if len(values) > 1]
    if not several:
        return {}
    degrees = sum(len(values) - 1 for values in several)
    spread = sqrt(sum((len(values) - 1) * variance(values) for values in several) / degrees)
    text = f"standard deviation of the logarithm from process to process, pooled over {len(several)} kinds of calls"
    return {"eager_spread": _Found(spread, text, sum(map(len, several)))}


def _several(values: list[float], what: str) -> str:
    return f", median of {len(values)} {what}" if len(values) > 1 else ""


def _rested(records: Sequence[WakeRecord]) -> dict[str, _Found]:
    """What the first launch after a rest of host and device takes, until its kernels run as they do without a rest.

    Kernels are a little slower then too, as their instructions are cold; that is in it.
    """
    warm = {record.work: record.inside_s.median for record in records if record.rest_s == 0.0}
    times = [
        record.time_s.median - warm[record.work]
        for record in records
        if record.rest_s >= RESTED_S and record.wait == "sleep" and record.work in warm
    ]
    if not times:
        return {}
    text = f"wake: graphs launched after {RESTED_S:g} s of rest and more, less the same kernels without a rest"
    return {"graph_launch_rested_s": _Found(median(times), f"{text}{_several(times, 'chains and rests')}", len(times))}


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
