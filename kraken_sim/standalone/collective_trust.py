"""How sure a collective's time is, and which of its constants nobody measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import LINK_CLASS
from kraken_sim.costs.collectives.copy_engines import COPY_ENGINE
from kraken_sim.costs.collectives.policy import Library, Transport
from kraken_sim.costs.collectives.symmetric import SYMMETRIC
from kraken_sim.costs.collectives.tuning import NVLS, NVLS_TREE, RING, SIMPLE, TREE
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.predict.uncertainty import UNKNOWN_RESIDUAL, Interval, block_residuals, interval_of
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.standalone.one_op import CollectiveOpSpec

BLOCK = "collectives"
"""The block of a profile that prices collectives; a definition."""

NOBODY_MEASURED: Mapping[str, str] = {
    SYMMETRIC: "start-up and CTAs as NCCL believes (src/sym_kernels.cc), rates of custom kernels",
    COPY_ENGINE: "copies at 0.83 of NVLink's rate (stas00/ml-engineering), start-up assumed",
}
"""Algorithms without constants in any profile, and what they rest on."""


def collective_interval(
    profile: HardwareProfile, spec: CollectiveOpSpec, cost: CollectiveCost, gap_s: float
) -> Interval:
    """The 90 % interval of one collective and the gap behind it.

    That of the block's residual, as in a prediction of a pass; where nobody measured what ran and it states no error,
    at least that of a block that states none.
    """
    if cost.busy_s <= 0.0:
        return Interval(cost.busy_s, cost.busy_s)
    residuals = block_residuals(profile.provenance)
    residual = residuals.get(BLOCK, 0.0)
    for _, where in _assumed(profile, spec, cost):
        residual = max(residual, UNKNOWN_RESIDUAL if where.residual is None else where.residual)
    # Alone, as in the chains that it was fitted to, and not among other kernels.
    times: dict[str, dict[object, float]] = {f"{BLOCK}.alone": {spec.op: cost.busy_s}, "launch": {"gap": gap_s}}
    return interval_of(cost.busy_s + gap_s, times, {**residuals, BLOCK: residual})


def unmeasured(profile: HardwareProfile, spec: CollectiveOpSpec, costs: Sequence[CollectiveCost]) -> tuple[str, ...]:
    """What ran, and of which nobody measured the constants; each with where they are from."""
    found = {f"{what}: {where.source}" for cost in costs for what, where in _assumed(profile, spec, cost)}
    if _unfitted(profile, spec):
        found.add(f"{spec.op}: no {spec.op} was measured; it has the constants of what it is made of")
    return tuple(sorted(found))


def _assumed(profile: HardwareProfile, spec: CollectiveOpSpec, cost: CollectiveCost) -> list[tuple[str, Provenance]]:
    """What of a cost nobody measured."""
    if cost.busy_s <= 0.0:
        return []
    if cost.algorithm in NOBODY_MEASURED:
        return [(cost.algorithm, Provenance(ProvenanceKind.ASSUMED, NOBODY_MEASURED[cost.algorithm]))]
    found = ((what, profile.provenance.get(f"{BLOCK}.{path}")) for what, path in _rows(profile, spec, cost))
    return [(what, where) for what, where in found if where is not None and where.kind is ProvenanceKind.ASSUMED]


def _rows(profile: HardwareProfile, spec: CollectiveOpSpec, cost: CollectiveCost) -> Iterator[tuple[str, str]]:
    """The rows of constants that a cost rests on, by their dotted paths in the block, and what to call them."""
    if cost.kernel:
        yield f"custom kernel {cost.kernel}", f"custom_base_s.{cost.kernel}"
        return
    link = _link_class(profile, spec)
    protocol = NVLS if cost.algorithm == NVLS else cost.protocol
    if cost.algorithm == NVLS_TREE:
        yield "nvls in the nodes", f"base_s.nvlink.{NVLS}"
        protocol = SIMPLE
    named = f"{cost.algorithm} {cost.protocol}" if cost.algorithm in (RING, TREE) else cost.algorithm
    yield f"{named} over {link}", f"step_s.{link}.{protocol}"


def _link_class(profile: HardwareProfile, spec: CollectiveOpSpec) -> str:
    """The row of link constants that a group uses."""
    gpus, p2p = profile.topology.group(spec.num_devices), spec.transport is not Transport.SHM
    reduced = interconnect_of(profile.topology, gpus, spec.op, p2p)
    if reduced.kind is InterconnectKind.NETWORK:
        return LINK_CLASS[InterconnectKind.NETWORK]
    as_nccl = spec.library is Library.NCCL and spec.transport is not Transport.P2P
    staged = reduced.kind is InterconnectKind.PCIE and (not p2p or (as_nccl and reduced.through_host))
    return LINK_CLASS[InterconnectKind.HOST if staged else reduced.kind]


def _unfitted(profile: HardwareProfile, spec: CollectiveOpSpec) -> bool:
    own = spec.op in profile.collectives.kind_factors
    return spec.op is not CollectiveKind.ALL_REDUCE and not own
