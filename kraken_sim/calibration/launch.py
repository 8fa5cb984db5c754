"""Launch costs from what was measured around kernels: medians, put together as the engine charges them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Final

from kraken_sim.measurements.records import AttentionRecord, GemmRecord, Launch, LaunchRecord, MemoryBoundRecord
from kraken_sim.profiles.profile import Provenance, ProvenanceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.measurements.schema import MeasurementFile

LAYER_CALLS: Final[Mapping[str, int]] = {"gemm": 4, "norm": 2, "add": 2, "copy": 1, "attention": 1, "gelu": 1}
"""Kernels of one decoder layer, by definition: four products and two norms (through torch.nn), two residual sums, the
cache write, attention and GELU. Their mean is the host time of a kernel; Kraken's layers have one sum and one copy
more, which changes it by less than a tenth."""

MODULES: Final[Mapping[str, str]] = {"gemm": "linear", "norm": "layer_norm"}
"""Kernels that a model calls through a module of torch.nn."""

_FASTEST_SHARE: Final = 4
"""Of chains launched one by one the fastest quarter waits for the host alone; a choice of ours."""

Quantities = dict[tuple[str, str], list[float]]
"""Medians in seconds of (quantity, detail), one for each condition it was measured under."""


@dataclass(frozen=True, slots=True)
class LaunchFit:
    """Launch costs, and where each one that was measured is from."""

    constants: LaunchCosts
    sources: Mapping[str, Provenance]


def launch_costs(measurements: MeasurementFile, initial: LaunchCosts, machine: str) -> LaunchFit:
    """The launch costs that a file tells; the others stay as in `initial`.

    Args:
        measurements: a file with launch records; of others those of single kernels launched one by one are read.
        initial: what holds where nothing was measured.
        machine: the measured machine and its software, for the sources.
    """
    found: Quantities = {}
    for record in measurements.select(LaunchRecord):
        found.setdefault((record.quantity, record.detail), []).append(record.time_s[1])
    chains = _eager_chains(measurements)
    values: dict[str, float] = {}
    sources: dict[str, Provenance] = {}
    for name, (value, text) in (_host(found, chains) | _device(found)).items():
        # A slope of noisy times can come out below zero, a cost cannot.
        values[name] = max(0.0, value)
        sources[name] = Provenance(ProvenanceKind.MEASURED, f"{text}; {machine}")
    return LaunchFit(replace(initial, **values), sources)


def _eager_chains(measurements: MeasurementFile) -> dict[str, list[float]]:
    """Periods in seconds of chains that were launched one by one, by the kernel."""
    records: list[tuple[str, GemmRecord | AttentionRecord | MemoryBoundRecord]] = [
        *(("gemm", record) for record in measurements.select(GemmRecord)),
        *(("attention", record) for record in measurements.select(AttentionRecord)),
        *((record.function, record) for record in measurements.select(MemoryBoundRecord)),
    ]
    chains: dict[str, list[float]] = {}
    for kernel, record in records:
        if record.launch is Launch.EAGER:
            chains.setdefault(kernel, []).append(record.time_s.median)
    return chains


def _host(found: Quantities, chains: Mapping[str, list[float]]) -> dict[str, tuple[float, str]]:
    """What the host needs for a kernel, a collective and an event."""
    result: dict[str, tuple[float, str]] = {}
    num_kernels = sum(LAYER_CALLS.values())
    if layer := found.get(("host_layer", "standard")):
        # A loop of one call flatters the host: the branches and caches of a whole layer are not as warm.
        text = f"host_layer: a decoder layer's host time over its {num_kernels} kernels"
        result["eager_kernel_s"] = (median(layer) / num_kernels, text)
    elif all(("host_kernel", kernel) in found for kernel in LAYER_CALLS):
        total = sum(count * _call_s(kernel, found, chains) for kernel, count in LAYER_CALLS.items())
        text = "host_kernel, host_module and the fastest eager chains, mean over the kernels of a decoder layer"
        calls = ", ".join(f"{count} {kernel}" for kernel, count in LAYER_CALLS.items())
        result["eager_kernel_s"] = (total / num_kernels, f"{text} ({calls})")
    blocking, side = found.get(("host_all_reduce", "blocking")), found.get(("host_all_reduce", "side_stream"))
    if blocking:
        result["eager_collective_s"] = (median(blocking), f"host_all_reduce/blocking{_conditions(blocking)}")
    record, wait = found.get(("host_event", "record")), found.get(("host_event", "wait"))
    if record and wait:
        event_s = (median(record) + median(wait)) / 2.0
        result["eager_event_s"] = (event_s, "host_event, mean of record and wait")
        if side:
            # Two records and two waits surround the call; the engine charges them as events.
            text = f"host_all_reduce/side_stream less its four events{_conditions(side)}"
            result["eager_side_collective_s"] = (median(side) - 4.0 * event_s, text)
    return result


def _call_s(kernel: str, found: Quantities, chains: Mapping[str, list[float]]) -> float:
    """Host seconds of one call: of a small one, or of real sizes where those take the host longer."""
    call_s = median(found["host_kernel", kernel])
    periods = sorted(chains.get(kernel, []))
    # A lone chain may have waited for the device, the fastest quarter of several hardly did.
    if len(periods) >= _FASTEST_SHARE:
        call_s = max(call_s, median(periods[: len(periods) // _FASTEST_SHARE]))
    module = found.get(("host_module", MODULES.get(kernel, "")))
    around_s = max(0.0, median(module) - median(found["host_kernel", kernel])) if module else 0.0
    return call_s + around_s


def _conditions(values: list[float]) -> str:
    return f", median of {len(values)} conditions" if len(values) > 1 else ""


def _device(found: Quantities) -> dict[str, tuple[float, str]]:
    """What lies between kernels on the device."""
    result: dict[str, tuple[float, str]] = {}
    gap, chain = found.get(("graph_node_gap", "")), found.get(("graph_chain", ""))
    if gap:
        text = "graph_node_gap: what remains of the period of kernels of known length as that length goes to nothing"
        result["graph_node_gap_s"] = (median(gap), text)
    if (edge := found.get(("graph_edge", ""))) is not None:
        result["graph_edge_s"] = (median(edge), "graph_edge: half of what a fork and a join add to the critical path")
    starts = [median(times) for (quantity, _), times in found.items() if quantity == "graph_start"]
    if starts:
        text = "graph_start, from the launch call on an idle device to the first node, median over sizes of graphs"
        result["graph_launch_s"] = (median(starts), text)
    queued = found.get(("queued_chain", ""))
    if queued and gap and chain:
        work_s = median(chain) - median(gap)
        text = "queued_chain less the kernel's own work, which is graph_chain less graph_node_gap"
        result["eager_kernel_gap_s"] = (median(queued) - work_s, text)
    return result
