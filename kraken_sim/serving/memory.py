"""What a device of a serving replica holds beside its weights, and how many blocks of cache are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InfeasibleError
from kraken_sim.models.memory import (
    RaggedLoad,
    TokenLoad,
    activation_bytes_per_device,
    kv_bytes_per_token,
    weight_bytes_per_device,
)
from kraken_sim.scenario.spec import Launch
from kraken_sim.serving.captured import captured
from kraken_sim.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario

CONTEXT_BYTES: Final = 512 << 20
"""CUDA's context and libraries of a process; assumed, what nvidia-smi shows of an idle PyTorch process on Hopper."""

GRAPH_BYTES: Final = 16 << 20
"""A captured graph; assumed: vLLM logs some half a GiB for the 35 batches up to 256."""

CHANNEL_BUFFER_BYTES: Final = 4 << 20
"""A buffer of an NCCL channel to a peer: the default of NCCL_BUFFSIZE (NCCL's documentation, environment variables)."""

CHANNELS: Final = 32
"""Channels that an NCCL communicator has at most on one node; assumed for its memory. Each has two peers."""


@dataclass(frozen=True, slots=True)
class ReplicaMemory:
    """Bytes of one device of a replica; the cache takes what `usable_bytes` leaves, in blocks.

    `reserve_bytes` is what the context and the part of the memory that is not used take.
    """

    capacity_bytes: float
    usable_bytes: float
    weights_bytes: int
    activation_bytes: int
    communication_bytes: int
    graph_bytes: int
    context_bytes: int
    token_bytes: int
    block_size: int

    @property
    def cache_bytes(self) -> float:
        """What is left for keys and values."""
        fixed = self.weights_bytes + self.activation_bytes + self.communication_bytes + self.graph_bytes
        return self.usable_bytes - fixed - self.context_bytes

    @property
    def num_blocks(self) -> int:
        """Whole blocks of the cache."""
        return max(0, int(self.cache_bytes // (self.token_bytes * self.block_size)))

    @property
    def cache_tokens(self) -> int:
        """Tokens of all sequences together: the longest context of one."""
        return self.num_blocks * self.block_size

    def largest_batch(self, tokens: int) -> int:
        """Sequences of so many tokens each that the cache holds: requests in flight."""
        return self.num_blocks // -(-tokens // self.block_size)

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "capacity_bytes": self.capacity_bytes,
            "usable_bytes": self.usable_bytes,
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "communication_bytes": self.communication_bytes,
            "graph_bytes": self.graph_bytes,
            "context_bytes": self.context_bytes,
            "cache_bytes": self.cache_bytes,
            "bytes_a_token": self.token_bytes,
            "block_size": self.block_size,
            "num_blocks": self.num_blocks,
            "cache_tokens": self.cache_tokens,
        }


def replica_memory(
    scenario: Scenario,
    resolved: ResolvedModel,
    capacity_bytes: float,
    *,
    utilisation: float,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    block_size: int,
) -> ReplicaMemory:
    """The memory of a device of a replica, as engines reserve it before they serve.

    Args:
        scenario: the model on its devices, with its number formats.
        resolved: its shapes.
        capacity_bytes: of the device.
        utilisation: share of it that the engine may use.
        max_num_seqs: sequences of a step at most.
        max_num_batched_tokens: tokens of a step at most.
        block_size: tokens of a block.

    Raises:
        InfeasibleError: not even one block is left; names what takes the room.
    """
    config, layout, dtype = resolved.config, resolved.layout, scenario.dtype
    several = RaggedLoad(
        (TokenLoad(max_num_seqs, 1, 1), TokenLoad(1, max(1, max_num_batched_tokens - max_num_seqs), 1))
    )
    graphs = len({captured(batch) for batch in range(1, max_num_seqs + 1)})
    found = ReplicaMemory(
        capacity_bytes=capacity_bytes,
        usable_bytes=utilisation * capacity_bytes,
        weights_bytes=weight_bytes_per_device(config, layout, dtype, scenario.quantization),
        activation_bytes=activation_bytes_per_device(config, layout, several, dtype),
        communication_bytes=2 * CHANNELS * CHANNEL_BUFFER_BYTES if resolved.num_devices > 1 else 0,
        graph_bytes=graphs * GRAPH_BYTES if scenario.runtime.launch is Launch.GRAPH else 0,
        context_bytes=CONTEXT_BYTES,
        token_bytes=kv_bytes_per_token(config, layout, scenario.kv_cache_dtype.dtype or dtype),
        block_size=block_size,
    )
    if found.num_blocks < 1:
        listed = memory_words(found.as_dict())
        where = f"{resolved.num_devices} x {scenario.hardware}"
        message = f"nothing is left for the cache of {scenario.name} on {where} ({listed})"
        raise InfeasibleError(message, f"device memory {format_bytes(capacity_bytes)}")
    return found


def memory_words(parts: Mapping[str, float | int]) -> str:
    """What a device holds, in words."""
    names = {
        "weights_bytes": "weights",
        "activation_bytes": "activations",
        "communication_bytes": "communication",
        "graph_bytes": "graphs",
        "context_bytes": "context",
    }
    return ", ".join(f"{word} {format_bytes(parts[name], 3)}" for name, word in names.items() if parts[name])
