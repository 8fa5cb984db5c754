"""How a runtime chooses the kernel of a collective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from kraken_sim.program.ops import CollectiveKind


class Library(StrEnum):
    """Whose collectives run."""

    NCCL = "nccl"
    CUSTOM = "custom"
    """One-shot and two-shot kernels over peer pointers, as serving engines ship them."""


class Transport(StrEnum):
    """How bytes move between two GPUs of one machine."""

    AUTO = "auto"
    P2P = "p2p"
    SHM = "shm"


class Selection(StrEnum):
    """Which rule picks among the custom kernels."""

    FASTEST = "fastest"
    TENSORRT_LLM_LEGACY = "tensorrt_llm_legacy"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True)
class CollectivePolicy:
    """The collective part of a scenario's runtime.

    `channels` caps NCCL's channels (NCCL_MAX_NCHANNELS), None leaves its own choice. `algorithm` and
    `protocol` force a choice (NCCL_ALGO, NCCL_PROTO); None selects as the library does.
    """

    library: Library = Library.NCCL
    channels: int | None = None
    transport: Transport = Transport.AUTO
    algorithm: str | None = None
    protocol: str | None = None
    selection: Selection = Selection.FASTEST


def policy_for(policy: CollectivePolicy, kind: CollectiveKind) -> CollectivePolicy:
    """A program's policy as one of its collectives takes it.

    A scenario's algorithm is an AllReduce's, as custom kernels are, and sends and receives have no LL128: what does
    not exist for the others is left to NCCL.
    """
    if kind is CollectiveKind.ALL_REDUCE:
        return policy
    sends = kind in (CollectiveKind.ALL_TO_ALL, CollectiveKind.SEND_RECV)
    protocol = None if sends and policy.protocol == "ll128" else policy.protocol
    return replace(policy, library=Library.NCCL, algorithm=None, protocol=protocol)
