"""What one replica does in its next step: continuous batching with a paged cache, as pure bookkeeping without time.

A step is planned as vLLM's V1 scheduler does (vllm/v1/core/sched/scheduler.py): sequences that decode come first, a
token each; what is left of the token budget goes to prompts under way and then to waiting ones in the order of arrival,
in chunks. A prompt is admitted when the cache has blocks for all of it, so that only decoding can run out of them; then
the sequence admitted last gives its blocks back and waits at the head of the queue, to be computed anew (or swapped to
the host and back). Its next token comes at the end of the step that computes all of it.

Sequences that decode advance together, so each is known by where it was when it began: a step costs the same however
many there are, and steps alike can be taken at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from kraken_sim.errors import SimulationError
from kraken_sim.serving.plan import Chunk, Preemption, Priority, SchedulerRules, Sequence, StepPlan

NEVER: Final = 1 << 62
"""A number of steps that no stretch has; a definition."""


@dataclass(slots=True)
class Scheduler:
    """The sequences of one replica and the blocks that they hold."""

    rules: SchedulerRules
    waiting: deque[Sequence] = field(default_factory=deque)
    prefilling: list[Sequence] = field(default_factory=list)
    decoding: dict[int, Sequence] = field(default_factory=dict)
    """By index, in the order in which they began to decode."""
    used_blocks: int = 0
    steps: int = 0
    """Decode steps so far."""
    cache_tokens: int = 0
    """Tokens in the caches of the sequences that decode."""
    preemptions: int = 0
    _finishing: list[tuple[int, int, Sequence]] = field(default_factory=list)
    _at_offset: list[int] = field(default_factory=list)
    _swapped: int = 0

    def __post_init__(self) -> None:
        self._at_offset = [0] * self.rules.block_size

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return len(self.decoding) + len(self.prefilling)

    @property
    def unused_blocks(self) -> int:
        """Blocks that nobody holds."""
        return self.rules.free_blocks - self.used_blocks

    def submit(self, sequence: Sequence) -> None:
        """A sequence comes to the end of the queue."""
        self.waiting.append(sequence)

    def plan(self) -> StepPlan | None:
        """The next step, for which blocks are taken; None where there is nothing to do."""
        rules = self.rules
        self._admit_cached()
        if rules.priority is Priority.PREFILL and (first := self._chunks(rules.max_num_batched_tokens)):
            return StepPlan(0, 0, first, self._take_swapped())
        before = self.preemptions
        self._grow()
        batch, cache_tokens = len(self.decoding), self.cache_tokens
        chunks: tuple[Chunk, ...] = ()
        # Blocks that were just given back are for those who decode.
        if rules.priority is Priority.DECODE and self.preemptions == before:
            chunks = self._chunks(rules.max_num_batched_tokens - batch)
        swapped = self._take_swapped()
        if not batch and not chunks:
            return StepPlan(0, 0, (), swapped) if self.decoding else None
        return StepPlan(batch, cache_tokens, chunks, swapped)

    def stretch(self) -> int:
        """How many steps like a planned one without chunks may follow each other, that one among them."""
        most = self._first_finish() - self.steps
        free, size = self.unused_blocks, self.rules.block_size
        a_round = len(self.decoding)
        if free >= a_round * (-(-most // size) + 1):
            return most
        count = 1
        while count < most:
            needed = self._at_offset[-(self.steps + count) % size]
            if needed > free:
                break
            free -= needed
            count += 1
        return count

    def complete(self, plan: StepPlan, count: int = 1) -> tuple[list[Sequence], list[Sequence]]:
        """`count` steps like the plan are done: the sequences that got their first token, and those that finished."""
        first: list[Sequence] = []
        finished: list[Sequence] = []
        if plan.batch:
            if count > 1:
                self._grow_by(count)
            self.steps += count
            self.cache_tokens += count * plan.batch
            while self._finishing and self._first_finish() <= self.steps:
                sequence = heapq.heappop(self._finishing)[2]
                self._leave(sequence)
                sequence.generated = sequence.output
                finished.append(sequence)
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed += chunk.num_tokens
            if sequence.computed < sequence.to_compute:
                continue
            self.prefilling.remove(sequence)
            sequence.generated += 1
            if sequence.generated == 1:
                first.append(sequence)
            if sequence.generated >= sequence.output or self.rules.prefill_only:
                self.used_blocks -= self.rules.blocks_of(sequence.to_compute)
                finished.append(sequence)
            else:
                self._join(sequence)
        return first, finished

    def can_admit(self, sequence: Sequence) -> bool:
        """Whether a sequence could leave the queue now."""
        rules = self.rules
        return self.num_running < rules.max_num_seqs and rules.blocks_of(sequence.to_compute) <= self.unused_blocks

    def _admit_cached(self) -> None:
        """Sequences whose cache is there begin to decode, with room left for a token of each that does."""
        while self.waiting and self.waiting[0].cached and self.can_admit(self.waiting[0]):
            sequence = self.waiting[0]
            room = self.unused_blocks - self.rules.blocks_of(sequence.to_compute)
            if self.num_running and room <= len(self.decoding):
                return
            self.waiting.popleft()
            self.used_blocks += self.rules.blocks_of(sequence.to_compute)
            sequence.cached = False
            self._join(sequence)

    def _chunks(self, budget: int) -> tuple[Chunk, ...]:
        rules = self.rules
        chunks: list[Chunk] = []
        for sequence in self.prefilling:
            if budget <= 0:
                break
            budget -= self._chunk(sequence, budget, chunks)
        while budget > 0 and self.waiting and self.can_admit(self.waiting[0]):
            sequence = self.waiting[0]
            start = min(rules.prefix_length, sequence.to_compute - 1)
            if sequence.cached or (not rules.chunked and sequence.to_compute - start > budget):
                break
            sequence.computed = start
            self.waiting.popleft()
            self.used_blocks += rules.blocks_of(sequence.to_compute)
            self.prefilling.append(sequence)
            budget -= self._chunk(sequence, budget, chunks)
        return tuple(chunks)

    @staticmethod
    def _chunk(sequence: Sequence, budget: int, chunks: list[Chunk]) -> int:
        num_tokens = min(budget, sequence.to_compute - sequence.computed)
        chunks.append(Chunk(sequence, num_tokens, sequence.computed))
        return num_tokens

    def _grow(self) -> None:
        """Blocks for the tokens of the next decode step; who was admitted last makes room."""
        size = self.rules.block_size
        while (needed := self._at_offset[-self.steps % size]) > self.unused_blocks:
            if self.num_running <= 1:
                raise SimulationError("one sequence does not fit in the cache")
            self._preempt()
        self.used_blocks += needed

    def _grow_by(self, count: int) -> None:
        """Blocks for the further steps of a stretch."""
        size, at_offset = self.rules.block_size, self._at_offset
        rounds, rest = divmod(count - 1, size)
        self.used_blocks += rounds * len(self.decoding)
        self.used_blocks += sum(at_offset[-(self.steps + step) % size] for step in range(1, rest + 1))

    def _join(self, sequence: Sequence) -> None:
        """A sequence whose tokens are in the cache begins to decode."""
        sequence.offset = sequence.to_compute - self.steps
        sequence.finish_at = self.steps + sequence.output - sequence.generated
        self.decoding[sequence.index] = sequence
        self._at_offset[sequence.offset % self.rules.block_size] += 1
        self.cache_tokens += sequence.to_compute
        heapq.heappush(self._finishing, (sequence.finish_at, sequence.index, sequence))

    def _leave(self, sequence: Sequence) -> None:
        """A sequence that decodes gives its blocks back."""
        tokens = sequence.offset + self.steps
        del self.decoding[sequence.index]
        self._at_offset[sequence.offset % self.rules.block_size] -= 1
        self.cache_tokens -= tokens
        self.used_blocks -= self.rules.blocks_of(tokens)

    def _preempt(self) -> None:
        self.preemptions += 1
        if self.prefilling:
            sequence = self.prefilling.pop()
            self.used_blocks -= self.rules.blocks_of(sequence.to_compute)
            sequence.computed = 0
        else:
            sequence = next(reversed(self.decoding.values()))
            self._leave(sequence)
            tokens = sequence.offset + self.steps
            # The last token has no keys and values yet.
            sequence.generated = sequence.output - (sequence.finish_at - self.steps)
            if self.rules.preemption is Preemption.SWAP:
                sequence.cached = True
                sequence.to_compute = tokens
                self._swapped += 2 * tokens
            else:
                sequence.to_compute = sequence.prompt + sequence.generated
            sequence.finish_at = NEVER
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)

    def _take_swapped(self) -> int:
        swapped, self._swapped = self._swapped, 0
        return swapped

    def _first_finish(self) -> int:
        """The decode step behind which the next sequence finishes; those preempted since are forgotten."""
        finishing = self._finishing
        while finishing:
            at, index, sequence = finishing[0]
            if sequence.finish_at == at and self.decoding.get(index) is sequence:
                return at
            heapq.heappop(finishing)
        return NEVER
