"""Which part of a Transformer a rank holds: pure arithmetic on shapes, no tensors.

Letters: h query heads, g key/value heads, N ranks of a tensor-parallel group, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig


@dataclass(frozen=True, slots=True)
class HeadShard:
    """The heads of one rank: query heads `first_head`.., key/value heads `first_kv_head`.."""

    first_head: int
    num_heads: int
    first_kv_head: int
    num_kv_heads: int


def split_heads(config: TransformerConfig, rank: int, size: int) -> HeadShard:
    """Heads of rank `rank` out of `size`; with more ranks than key/value heads each is replicated.

    Shapes that do not divide are found by `check_shapes`, which every model calls first.
    """
    num_heads = config.num_attention_heads // size
    num_kv_heads = max(1, config.num_key_value_heads // size)
    first_kv_head = rank * config.num_key_value_heads // size
    return HeadShard(rank * num_heads, num_heads, first_kv_head, num_kv_heads)


def padded_vocab_size(vocab_size: int, num_devices: int) -> int:
    """V rounded up to a multiple of the devices, so that every rank holds as many rows."""
    return -(-vocab_size // num_devices) * num_devices


def check_shapes(config: TransformerConfig, tensor_size: int, path: str = "model") -> None:
    """Refuses what these models do not implement or what does not divide over `tensor_size` ranks.

    Raises:
        InputError: with every problem found.
    """
    problems = [*_unsupported(config, path), *_indivisible(config, tensor_size, path)]
    if problems:
        raise InputError(problems)


def _unsupported(config: TransformerConfig, path: str) -> list[Problem]:
    if config.lm_head_bias:
        return [Problem(f"{path}.lm_head_bias", "these models' logits have no bias", True, "false")]
    return []


def _indivisible(config: TransformerConfig, size: int, path: str) -> list[Problem]:
    problems = []
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % size:
        message = f"must be a multiple of the {size} devices that share it"
        problems.append(Problem(f"{path}.num_attention_heads", message, heads, str(_multiple(heads, size))))
    if heads % kv_heads:
        message = f"must divide the {heads} query heads"
        problems.append(Problem(f"{path}.num_key_value_heads", message, kv_heads, str(heads)))
    if kv_heads % size and size % kv_heads:
        message = f"must be a multiple or a divisor of the {size} devices that share it"
        problems.append(Problem(f"{path}.num_key_value_heads", message, kv_heads, str(size)))
    if config.intermediate_size % size:
        message = f"must be a multiple of the {size} devices that share it"
        example = str(_multiple(config.intermediate_size, size))
        problems.append(Problem(f"{path}.intermediate_size", message, config.intermediate_size, example))
    return problems


def _multiple(value: int, factor: int) -> int:
    return max(1, round(value / factor)) * factor
