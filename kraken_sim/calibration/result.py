"""What a calibration found: the new profile, its changed blocks with their errors, and why others are the base's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.calibration.kept import CALIBRATED, common_provenance, kept_provenance, labelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.calibration.base_errors import Judgement
    from kraken_sim.calibration.errors import ClassError
    from kraken_sim.profiles.profile import HardwareProfile, Provenance
    from kraken_sim.profiles.write import BlockText


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


def sources_of(result: CalibrationResult) -> dict[str, Provenance]:
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
