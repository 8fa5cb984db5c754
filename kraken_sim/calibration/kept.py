"""What a calibration took over from its base and why: for the table that is printed, the profile that is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import inf, log
from typing import TYPE_CHECKING, Final

from kraken_sim.profiles.profile import provenance_of
from kraken_sim.profiles.write import BlockText, numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.profiles.profile import HardwareProfile, Provenance

CALIBRATED: Final = ("launch", "gemm", "attention", "memory_bound", "collectives", "contention", "power")
"""The blocks that a calibration looks at, in the order of a profile."""

_KEPT: Final = "kept from "
_READ: Final = frozenset({"collectives.nccl_minor_version", "collectives.nvls_enabled"})
"""Read off a file's header whatever was measured."""

UNTOLD: Final = "no record tells it"


@dataclass(frozen=True, slots=True)
class Change:
    """A number of the profile before and after, by its dotted path."""

    path: str
    old: float | None
    new: float

    @property
    def size(self) -> float:
        """How far it moved, |ln(new / old)|; infinite where one is new or one is zero."""
        if self.old == self.new:
            return 0.0
        if not self.old or not self.new or (self.old < 0.0) is not (self.new < 0.0):
            return inf
        return abs(log(self.new / self.old))


def common_provenance(profile: HardwareProfile, block: str) -> Provenance | None:
    """What a block says of most of its numbers, but for kinds of kernels with errors of their own; None without any."""
    found = provenance_of(block, profile)
    own = [where for path, where in found.items() if not path.startswith("memory_bound.kernels.")]
    counts = Counter(own or found.values())
    return counts.most_common(1)[0][0] if counts else None


def kept_provenance(where: Provenance, base: str, reason: str) -> Provenance:
    """Where a number is from that stays as the base has it: the base, why, and what the base says of it."""
    source = where.source
    if source.startswith(_KEPT) and "): " in source:
        source = source.partition("): ")[2]
    return replace(where, source=f"{_KEPT}{base} ({reason}): {source}")


def reason_of(path: str, kept: Mapping[str, str]) -> str:
    """Why a number of a fitted block is the base's; `path` is its dotted path in the profile."""
    block, _, inner = path.partition(".")
    for name, reason in kept.items():
        own, _, part = name.partition(".")
        if own == block and part and (inner == part or inner.startswith(f"{part}.") or inner.endswith(f".{part}")):
            return reason
    return UNTOLD


def labelled(
    name: str, text: BlockText, base: HardwareProfile, kept: Mapping[str, str], measured: frozenset[str]
) -> BlockText:
    """A fitted block whose numbers that are exactly the base's say so.

    Args:
        name: of the block.
        text: its constants, and what it says of them.
        base: the profile whose numbers stay where no record tells them.
        kept: reasons, by the dotted path in the profile.
        measured: fields that were read off records, whatever their value.
    """
    before = dict(numbers_of(getattr(base, name))) if getattr(base, name) is not None else {}
    overrides = dict(text.overrides)
    for path, value in numbers_of(text.constants):
        whole = f"{name}.{path}"
        where = base.provenance.get(whole)
        if where is None or before.get(path) != value or path in measured or whole in _READ:
            continue
        reason = reason_of(whole, kept)
        # What no fit looks at has no say in how far off the block is.
        where = replace(where, residual=None) if reason == UNTOLD else where
        overrides[path] = kept_provenance(where, base.name, reason)
    return replace(text, overrides=overrides)


def changes_of(name: str, base: HardwareProfile, profile: HardwareProfile) -> list[Change]:
    """The numbers of a block that moved, most first."""
    block, after = getattr(base, name), getattr(profile, name)
    if after is None:
        return []
    before = dict(numbers_of(block)) if block is not None else {}
    found = [Change(path, before.get(path), value) for path, value in numbers_of(after)]
    return sorted((change for change in found if change.size > 0.0), key=lambda change: -change.size)
