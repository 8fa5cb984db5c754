"""Blocks of shipped profiles that are another machine's: of the same chip, or of another card with a wider error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.kept import common_provenance
from kraken_sim.profiles.carried_errors import carried_error
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.transfer import carry_over_memory_bound
from kraken_sim.profiles.write import BlockText
from validation.refit_shipped import Shipped, said, sources_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.profiles.profile import HardwareProfile

OTHER_CARD: Final = 2.0
CARRIED_ERROR: Final = 0.1
"""The error of a block that is another card's, assumed: twice that on its own card, and no less than this."""


def carried(shipped: Shipped, name: str, source: str, blocks: Sequence[str], how: str, factor: float = 1.0) -> None:
    """Blocks of another machine, number for number; of another card's, the error is `factor` times as large.

    What kind of source a block is (fitted, assumed) stays as the profile has it.
    """
    base = shipped.profiles[source]
    for block in blocks:
        where = said(base, block)
        overrides = {
            path: replace(own, residual=_widened(own.residual, factor))
            for path, own in sources_of(base, block).items()
            if own != where
        }
        provenance = _carried(shipped.profiles[name], block, where, f"{how}: {where.source}", factor)
        shipped.put(name, block, BlockText(getattr(base, block), provenance, overrides))


def of_same_chip(shipped: Shipped, name: str, source: str, block: str, how: str, factor: float = 1.0) -> None:
    """A block that was fitted on another machine with the same chip; it keeps its kind."""
    base = shipped.profiles[source]
    where = said(base, block)
    told = f"carried over from {how}: {where.source}"
    provenance = replace(where, source=told, residual=_widened(where.residual, factor))
    shipped.put(name, block, BlockText(getattr(base, block), provenance))


def float16_of_same_chip(shipped: Shipped, name: str, source: str) -> None:
    """The rate in float16 as on a machine with the same chip, where products of one format alone were published."""
    base, profile = shipped.profiles[source], shipped.profiles[name]
    constants = replace(profile.gemm, float16_rate=base.gemm.float16_rate)
    where = said(base, "gemm")
    own = replace(where, source=f"carried over from {source}: {where.source}")
    sources = sources_of(profile, "gemm") | {"float16_rate": own}
    shipped.put(name, "gemm", BlockText(constants, said(profile, "gemm"), sources))


def contention_of_another_card(shipped: Shipped, name: str, source: str) -> None:
    """Contention of two H200 on cards that no pair was measured on; nothing of it is measured there."""
    base = shipped.profiles[source]
    where = said(base, "contention")
    provenance = _carried(shipped.profiles[name], "contention", where, f"two H200: {where.source}", OTHER_CARD)
    shipped.put(name, "contention", BlockText(base.contention, provenance))


def kernels_of_another_card(shipped: Shipped, name: str, chip: str) -> None:
    """The memory-bound kernels of a measured card on one where none was measured, by the rules of datasheets."""
    base, profile = shipped.profiles[chip], shipped.profiles[name]
    constants = carry_over_memory_bound(base.memory_bound, base.device, profile.device)
    source = "carried over from the fit to H200, with this card's clock and L2 rate"
    error = carried_error("memory_bound", base, profile.device)
    where = Provenance(ProvenanceKind.ASSUMED, source, error)
    shipped.put(name, "memory_bound", BlockText(constants, where))


def launch_of_published(shipped: Shipped, name: str, source: str, how: str) -> None:
    """The launch costs of `source`."""
    base = shipped.profiles[source]
    provenance = Provenance(ProvenanceKind.MEASURED, f"carried over from {how}: medians of launch records")
    shipped.put(name, "launch", BlockText(base.launch, provenance, sources_of(base, "launch")))


def _carried(target: HardwareProfile, block: str, where: Provenance, how: str, factor: float) -> Provenance:
    known = common_provenance(target, block) or where
    return Provenance(known.kind, f"carried over from {how}", _widened(where.residual, factor))


def _widened(error: float | None, factor: float) -> float | None:
    return error if error is None or factor <= 1.0 else max(CARRIED_ERROR, factor * error)
