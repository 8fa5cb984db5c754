"""A machine with everything the simulator knows about it, and where each number is from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.attention import AttentionConstants
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.gemm import GemmConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants
    from kraken_sim.costs.power import PowerConstants
    from kraken_sim.hardware.device import Device, LaunchCosts
    from kraken_sim.hardware.topology.topology import Topology


class ProvenanceKind(StrEnum):
    """How a number came to be known."""

    DATASHEET = "datasheet"
    MEASURED = "measured"
    FITTED = "fitted"
    ASSUMED = "assumed"
    """Taken to be as elsewhere, or set by judgement: nobody measured it on this machine."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a number is from.

    `residual` is a fit's mean relative error on records it never saw; of an assumed block, the error that it is
    taken to have.
    """

    kind: ProvenanceKind
    source: str
    residual: float | None = None


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """One machine.

    `provenance` has an entry for every number of the profile's file, under its dotted path there without the
    `values` of a block, for example `device.num_sms`, `topology.links.0.bandwidth` or `collectives.base_s.nvlink.ll`.
    `serving_attention` is for the attention of serving engines, where it is known apart from the bare kernel;
    without `power` the clock stays where the kernels were measured.
    `time_factors` is for what-ifs: by block (gemm, attention, memory_bound, collectives), how much longer than by
    its constants every kernel of the block takes alone.
    """

    name: str
    description: str
    device: Device
    launch: LaunchCosts
    topology: Topology
    gemm: GemmConstants
    attention: AttentionConstants
    memory_bound: MemoryBoundConstants
    collectives: CollectiveConstants
    contention: ContentionConstants
    provenance: Mapping[str, Provenance]
    serving_attention: AttentionConstants | None = None
    power: PowerConstants | None = None
    time_factors: Mapping[str, float] = field(default_factory=dict)
