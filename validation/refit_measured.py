"""Blocks of shipped profiles from the committed measurements of two H200, and of single ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.composed import composed_samples
from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.calibration.memory_bound import fit_memory_bound
from kraken_sim.calibration.node_wait import node_wait
from kraken_sim.calibration.overlap import sustained_samples
from kraken_sim.calibration.power import START as POWER_START
from kraken_sim.calibration.power import fit_power
from kraken_sim.calibration.progress import held_out_text, machine_text
from kraken_sim.calibration.quantised import fit_quantised, quantising_samples
from kraken_sim.costs.memory_bound import COMPOSED, QUANTISING
from kraken_sim.measurements.launch import LAYER_CALLS, launch_costs
from kraken_sim.measurements.records.launched import LaunchRecord
from kraken_sim.measurements.records.loads import WakeRecord
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText
from validation.refit_shipped import Shipped, provenance_of_fit, said, shapes_text, sources_of
from validation.refit_starts import contention_start, memory_bound_start

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kraken_sim.calibration.memory_bound import MemoryBoundSample
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants
    from kraken_sim.profiles.profile import HardwareProfile

LOADS: Final = "h200-sxm-x1-power.jsonl"
"""Sustained loads and rests of one card of the pair's kind."""
RESTS: Final = "h200-sxm-x1-power-2.jsonl"
"""Further rests, of another one."""
GIVEN_POWER: Final = ("lowest_clock", "repeats", "spread")
"""Constants that fits take as given: they are as the profile has them."""
MULTIMEM: Final = "multimem"
ONE_CARD: Final = tuple(
    f"h200-sxm-x1-{name}.jsonl"
    for name in ("llama-microbench", "chains", "gaps", "bursts", "llama-microbench-2", "chains-2")
)
WITHOUT_GEMMS: Final = "h200-sxm-x1-kernels.jsonl"
"""Files of one H200 whose kernels are fitted: fp16 and bf16, with bias and without, of GPT-2- and Llama-like layers,
grouped and wide heads, operands fresh and kept."""
NODES: Final = ("graph_node_gap_s", "graph_edge_s", "eager_kernel_gap_s")
NODES_AND_WAIT: Final = (*NODES, "graph_node_wait_s")
"""What the front end of a card takes between kernels."""


def measured(shipped: Shipped, name: str, public: str, folder: Path) -> None:
    """All that `calibrate` fits to a machine's microbenchmarks; power to those of the machine with one such card.

    Kernels start from the published ones of the same chip, for what no record of the machine tells.
    """
    profile, chip = shipped.profiles[name], shipped.profiles[public]
    serving = chip.serving_attention or chip.attention
    # Bursts tell what a kernel loses at once and the rates of both formats; a limit that acts later they don't see.
    base = replace(
        profile,
        gemm=replace(chip.gemm, float16_rate=1.0, throttle_by_limit=0),
        attention=serving,
        memory_bound=memory_bound_start(profile.memory_bound),
        collectives=_without_multicast(profile.collectives, chip.collectives),
        contention=contention_start(profile.contention),
        power=None,
    )
    shipped.profiles[name] = replace(profile, serving_attention=serving)
    own, one_card = _files(name, folder)
    found = calibrate(own, base, always=True, kernels_from=one_card)
    for block, fitted in found.blocks.items():
        if block == "power":
            continue
        text = fitted.text
        if block == "launch":
            text = _with_rest(_with_host(text, folder), folder)
        if block == "collectives":
            text = _with_kinds(text, chip, public)
        shipped.put(name, block, text)
    shipped.put(name, "serving_attention", BlockText(serving, said(chip, "serving_attention")))
    _power(shipped, name, folder)


def _files(name: str, folder: Path) -> tuple[MeasurementFile, list[MeasurementFile]]:
    """A machine's own file, and those of one such card whose kernels are fitted.

    GEMMs of the suite `full`, one after another for seconds, run below the boost clock, which varies from one to the
    next by a tenth; those between other kernels do not.
    """
    one_card = [read_measurements(folder / file) for file in ONE_CARD]
    slowed = read_measurements(folder / WITHOUT_GEMMS)
    others = tuple(record for record in slowed.records if record.kind != "gemm")
    return read_measurements(folder / f"{name}-microbench.jsonl"), [*one_card, replace(slowed, records=others)]


def _without_multicast(own: CollectiveConstants, chip: CollectiveConstants) -> CollectiveConstants:
    """The chip's constants on a machine whose switch cannot add: no multimem kernel."""
    tables = [item for item in chip.__dataclass_fields__ if item.startswith("custom_") and item != "custom_max_bytes"]
    changes: dict[str, Any] = {
        name: {kernel: value for kernel, value in getattr(chip, name).items() if kernel != MULTIMEM} for name in tables
    }
    return replace(chip, **changes, nvls_enabled=own.nvls_enabled, nccl_minor_version=own.nccl_minor_version)


def _with_kinds(text: BlockText, chip: HardwareProfile, public: str) -> BlockText:
    where = text.provenance
    theirs = said(chip, "collectives").source
    kinds = theirs[theirs.index("kind_factors") :].replace(", mean error", f", carried over from {public}, mean error")
    return replace(text, provenance=replace(where, source=f"{where.source}; {kinds}"))


def _with_host(text: BlockText, folder: Path) -> BlockText:
    """The host's times over all processes that ran a whole layer, on machines of this kind and of another."""
    files = [read_measurements(path) for path in sorted((folder / "launch").glob("*.jsonl"))]
    processes = sorted({(index, r.process) for index, file in enumerate(files) for r in file.select(LaunchRecord)})
    records = tuple(
        record.model_copy(update={"process": 1 + processes.index((index, record.process))})
        for index, file in enumerate(files)
        for record in file.select(LaunchRecord)
    )
    merged = MeasurementFile("launch", files[0].header, records)
    layers = [r.time_s[1] for r in records if (r.quantity, r.detail) == ("host_layer", "standard")]
    each = ", ".join(f"{1e6 * layer_s / sum(LAYER_CALLS.values()):.1f}" for layer_s in sorted(layers))
    devices = " and ".join(sorted({file.header.device_name for file in files}))
    where = f"{len(processes)} processes on hosts of {devices} ({each} us a kernel), torch {files[0].header.torch}"
    fit = launch_costs(merged, text.constants, where)
    names = ("eager_kernel_s", "eager_shares")
    constants = replace(text.constants, **{name: getattr(fit.constants, name) for name in names})
    sources = {path: source for path, source in fit.sources.items() if path.partition(".")[0] in names}
    return replace(text, constants=constants, overrides={**text.overrides, **sources})


def _with_rest(text: BlockText, folder: Path) -> BlockText:
    """The first launch after a rest, on two cards of the kind."""
    files = [read_measurements(folder / name) for name in (LOADS, RESTS)]
    records = tuple(record for file in files for record in file.select(WakeRecord))
    merged = MeasurementFile("rests", files[0].header, records)
    found = launch_costs(merged, text.constants, machine_text(files[0]))
    constants = replace(text.constants, graph_launch_rested_s=found.constants.graph_launch_rested_s)
    overrides = {**text.overrides, "graph_launch_rested_s": found.sources["graph_launch_rested_s"]}
    return replace(text, constants=constants, overrides=overrides)


def _power(shipped: Shipped, name: str, folder: Path) -> None:
    """Power from the loads of one such card, in all number formats and of more than GEMMs."""
    profile = shipped.profiles[name]
    loads = read_measurements(folder / LOADS)
    samples = sustained_samples(loads, profile)
    given: dict[str, Any] = {field: getattr(profile.power, field) for field in GIVEN_POWER}
    fit = fit_power(samples, profile.device, replace(POWER_START, **given))
    source = f"fit to {machine_text(loads)}, {len(samples)} sustained loads{held_out_text(fit)}"
    shipped.put(name, "power", BlockText(fit.constants, provenance_of_fit(source, fit)))


def measured_quantised(shipped: Shipped, name: str, folder: Path) -> None:
    """Products of quantised operands as torch runs them on one such card."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-fp8-microbench.jsonl")
    for one, fit in fit_quantised(file, profile, profile.launch.graph_node_gap_s):
        source = (
            f"fit to {machine_text(file)}, torch._scaled_mm with {one.what}, {shapes_text(fit)} at the boost clock"
            f"{held_out_text(fit)}"
        )
        shipped.put(name, one.block, BlockText(fit.constants, provenance_of_fit(source, fit)))


def measured_quantising(shipped: Shipped, name: str, folder: Path) -> None:
    """The kernels that quantise, on one such card, beside the other memory-bound ones."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-fp8-microbench.jsonl")
    gap_s, own = profile.launch.graph_node_gap_s, profile.memory_bound
    fit = fit_memory_bound(quantising_samples(file), profile.device, own, graph_node_gap_s=gap_s, common=False)
    source = (
        f"fit to {machine_text(file)}, kernels of torch.compile that quantise, {shapes_text(fit)}{held_out_text(fit)}"
    )
    _put_kinds(shipped, name, fit, source, QUANTISING)


def measured_composed(shipped: Shipped, name: str, folder: Path) -> None:
    """Torch's kernels for strided operands and its reductions, on one such card, from sums of operators."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-llama-microbench.jsonl")
    gap_s, own, samples = profile.launch.graph_node_gap_s, profile.memory_bound, composed_samples(file)
    fit = fit_memory_bound(samples, profile.device, own, graph_node_gap_s=gap_s, common=False, only=COMPOSED)
    source = (
        f"fit to {machine_text(file)}, RMSNorm, rotary positions and SiLU-mul of two to ten kernels, "
        f"{shapes_text(fit)}{held_out_text(fit)}"
    )
    _put_kinds(shipped, name, fit, source, COMPOSED)


def _put_kinds(
    shipped: Shipped,
    name: str,
    fit: Fit[MemoryBoundConstants, MemoryBoundSample],
    source: str,
    kinds: Iterable[str],
) -> None:
    """Some kinds of memory-bound kernels of a fit, which keep a source of their own."""
    profile, where = shipped.profiles[name], provenance_of_fit(source, fit)
    common = said(profile, "memory_bound")
    known = {path: own for path, own in sources_of(profile, "memory_bound").items() if own != common}
    overrides = known | {f"kernels.{kind}": where for kind in kinds}
    shipped.put(name, "memory_bound", BlockText(fit.constants, common, overrides))


def nodes_of_measured(shipped: Shipped, name: str, source: str, folder: Path) -> None:
    """The gaps between kernels and the edges between streams of a measured machine: fits take the gap off every period.

    They are the front end's; what the host needs for a launch stays as it is.
    """
    profile, (own, one_card) = shipped.profiles[name], _files(source, folder)
    fitted = launch_costs(own, profile.launch, "").constants
    wait_s = node_wait(own, one_card).seconds
    nodes = {field: getattr(fitted, field) for field in NODES}
    constants = replace(profile.launch, **nodes, graph_node_wait_s=wait_s)
    where = Provenance(ProvenanceKind.ASSUMED, f"as measured on {machine_text(own)}")
    sources = sources_of(profile, "launch") | dict.fromkeys(NODES_AND_WAIT, where)
    shipped.put(name, "launch", BlockText(constants, said(profile, "launch"), sources))
