"""Each block of a measured machine's profile: which records it is fitted to, and what the base does on the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration import attention, collectives, contention, gemm, memory_bound, power
from kraken_sim.calibration.base_errors import BaseErrors, base_errors_of
from kraken_sim.calibration.node_wait import node_wait
from kraken_sim.calibration.overlap import pair_samples, sustained_samples
from kraken_sim.calibration.progress import machine_text
from kraken_sim.calibration.quantised import fit_quantised
from kraken_sim.calibration.residency import fit_held_share
from kraken_sim.calibration.samples import all_reduce_samples, attention_samples, gemm_samples
from kraken_sim.calibration.small_kernels import errors_of_kinds, memory_bound_samples
from kraken_sim.measurements.launch import launch_costs
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText
from kraken_sim.program.formats import ActivationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kraken_sim.calibration.collectives import AllReduceSample
    from kraken_sim.calibration.progress import Calibration
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

MIN_ALL_REDUCE: Final = 20
"""Fewest AllReduces of a fit; a limit of ours."""

_NVLS_OFF: Final = "0"


def _launch(work: Calibration) -> None:
    fit = launch_costs(work.measurements, work.base.launch, work.machine)
    if not fit.sources:
        work.kept["launch"] = "no launch records"
        return
    base = work.base.provenance
    known = {path.removeprefix("launch."): where for path, where in base.items() if path.startswith("launch.")}
    provenance = Provenance(ProvenanceKind.MEASURED, f"medians of launch records; {work.machine}")
    constants, sources = fit.constants, dict(fit.sources)
    if work.kernels_from and work.measurements.header.num_devices > 1:
        wait = node_wait(work.measurements, work.kernels_from)
        constants = replace(constants, graph_node_wait_s=wait.seconds)
        text = f"what {wait.num_kernels} small kernels take longer than on {machine_text(work.kernels_from[0])}, median"
        sources["graph_node_wait_s"] = Provenance(ProvenanceKind.MEASURED, f"{text}; {work.machine}")
    work.found("launch", BlockText(constants, provenance, known | sources))
    work.records |= fit.records
    work.kept |= {f"launch.{name}": why for name, why in fit.missing.items()}


def _kernels(
    work: Calibration,
    block: str,
    what: str,
    samples: Sequence[Any],
    least: int,
    fit: Callable[..., Fit[Any, Any]],
    periods: Callable[..., Iterable[float]],
    class_of: Callable[[Any], tuple[int, str]],
) -> tuple[Fit[Any, Any], BaseErrors] | None:
    """A block of kernels fitted to samples with a period, and the base on the same; None of too few samples."""
    if len(samples) < least:
        work.kept[block] = _too_few(len(samples), least, what)
        return None
    device, start, gap_s = work.base.device, getattr(work.base, block), work.gap_s
    found = fit(samples, device, start, graph_node_gap_s=gap_s)
    kernel = block.replace("_", "-")
    return found, base_errors_of(
        kernel, class_of, len(samples), found, lambda held: periods(held, device, start, gap_s)
    )


def _gemm(work: Calibration) -> None:
    samples = work.samples(lambda file: gemm_samples(file, work.base.device, work.gap_s))
    made = _kernels(work, "gemm", "GEMMs", samples, gemm.MIN_SAMPLES, gemm.fit_gemm, gemm.gemm_periods, gemm.rows_class)
    if made is not None:
        work.fitted("gemm", made[0], f"{len(samples)} GEMMs at the boost clock", made[1])


def _quantised(work: Calibration) -> None:
    """Products of quantised operands, by format and scales, where a file has them."""
    device, gap_s = work.base.device, work.gap_s
    for one, fit in fit_quantised(work.measurements, work.profile, gap_s):
        by_row = one.scheme is ActivationScheme.DYNAMIC
        _, before = work.base.gemm_of(one.quantization, by_row=by_row)
        records = len(fit.fitted) + len(fit.held_out)
        judge = base_errors_of(
            one.block,
            gemm.rows_class,
            records,
            fit,
            lambda held, before=before: gemm.gemm_periods(held, device, before, gap_s),  # type: ignore[misc]
        )
        work.fitted(one.block, fit, f"{records} GEMMs of torch._scaled_mm with {one.what}", judge)


def _attention(work: Calibration) -> None:
    samples, model = work.samples(attention_samples), attention
    what, least = "attention kernels", model.MIN_SAMPLES
    made = _kernels(
        work, "attention", what, samples, least, model.fit_attention, model.attention_periods, model.phase_class
    )
    if made is None:
        return
    work.fitted("attention", made[0], f"{len(samples)} {what}", made[1])
    # What a serving engine adds to the kernel is not in these records: its own fit stays for that.
    if "attention" in work.blocks and work.base.serving_attention is None:
        work.profile = replace(work.profile, serving_attention=work.base.attention)


def _memory_bound(work: Calibration) -> None:
    samples, model = work.samples(memory_bound_samples), memory_bound
    what, least = "memory-bound kernels", model.MIN_SAMPLES
    made = _kernels(
        work, "memory_bound", what, samples, least, model.fit_memory_bound, model.memory_bound_periods, model.kind_class
    )
    if made is None:
        return
    fit, judge = made
    files = work.kernels_from or (work.measurements,)
    held, overrides = fit_held_share(files, work.base.device), errors_of_kinds(fit, machine_text(files[0]))
    if held is not None:
        fit = replace(fit, constants=replace(fit.constants, held_share=held.held_share))
        source = f"where {held.num_chains} chains of a GEMM and a small kernel begin to find its operands in HBM"
        overrides["held_share"] = Provenance(ProvenanceKind.FITTED, source)
    work.fitted("memory_bound", fit, f"{len(samples)} {what}", judge, overrides)


def _collectives(work: Calibration) -> None:
    samples = all_reduce_samples(work.measurements, work.gap_s)
    if len(samples) < MIN_ALL_REDUCE:
        work.kept["collectives"] = _too_few(len(samples), MIN_ALL_REDUCE, "AllReduces")
        return
    device, initial = work.base.device, nccl_of(work.measurements, work.base.collectives)
    interconnects = _interconnects(work.base, samples)
    fit = collectives.fit_all_reduce(samples, interconnects, device, initial)
    judge = base_errors_of(
        "all_reduce",
        collectives.condition_class,
        len(samples),
        fit,
        lambda held: collectives.all_reduce_periods(held, interconnects, device, initial),
    )
    what = (
        f"{len(samples)} AllReduces in CUDA graphs; rates of links and kernels that were not measured are the base "
        "profile's"
    )
    work.fitted("collectives", fit, what, judge)


def _contention(work: Calibration) -> None:
    samples = pair_samples(work.measurements)
    if len(samples) < contention.MIN_SAMPLES:
        work.kept["contention"] = _too_few(len(samples), contention.MIN_SAMPLES, "pairs")
        return
    fit = contention.fit_contention(samples, work.profile)
    conditions = sorted({sample.condition for sample in samples})
    held = [sample for sample, _ in fit.held_out]
    before = contention.errors_of_pairs(held, work.profile, work.base.contention)
    judge = BaseErrors(
        "pair",
        lambda s: (conditions.index(s.condition), s.condition),
        len(samples),
        list(zip(held, before, strict=True)),
    )
    what = f"{len(samples)} pairs of compute and AllReduce"
    if fit.held_out:
        ideal = contention.ideal_error(sample for sample, _ in fit.held_out)
        what += f" (error if overlap were free {100 * ideal:.1f} %)"
    work.fitted("contention", fit, what, judge)


def _power(work: Calibration) -> None:
    samples = sustained_samples(work.measurements, work.profile)
    start = work.base.power or power.start_for(work.base.device)
    try:
        fit = power.fit_power(samples, work.base.device, start)
    except ValueError as error:
        work.kept["power"] = str(error)
        return
    texts = {**fit.kept, "repeats": power.REPEATS_MEAN}
    known = {name: work.base.provenance.get(f"power.{name}", _assumed(why)) for name, why in texts.items()}
    # Without a power block the clock never falls, which no fit needs to beat.
    before = power.load_errors(fit.fitted, work.base.device, start) if work.base.power is not None else []
    judge = BaseErrors("sustained", power.load_class, len(samples), before)
    work.fitted("power", fit, f"{len(samples)} sustained loads", judge, known)


BLOCK_FITS: Final = (_launch, _gemm, _quantised, _attention, _memory_bound, _collectives, _contention, _power)
"""In turn: the gap between nodes is part of every period, so the launch costs come first."""


def nccl_of(measurements: MeasurementFile, constants: CollectiveConstants) -> CollectiveConstants:
    """The constants with the NCCL that was measured: its version, and NVLS as its environment had it."""
    header = measurements.header
    changes: dict[str, Any] = {}
    parts = (header.nccl or "").split(".")
    if len(parts) > 1 and parts[0] == "2" and parts[1].isdigit():
        changes["nccl_minor_version"] = int(parts[1])
    if "NCCL_NVLS_ENABLE" in header.environment:
        changes["nvls_enabled"] = int(header.environment["NCCL_NVLS_ENABLE"] != _NVLS_OFF)
    return replace(constants, **changes)


def _interconnects(base: HardwareProfile, samples: list[AllReduceSample]) -> dict[tuple[int, str], Interconnect]:
    groups = {(sample.num_devices, sample.transport) for sample in samples}
    return {
        (count, transport): base.topology.interconnect(count, p2p=transport == "p2p")
        for count, transport in sorted(groups)
    }


def _assumed(source: str) -> Provenance:
    return Provenance(ProvenanceKind.ASSUMED, source)


def _too_few(count: int, least: int, what: str) -> str:
    return f"{count or 'no'} {what}, a fit needs {least}" if count else f"no {what}"
