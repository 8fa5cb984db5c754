"""The file of a calibrated profile: the base's text with new blocks in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.profiles.write import block_yaml, section, with_sections

if TYPE_CHECKING:
    from kraken_sim.calibration.fit_profile import CalibrationResult


def calibrated_yaml(result: CalibrationResult, base_text: str) -> str:
    """A complete profile file.

    Args:
        result: what the measurements changed.
        base_text: the file of the base profile; device, topology and the blocks that were not fitted stay as they
            stand there, comments included.
    """
    sections: dict[str, str | None] = {"name": f"name: {result.profile.name}\n"}
    for name, block in result.blocks.items():
        sections[name] = block_yaml(name, block.text)
        if name == "attention":
            sections |= _serving(base_text)
    return with_sections(base_text, sections)


def _serving(base_text: str) -> dict[str, str | None]:
    """The base's attention becomes that of serving engines, unless it has one."""
    if section(base_text, "serving_attention") is not None:
        return {}
    old = section(base_text, "attention")
    return {"serving_attention": "serving_" + old} if old is not None else {}
