"""What a step of a replica is made of: its rules, sequences, chunks of their prompts, the plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Priority(StrEnum):
    """Who comes first in a step: decoding sequences, or prompts in steps of their own."""

    DECODE = "decode"
    PREFILL = "prefill"


class Preemption(StrEnum):
    """What happens to the cache of a sequence that gives its blocks back."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class SchedulerRules:
    """Limits of a step and of the cache; `num_blocks` blocks of `block_size` tokens, `prefix_length` of them shared.

    Whole prompts only where not `chunked`. `prefill_only` replicas hand a sequence on with its first token.
    """

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    chunked: bool = True
    priority: Priority = Priority.DECODE
    preemption: Preemption = Preemption.RECOMPUTE
    prefix_length: int = 0
    prefill_only: bool = False

    @property
    def prefix_blocks(self) -> int:
        """Whole blocks that all sequences share."""
        return self.prefix_length // self.block_size

    @property
    def free_blocks(self) -> int:
        """Blocks for what sequences do not share."""
        return self.num_blocks - self.prefix_blocks

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks of a sequence's own with so many tokens."""
        return max(0, -(-num_tokens // self.block_size) - self.prefix_blocks)


@dataclass(slots=True, eq=False)
class Sequence:
    """A request under way. `to_compute` tokens have to be in the cache before its next token; `computed` are.

    `generated` tokens of `output` are done. While it decodes, its cache holds `offset` plus the replica's decode steps
    so far. `cached` marks one whose cache comes from elsewhere.
    """

    index: int
    prompt: int
    output: int
    arrival_s: float = 0.0
    to_compute: int = 0
    computed: int = 0
    generated: int = 0
    offset: int = 0
    finish_at: int = 0
    cached: bool = False
    preemptions: int = 0
    first_token_s: float = 0.0

    def __post_init__(self) -> None:
        self.to_compute = self.prompt


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a prompt in a step: `num_tokens` behind the `start` that the cache has."""

    sequence: Sequence
    num_tokens: int
    start: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step: `batch` sequences decode on `cache_tokens` tokens in all, `chunks` are computed.

    `swapped_tokens` go to the host or come from there.
    """

    batch: int
    cache_tokens: int
    chunks: tuple[Chunk, ...] = ()
    swapped_tokens: int = 0
