"""A measured machine's profile: every cost model fitted to its microbenchmarks, with the error on held-out ones.

The records of whole passes are what predictions are checked against, so nothing here reads them: each fit takes
the samples of one type of record.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kraken_sim.calibration import attention, collectives, contention, gemm, memory_bound, power
from kraken_sim.calibration.base_errors import BaseErrors, Judgement, base_errors_of
from kraken_sim.calibration.errors import class_errors
from kraken_sim.calibration.kept import CALIBRATED, common_provenance, kept_provenance, labelled
from kraken_sim.calibration.node_wait import node_wait
from kraken_sim.calibration.overlap import pair_samples, sustained_samples
from kraken_sim.calibration.quantised import fit_quantised
from kraken_sim.calibration.residency import fit_held_share
from kraken_sim.calibration.samples import all_reduce_samples, attention_samples, gemm_samples, too_many_to_fit
from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.errors import InputError
from kraken_sim.measurements.launch import launch_costs
from kraken_sim.measurements.machine import machine_warnings
from kraken_sim.measurements.rehearsal import as_on_device, is_rehearsal
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, numbers_of
from kraken_sim.program.formats import ActivationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.calibration.collectives import AllReduceSample
    from kraken_sim.calibration.errors import ClassError
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

Sample = TypeVar("Sample")

MIN_ALL_REDUCE: Final = 20
"""Fewest AllReduces of a fit; a limit of ours."""

_NVLS_OFF: Final = "0"


@dataclass(frozen=True, slots=True)
class FittedBlock:
    """A block of the new profile, and how far off it is on records that the fit did not see."""

    text: BlockText
    errors: tuple[ClassError, ...] = ()


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A profile whose constants come from measurements.

    `blocks` are those that the measurements changed; `kept` says, for each other block and for single constants of
    these, why they are the base's. `judged` holds the refits against the base, `records` how many records told a launch
    cost, `classes` the errors of all that was held out, by class, with the constants that went into the profile.
    A `dry_run` was measured on CPUs: it shows that all of it runs, and its numbers say nothing of the profile's device.
    """

    source: str
    base: HardwareProfile
    profile: HardwareProfile
    blocks: Mapping[str, FittedBlock]
    kept: Mapping[str, str]
    judged: Mapping[str, Judgement]
    records: Mapping[str, int]
    classes: Mapping[str, tuple[ClassError, ...]]
    warnings: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def errors(self) -> list[ClassError]:
        """The errors of all blocks."""
        return [error for errors in self.classes.values() for error in errors]

    @property
    def kept_blocks(self) -> dict[str, str]:
        """Whole blocks that are the base's, and why."""
        return {name: why for name, why in self.kept.items() if name in CALIBRATED}

    @property
    def texts(self) -> dict[str, BlockText]:
        """The changed blocks as the profile's file has them: numbers that are the base's say so, and why."""
        read = frozenset(self.records)
        return {
            name: labelled(name, block.text, self.base, self.kept, read if name == "launch" else frozenset())
            for name, block in self.blocks.items()
        }


@dataclass(slots=True)
class _Calibration:
    """What the fits share, and what they have found so far."""

    measurements: MeasurementFile
    base: HardwareProfile
    machine: str
    profile: HardwareProfile
    always: bool = False
    """Refits go in however they did against the base."""
    kernels_from: tuple[MeasurementFile, ...] = ()
    """Files of one such card, whose kernels are fitted in place of this file's."""
    blocks: dict[str, FittedBlock] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    judged: dict[str, Judgement] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    classes: dict[str, tuple[ClassError, ...]] = field(default_factory=dict)

    @property
    def gap_s(self) -> float:
        """The gap between graph nodes, which every period contains."""
        return self.profile.launch.graph_node_gap_s

    def samples(self, read: Callable[[MeasurementFile], list[Sample]]) -> list[Sample]:
        """The kernels that are fitted."""
        return [sample for file in self.kernels_from or (self.measurements,) for sample in read(file)]

    def found(self, name: str, text: BlockText, errors: tuple[ClassError, ...] = ()) -> None:
        """Puts a block into the profile; a constant with a source of its own keeps it unless its value has changed."""
        text = replace(text, overrides={**unchanged(self.base, name, text.constants), **text.overrides})
        self.blocks[name] = FittedBlock(text, errors)
        constants: Any = {name: text.constants}
        self.profile = replace(self.profile, **constants)

    def fitted(
        self,
        name: str,
        fit: Fit[Any, Any],
        what: str,
        judge: BaseErrors,
        overrides: Mapping[str, Provenance] | None = None,
    ) -> None:
        """Puts a fitted block into the profile unless the base is better on what was held out of the fit.

        Args:
            name: of the block.
            fit: the block's.
            what: it was fitted to.
            judge: how the base does on the same records, and how these are classed.
            overrides: sources of single constants.
        """
        before = judge.errors if fit.held_out else []
        was = fmean(abs(error) for _, error in before) if before else None
        adopted = self.always or was is None or fit.residual is None or fit.residual < was
        self.judged[name] = Judgement(judge.records, was, fit.residual, adopted)
        self.classes[name] = class_errors(judge.kernel, fit.held_out if adopted else before, judge.class_of)
        if not adopted:
            errors = f"{100 * (fit.residual or 0.0):.2f} % against {100 * (was or 0.0):.2f} %"
            few = what.partition(";")[0].partition(" (")[0]
            self.kept[name] = f"a refit to {few} is no better on held-out shapes, {errors}"
            return
        of_kernels = name in ("gemm", "attention", "memory_bound") and self.kernels_from
        machine = machine_text(self.kernels_from[0]) if of_kernels else self.machine
        source = f"fit to {machine}, {what}{held_out_text(fit)}"
        provenance = Provenance(ProvenanceKind.FITTED, source, fit.residual)
        self.found(name, BlockText(fit.constants, provenance, overrides or {}), self.classes[name])
        self.kept |= {f"{name}.{path}": why for path, why in fit.kept.items()}


def calibrate(
    measurements: MeasurementFile,
    base: HardwareProfile,
    name: str | None = None,
    *,
    always: bool = False,
    kernels_from: Sequence[MeasurementFile] = (),
) -> CalibrationResult:
    """Fits what a file's microbenchmarks tell; the rest stays as in `base`.

    A refit whose error on held-out shapes is larger than the base's on the same shapes is not taken.

    Args:
        measurements: a file of `validation.measure`; whole passes in it are not read.
        base: the profile of the same kind of device: datasheet, topology, and where fits start.
        name: the new profile's name; default: the base's.
        always: take refits even so, where the base is only where they start.
        kernels_from: files of one such card, whose single kernels and chains are fitted in place of this file's.

    Raises:
        InputError: the file is another machine's, or holds nothing to fit.
    """
    warnings = machine_warnings(measurements, base, rehearse=True) + too_many_to_fit(measurements)
    dry_run, measurements = is_rehearsal(measurements), as_on_device(measurements)
    named = replace(base, name=name or base.name)
    work = _Calibration(measurements, base, machine_text(measurements), named, always, tuple(kernels_from))
    # The gap between nodes is part of every period, so the launch costs come first.
    for fit in (_launch, _gemm, _quantised, _attention, _memory_bound, _collectives, _contention, _power):
        fit(work)
    if not work.blocks and not work.judged:
        message = "holds no microbenchmarks, so there is nothing to fit; measure them with --suite full"
        raise InputError.single("", message, source=measurements.source)
    result = CalibrationResult(
        source=measurements.source,
        base=base,
        profile=work.profile,
        blocks=work.blocks,
        kept=work.kept,
        judged=work.judged,
        records=work.records,
        classes=work.classes,
        warnings=tuple(warnings),
        dry_run=dry_run,
    )
    return replace(result, profile=replace(work.profile, provenance=_provenance(result)))


def machine_text(measurements: MeasurementFile) -> str:
    """The machine and its software in a line: `2 x NVIDIA H200, torch 2.11.0+cu130, NCCL 2.28.9`."""
    header = measurements.header
    nccl = f", NCCL {header.nccl}" if header.nccl else ""
    return f"{header.num_devices} x {header.device_name}, torch {header.torch}{nccl}"


def held_out_text(fit: Fit[Any, Any]) -> str:
    """What a source says of a fit's error."""
    if fit.residual is None:
        return "; all of one shape, so none was held out"
    return f"; mean error {100 * fit.residual:.1f} % on held-out shapes"


def unchanged(base: HardwareProfile, name: str, constants: Any) -> dict[str, Provenance]:
    """Sources of single constants of a block, by their path in it, that are what they were in `base`.

    What the block as a whole says of itself in the base is not among them.
    """
    block, prefix = getattr(base, name), f"{name}."
    known = {path.removeprefix(prefix): where for path, where in base.provenance.items() if path.startswith(prefix)}
    if block is None or not known:
        return {}
    common = common_provenance(base, name)
    before = dict(numbers_of(block))
    return {
        path: known[path]
        for path, value in numbers_of(constants)
        if value == before.get(path) and known.get(path, common) != common
    }


def _provenance(result: CalibrationResult) -> dict[str, Provenance]:
    """Where the numbers of the new profile are from, by their paths in it."""
    base, kept = result.base, result.kept_blocks
    found: dict[str, Provenance] = {}
    for path, where in base.provenance.items():
        block = path.split(".")[0]
        if block in kept and where == common_provenance(base, block):
            found[path] = kept_provenance(where, base.name, kept[block])
        elif block not in result.blocks:
            found[path] = where
        if block == "attention" and base.serving_attention is None and block in result.blocks:
            found[f"serving_{path}"] = where
    for name, text in result.texts.items():
        found |= {f"{name}.{path}": where for path, where in text.where_all().items()}
    return found


def _launch(work: _Calibration) -> None:
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


def _gemm(work: _Calibration) -> None:
    samples = work.samples(lambda file: gemm_samples(file, work.base.device, work.gap_s))
    if len(samples) < gemm.MIN_SAMPLES:
        work.kept["gemm"] = _too_few(len(samples), gemm.MIN_SAMPLES, "GEMMs")
        return
    device, start = work.base.device, work.base.gemm
    fit = gemm.fit_gemm(samples, device, start, graph_node_gap_s=work.gap_s)
    judge = base_errors_of(
        "gemm", gemm.rows_class, len(samples), fit, lambda held: gemm.gemm_periods(held, device, start, work.gap_s)
    )
    work.fitted("gemm", fit, f"{len(samples)} GEMMs at the boost clock", judge)


def _quantised(work: _Calibration) -> None:
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


def _attention(work: _Calibration) -> None:
    samples = work.samples(attention_samples)
    if len(samples) < attention.MIN_SAMPLES:
        work.kept["attention"] = _too_few(len(samples), attention.MIN_SAMPLES, "attention kernels")
        return
    device, start = work.base.device, work.base.attention
    fit = attention.fit_attention(samples, device, start, graph_node_gap_s=work.gap_s)
    judge = base_errors_of(
        "attention",
        attention.phase_class,
        len(samples),
        fit,
        lambda held: attention.attention_periods(held, device, start, work.gap_s),
    )
    work.fitted("attention", fit, f"{len(samples)} attention kernels", judge)
    # What a serving engine adds to the kernel is not in these records: its own fit stays for that.
    if "attention" in work.blocks and work.base.serving_attention is None:
        work.profile = replace(work.profile, serving_attention=work.base.attention)


def _memory_bound(work: _Calibration) -> None:
    samples = work.samples(memory_bound_samples)
    if len(samples) < memory_bound.MIN_SAMPLES:
        work.kept["memory_bound"] = _too_few(len(samples), memory_bound.MIN_SAMPLES, "memory-bound kernels")
        return
    device, start = work.base.device, work.base.memory_bound
    fit = memory_bound.fit_memory_bound(samples, device, start, graph_node_gap_s=work.gap_s)
    judge = base_errors_of(
        "memory-bound",
        memory_bound.kind_class,
        len(samples),
        fit,
        lambda held: memory_bound.memory_bound_periods(held, device, start, work.gap_s),
    )
    held, overrides = fit_held_share(work.kernels_from or (work.measurements,), device), {}
    if held is not None:
        fit = replace(fit, constants=replace(fit.constants, held_share=held.held_share))
        source = f"where {held.num_chains} chains of a GEMM and a small kernel begin to find its operands in HBM"
        overrides["held_share"] = Provenance(ProvenanceKind.FITTED, source)
    work.fitted("memory_bound", fit, f"{len(samples)} memory-bound kernels", judge, overrides)


def _collectives(work: _Calibration) -> None:
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


def _contention(work: _Calibration) -> None:
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


def _power(work: _Calibration) -> None:
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


def _fitted(source: str, residual: float | None) -> Provenance:
    return Provenance(ProvenanceKind.FITTED, source, residual)


def _assumed(source: str) -> Provenance:
    return Provenance(ProvenanceKind.ASSUMED, source)


def _too_few(count: int, least: int, what: str) -> str:
    return f"{count or 'no'} {what}, a fit needs {least}" if count else f"no {what}"
