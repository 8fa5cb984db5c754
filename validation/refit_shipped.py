"""Shipped profiles while they are fitted anew: their texts, block by block, and what blocks say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kraken_sim.calibration.kept import common_provenance
from kraken_sim.calibration.progress import with_unchanged
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.profiles.datasheet import is_datasheet
from kraken_sim.profiles.from_datasheet import profile_of
from kraken_sim.profiles.profile import Provenance, ProvenanceKind, provenance_of
from kraken_sim.profiles.schema import BLOCKS, parse_profile
from kraken_sim.profiles.write import BlockText, block_yaml, section, with_sections

if TYPE_CHECKING:
    from kraken_sim.calibration.split import Fit
    from kraken_sim.profiles.profile import HardwareProfile


@dataclass(slots=True)
class Shipped:
    """The profiles as their files stand at this point of a refit.

    A block that is put is read back from the text of its file, so that later steps see it as users will, to its four
    digits, and a refit of one profile finds what a refit of all would have given it.
    """

    texts: dict[str, str]
    profiles: dict[str, HardwareProfile] = field(default_factory=dict)
    refitted: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.profiles = {name: self._read(name) for name in self.texts}

    def _read(self, name: str) -> HardwareProfile:
        document = parse_yaml(self.texts[name], name)
        return profile_of(document) if is_datasheet(document.data) else parse_profile(document)

    def put(self, name: str, block: str, text: BlockText) -> None:
        """A block of a profile; constants with a source of their own keep it unless their value has changed."""
        body = block_yaml(block, with_unchanged(text, self.profiles[name], block))
        self.texts[name] = with_sections(self.texts[name], {**self._before(name, block), block: body})
        self.profiles[name] = self._read(name)
        blocks = self.refitted.setdefault(name, [])
        if block not in blocks:
            blocks.append(block)

    def _before(self, name: str, block: str) -> dict[str, str | None]:
        """The block that a new one goes behind, as it stands."""
        text, names = self.texts[name], list(BLOCKS)
        earlier = [other for other in names[: names.index(block)] if section(text, other) is not None]
        return {earlier[-1]: section(text, earlier[-1])} if earlier else {}


def said(profile: HardwareProfile, block: str) -> Provenance:
    """What a block says of most of its numbers.

    Raises:
        ValueError: the profile has no such block.
    """
    found = common_provenance(profile, block)
    if found is None:
        message = f"{profile.name} has no {block}"
        raise ValueError(message)
    return found


def sources_of(profile: HardwareProfile, block: str) -> dict[str, Provenance]:
    """What a profile says of each constant of a block, by its path within the block."""
    return {path.removeprefix(f"{block}."): where for path, where in provenance_of(block, profile).items()}


def provenance_of_fit(source: str, fit: Fit[Any, Any]) -> Provenance:
    """Fitted, with the error on held-out shapes."""
    return Provenance(ProvenanceKind.FITTED, source, fit.residual)


def shapes_text(fit: Fit[Any, Any]) -> str:
    """How many of all shapes a fit has seen."""
    return f"{len(fit.fitted)} of {len(fit.fitted) + len(fit.held_out)} shapes"
