"""How a runtime chooses the kernel of a collective."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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

    `channels` caps NCCL's channels (NCCL_MAX_NCHANNELS, and NCCL_MAX_CTAS for NVLS, which the former leaves alone),
    None leaves its own choice. `algorithm` and `protocol` force a choice (NCCL_ALGO, NCCL_PROTO); None selects as
    the library does. `nccl_minor_version` is the x of NCCL 2.x whose choices apply, None the machine's own.
    """

    library: Library = Library.NCCL
    channels: int | None = None
    transport: Transport = Transport.AUTO
    algorithm: str | None = None
    protocol: str | None = None
    selection: Selection = Selection.FASTEST
    nccl_minor_version: int | None = None
