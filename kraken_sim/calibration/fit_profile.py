"""A measured machine's profile: every cost model fitted to its microbenchmarks, with the error on held-out ones.

The records of whole passes are what predictions are checked against, so nothing here reads them: each fit takes
the samples of one type of record.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration import attention, collectives, contention, gemm, memory_bound, power
from kraken_sim.calibration.errors import ClassError, class_errors
from kraken_sim.calibration.launch import launch_costs
from kraken_sim.calibration.overlap import pair_samples, sustained_samples
from kraken_sim.calibration.samples import (
    all_reduce_samples,
    attention_samples,
    gemm_samples,
    memory_bound_samples,
)
from kraken_sim.calibration.switches import kernel_switch
from kraken_sim.costs.attention_shape import is_decode
from kraken_sim.costs.memory_bound import kind_of
from kraken_sim.errors import InputError
from kraken_sim.measurements.machine import machine_warnings
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.calibration.collectives import AllReduceSample
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

MIN_ALL_REDUCE: Final = 20
CONTENTION_READ_OFF: Final = ("collective_dispatch_s", "stranded_sms")
"""Constants of contention that are read off kernel timelines and not fitted."""
_NVLS_OFF: Final = "0"


@dataclass(frozen=True, slots=True)
class FittedBlock:
    """A block of the new profile, and how far off it is on records that the fit did not see."""

    text: BlockText
    errors: tuple[ClassError, ...] = ()


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A profile whose constants come from measurements.

    `blocks` are those that the measurements changed; `kept` says, for each other block, why it is the base's.
    """

    source: str
    base: HardwareProfile
    profile: HardwareProfile
    blocks: Mapping[str, FittedBlock]
    kept: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def errors(self) -> list[ClassError]:
        """The errors of all blocks."""
        return [error for block in self.blocks.values() for error in block.errors]


@dataclass(slots=True)
class _Calibration:
    """What the fits share, and what they have found so far."""

    measurements: MeasurementFile
    base: HardwareProfile
    machine: str
    profile: HardwareProfile
    blocks: dict[str, FittedBlock] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def gap_s(self) -> float:
        """The gap between graph nodes, which every period contains."""
        return self.profile.launch.graph_node_gap_s

    def found(self, name: str, text: BlockText, errors: tuple[ClassError, ...] = ()) -> None:
        """Puts a block into the profile; what the base assumed and no record told stays an assumption."""
        text = replace(text, overrides={**_still_assumed(name, text, self.base), **text.overrides})
        self.blocks[name] = FittedBlock(text, errors)
        constants: Any = {name: text.constants}
        self.profile = replace(self.profile, **constants)

    def source(self, count: int, what: str, residual: float) -> str:
        """What a fitted block says about itself."""
        return f"fit to {self.machine}, {count} {what}; mean error {100 * residual:.1f} % on held-out shapes"


def calibrate(measurements: MeasurementFile, base: HardwareProfile, name: str | None = None) -> CalibrationResult:
    """Fits what a file's microbenchmarks tell; the rest stays as in `base`.

    Args:
        measurements: a file of `validation.measure`; whole passes in it are not read.
        base: the profile of the same kind of device: datasheet, topology, and where fits start.
        name: the new profile's name; default: the base's.

    Raises:
        InputError: the file is another machine's, or holds nothing to fit.
    """
    warnings = machine_warnings(measurements, base)
    named = replace(base, name=name or base.name)
    work = _Calibration(measurements, base, machine_text(measurements), named)
    # The gap between nodes is part of every period, so the launch costs come first.
    for fit in (_launch, _gemm, _attention, _memory_bound, _collectives, _switches, _contention, _power):
        fit(work)
    if not work.blocks:
        message = "holds no microbenchmarks, so there is nothing to fit; measure them with --suite full"
        raise InputError.single("", message, source=measurements.source)
    kept = {path: where for path, where in base.provenance.items() if path.split(".")[0] not in work.blocks}
    if base.serving_attention is None and work.profile.serving_attention is not None:
        kept |= {f"serving_{path}": where for path, where in base.provenance.items() if path.startswith("attention.")}
    profile = replace(work.profile, provenance=kept | _provenance(work.blocks))
    return CalibrationResult(measurements.source, base, profile, work.blocks, work.kept, tuple(warnings))


def machine_text(measurements: MeasurementFile) -> str:
    """The machine and its software in a line: `2 x NVIDIA H200, torch 2.11.0+cu130, NCCL 2.28.9`."""
    header = measurements.header
    nccl = f", NCCL {header.nccl}" if header.nccl else ""
    return f"{header.num_devices} x {header.device_name}, torch {header.torch}{nccl}"


def _provenance(blocks: Mapping[str, FittedBlock]) -> dict[str, Provenance]:
    """Where the numbers of the new blocks are from, by their paths in the profile."""
    result: dict[str, Provenance] = {}
    for name, block in blocks.items():
        result |= {f"{name}.{path}": where for path, where in block.text.where_all().items()}
    return result


def _still_assumed(name: str, text: BlockText, base: HardwareProfile) -> dict[str, Provenance]:
    """Numbers that the base assumed and the fit left as they were."""
    block = getattr(base, name)
    before = {} if block is None else dict(numbers_of(block))
    return {
        path: where
        for path, value in numbers_of(text.constants)
        if value == before.get(path)
        and (where := base.provenance.get(f"{name}.{path}")) is not None
        and where.kind is ProvenanceKind.ASSUMED
    }


def _launch(work: _Calibration) -> None:
    fit = launch_costs(work.measurements, work.base.launch, work.machine)
    if not fit.sources:
        work.kept["launch"] = "no launch records"
        return
    known = {path.split(".")[1]: where for path, where in work.base.provenance.items() if path.startswith("launch.")}
    provenance = Provenance(ProvenanceKind.MEASURED, f"medians of launch records; {work.machine}")
    work.found("launch", BlockText(fit.constants, provenance, known | dict(fit.sources)))


def _gemm(work: _Calibration) -> None:
    samples = gemm_samples(work.measurements, work.base.device, work.gap_s)
    if len(samples) < gemm.MIN_SAMPLES:
        work.kept["gemm"] = _too_few(len(samples), gemm.MIN_SAMPLES, "GEMMs")
        return
    fit = gemm.fit_gemm(samples, work.base.device, work.base.gemm, graph_node_gap_s=work.gap_s)
    errors = class_errors("gemm", fit.held_out, lambda s: rows_class(s.m))
    source = work.source(len(samples), "GEMMs at the boost clock", fit.residual)
    work.found("gemm", BlockText(fit.constants, _fitted(source, fit.residual)), errors)


def rows_class(m: int) -> tuple[int, str]:
    """The class of a GEMM, by its number of rows."""
    edges = ((1, "m = 1"), (16, "m 2 to 16"), (128, "m 17 to 128"), (1024, "m 129 to 1024"))
    return next(((most, text) for most, text in edges if m <= most), (1025, "m above 1024"))


def _attention(work: _Calibration) -> None:
    samples = attention_samples(work.measurements)
    if len(samples) < attention.MIN_SAMPLES:
        work.kept["attention"] = _too_few(len(samples), attention.MIN_SAMPLES, "attention kernels")
        return
    fit = attention.fit_attention(samples, work.base.device, work.base.attention, graph_node_gap_s=work.gap_s)
    errors = class_errors("attention", fit.held_out, lambda s: (1, "decode") if is_decode(s.op) else (0, "prefill"))
    source = work.source(len(samples), "attention kernels", fit.residual)
    text = BlockText(fit.constants, _fitted(source, fit.residual))
    work.found("attention", text, errors)
    # What a serving engine adds to the kernel is not in these records: its own fit stays for that.
    if work.base.serving_attention is None:
        work.profile = replace(work.profile, serving_attention=work.base.attention)


def _memory_bound(work: _Calibration) -> None:
    samples = memory_bound_samples(work.measurements)
    if len(samples) < memory_bound.MIN_SAMPLES:
        work.kept["memory_bound"] = _too_few(len(samples), memory_bound.MIN_SAMPLES, "memory-bound kernels")
        return
    start = work.base.memory_bound
    fit = memory_bound.fit_memory_bound(samples, work.base.device, start, graph_node_gap_s=work.gap_s)
    errors = class_errors("memory-bound", fit.held_out, lambda s: (0, kind_of(s.op)))
    source = work.source(len(samples), "memory-bound kernels", fit.residual)
    work.found("memory_bound", BlockText(fit.constants, _fitted(source, fit.residual)), errors)


def _collectives(work: _Calibration) -> None:
    samples = all_reduce_samples(work.measurements, work.gap_s)
    if len(samples) < MIN_ALL_REDUCE:
        work.kept["collectives"] = _too_few(len(samples), MIN_ALL_REDUCE, "AllReduces")
        return
    initial = nccl_of(work.measurements, work.base.collectives)
    interconnects = _interconnects(work.base, samples)
    fit = collectives.fit_all_reduce(samples, interconnects, work.base.device, initial)
    errors = class_errors("all_reduce", fit.held_out, all_reduce_class)
    what = "AllReduces in CUDA graphs; rates of links and kernels that were not measured are the base profile's"
    source = work.source(len(samples), what, fit.held_out_error)
    work.found("collectives", BlockText(fit.constants, _fitted(source, fit.held_out_error)), errors)


def _switches(work: _Calibration) -> None:
    """Changes of kernel: what the fitted kernels leave unexplained of chains of unlike ones."""
    launch = work.blocks.get("launch")
    fit = kernel_switch(work.measurements, work.profile)
    if launch is None or fit is None:
        return
    source = f"chains of unlike kernels against chains of one, median of {fit.num_chains}; {work.machine}"
    overrides = {**launch.text.overrides, "kernel_switch_s": Provenance(ProvenanceKind.MEASURED, source)}
    constants = replace(work.profile.launch, kernel_switch_s=fit.kernel_switch_s)
    work.found("launch", BlockText(constants, launch.text.provenance, overrides))


def _contention(work: _Calibration) -> None:
    samples = pair_samples(work.measurements)
    if len(samples) < contention.MIN_SAMPLES:
        work.kept["contention"] = _too_few(len(samples), contention.MIN_SAMPLES, "pairs")
        return
    fit = contention.fit_contention(samples, work.profile)
    conditions = sorted({sample.condition for sample in samples})
    errors = class_errors("pair", fit.held_out, lambda s: (conditions.index(s.condition), s.condition))
    source = work.source(len(samples), "pairs of compute and AllReduce", fit.residual)
    source += f" ({100 * fit.ideal_residual:.1f} % if overlap were free)"
    known = {name: work.base.provenance.get(f"contention.{name}") for name in CONTENTION_READ_OFF}
    overrides = {name: where for name, where in known.items() if where is not None}
    work.found("contention", BlockText(fit.constants, _fitted(source, fit.residual), overrides), errors)


def _power(work: _Calibration) -> None:
    samples = sustained_samples(work.measurements, work.profile)
    start = work.base.power or power.start_for(work.base.device)
    try:
        fit = power.fit_power(samples, work.base.device, start)
    except ValueError as error:
        work.kept["power"] = str(error)
        return
    errors = class_errors("sustained", fit.held_out, lambda s: (0, "GEMMs") if s.gemms_only else (1, "other kernels"))
    source = work.source(len(samples), "sustained loads", fit.residual)
    known = {name: work.base.provenance.get(f"power.{name}", _assumed(why)) for name, why in power.ASSUMED.items()}
    overrides = {name: where for name, where in known.items() if name in fit.assumed}
    overrides["repeats"] = _assumed(power.REPEATS_MEAN)
    work.found("power", BlockText(fit.constants, _fitted(source, fit.residual), overrides), errors)


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


def all_reduce_class(sample: AllReduceSample) -> tuple[int, str]:
    """The class of an AllReduce: its condition and the range of its size."""
    if sample.transport == "shm":
        rank, condition = 2000, "host memory"
    elif sample.channels is None:
        rank, condition = 0, "default"
    else:
        rank, condition = 1000 - sample.channels, f"{sample.channels} channel{'s' * (sample.channels > 1)}"
    sizes = ((64 * 1024, "below 64 KiB"), (4 * 1024 * 1024, "64 KiB to 4 MiB"))
    found = (index for index, (below, _) in enumerate(sizes) if sample.num_bytes < below)
    index = next(found, len(sizes))
    text = sizes[index][1] if index < len(sizes) else "from 4 MiB"
    return 10 * rank + index, f"{condition}, {text}"


def _fitted(source: str, residual: float | None) -> Provenance:
    return Provenance(ProvenanceKind.FITTED, source, residual)


def _assumed(source: str) -> Provenance:
    return Provenance(ProvenanceKind.ASSUMED, source)


def _too_few(count: int, least: int, what: str) -> str:
    return f"{count or 'no'} {what}, a fit needs {least}" if count else f"no {what}"
