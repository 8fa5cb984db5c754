"""A calibration on its way: what its fits share, what they have found so far, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from kraken_sim.calibration.base_errors import BaseErrors, Judgement
from kraken_sim.calibration.errors import class_errors
from kraken_sim.calibration.kept import common_provenance
from kraken_sim.calibration.result import FittedBlock
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, numbers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.calibration.errors import ClassError
    from kraken_sim.calibration.split import Fit
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

Sample = TypeVar("Sample")


@dataclass(slots=True)
class Calibration:
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
        text = with_unchanged(text, self.base, name)
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


def with_unchanged(text: BlockText, base: HardwareProfile, name: str) -> BlockText:
    """A block that says of constants that are what they were in `base` what that says, unless it says something anew.

    What is said of a mapping is said of its keys, also of those whose value is as it was.
    """
    anew = tuple(f"{path}." for path in text.overrides)
    kept = {path: own for path, own in _unchanged(base, name, text.constants).items() if not path.startswith(anew)}
    return replace(text, overrides={**kept, **text.overrides})


def _unchanged(base: HardwareProfile, name: str, constants: Any) -> dict[str, Provenance]:
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
