"""What an algorithm is asked: one collective, on what it communicates over, as a runtime would have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.collectives.tuning import NcclChoice
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.program.ops import CollectiveKind


@dataclass(frozen=True, slots=True)
class CollectiveCall:
    """A collective of `num_bytes` (counted as in `Collective`) of the group that `interconnect` joins.

    Of `policy` an algorithm honours the protocol and the most channels. `family` is whose implementation of a custom
    kernel runs, such as "vllm"; without one the fastest does. `tuned` is what NCCL's model chose, where it was asked.
    """

    kind: CollectiveKind
    num_bytes: int
    interconnect: Interconnect
    device: Device
    constants: CollectiveConstants
    policy: CollectivePolicy
    family: str = ""
    tuned: NcclChoice | None = None

    @property
    def spans_nodes(self) -> bool:
        """Whether the group is on several nodes, evenly or not."""
        return self.interconnect.kind is InterconnectKind.NETWORK
