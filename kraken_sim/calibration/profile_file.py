"""The file of a calibrated profile: the base's text with new blocks in it, and why the others are the base's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.kept import common_provenance
from kraken_sim.profiles.write import block_yaml, quoted, section, with_sections

if TYPE_CHECKING:
    from kraken_sim.calibration.result import CalibrationResult

DRY_RUN: Final = "Dry run on CPUs"
"""How the description of a profile begins that no GPU was measured for."""

_SOURCE = re.compile(r"^  source: .*$", re.MULTILINE)


def calibrated_yaml(result: CalibrationResult, base_text: str) -> str:
    """A complete profile file.

    Args:
        result: what the measurements changed.
        base_text: the file of the base profile; device, topology and the blocks that were not fitted stay as they
            stand there, comments included, but for what a block says of where it is from.
    """
    sections: dict[str, str | None] = {"name": f"name: {result.profile.name}\n"}
    if result.dry_run:
        sections["description"] = f"description: {quoted(f'{DRY_RUN}: {result.source}; describes no machine')}\n"
    for name in result.kept_blocks:
        if (body := section(base_text, name)) is not None:
            sections[name] = _kept(name, body, result)
    for name, text in result.texts.items():
        sections[name] = block_yaml(name, text)
        if name == "attention":
            sections |= _serving(base_text)
    # A block goes where the base has it, whatever the order here: only new ones look at their neighbours.
    return with_sections(base_text, sections)


def _kept(name: str, body: str, result: CalibrationResult) -> str:
    """A block as the base has it, with a source that says that and why; as it stands where it has no such line."""
    where = common_provenance(result.profile, name)
    return _SOURCE.sub(lambda _: f"  source: {quoted(where.source)}", body, count=1) if where is not None else body


def _serving(base_text: str) -> dict[str, str | None]:
    """The base's attention becomes that of serving engines, unless it has one."""
    if section(base_text, "serving_attention") is not None:
        return {}
    old = section(base_text, "attention")
    return {"serving_attention": "serving_" + old} if old is not None else {}
