"""Blocks of cases, the unit of a run's progress: what one costs, how cases are dealt into them, what remains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final, Literal

from kraken_sim.measurements.records.kernels import AllReduceCase, AttentionCase, GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import KernelsCase, LaunchCase
from kraken_sim.measurements.records.loads import SustainedCase, WakeCase
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kraken_sim.measurements.records.base import Case

SECONDS: Final = {
    "launch": 0.25,
    "gemm": 0.02,
    "attention": 0.03,
    "memory_bound": 0.02,
    "all_reduce": 0.07,
    "pair": 0.15,
    "chain": 0.03,
    "sustained": 0.3,
    "wake": 0.15,
    "kernels": 0.01,
    "pass": 1.2,
}
"""A first guess at the time of a case on one rank (of a sustained one: beyond its load); a run corrects it."""

START_S: Final = 15.0
"""A guess at what a condition costs before its first case: importing torch, making contexts and communicators."""

BLOCK_SIZES: Final = {
    "gemm": 48,
    "attention": 24,
    "memory_bound": 48,
    "all_reduce": 10,
    "pair": 8,
    "chain": 48,
    "kernels": 160,
}

_WAKE_REPEATS: Final = 5
"""About how often a rest is repeated."""


@dataclass(frozen=True, slots=True)
class Block:
    """Cases of one kind and condition that run together.

    The cases of a collective block run on all ranks at once, those of another are dealt out to the ranks.
    """

    condition: str
    cases: tuple[Case, ...]

    @property
    def kind(self) -> str:
        """The kind that all cases share; the kernels of passes are found where the passes run."""
        first = self.cases[0]
        return "pass" if isinstance(first, KernelsCase) and first.of.startswith("pass/") else first.kind

    @property
    def collective(self) -> bool:
        """Whether ranks must run the cases together."""
        first = self.cases[0]
        if isinstance(first, LaunchCase):
            return first.condition is not None
        if isinstance(first, KernelsCase):
            return first.of.startswith(("all_reduce/", "pass/"))
        return first.collective

    def estimate_s(self, num_ranks: int) -> float:
        """Roughly how long it takes."""
        sustained = [
            case.load_before_s + case.idle_before_s + case.duration_s
            for case in self.cases
            if isinstance(case, SustainedCase)
        ]
        if sustained:
            return max(sustained) + SECONDS["sustained"]
        rests_s = sum(_WAKE_REPEATS * case.rest_s for case in self.cases if isinstance(case, WakeCase))
        rounds = len(self.cases) if self.collective else -(-len(self.cases) // num_ranks)
        return SECONDS[self.kind] * rounds + rests_s


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan depends on."""

    device_type: Literal["cuda", "cpu"]
    num_devices: int
    has_collectives: bool = True


def in_blocks(condition: str, groups: Iterable[Sequence[Case]], size: int) -> list[Block]:
    """Each group in blocks of at most `size` cases."""
    return [
        Block(condition, tuple(group[start : start + size])) for group in groups for start in range(0, len(group), size)
    ]


def in_turn(kinds: Sequence[Sequence[Block]]) -> list[Block]:
    """A block of each kind in turn, while they last."""
    return [block for turn in zip_longest(*kinds) for block in turn if block is not None]


def kernel_blocks(
    condition: str, blocks: Sequence[Block], wanted: Callable[[Case], bool] = lambda _: True
) -> list[Block]:
    """A look at the kernels of everything that ran from graphs, last: the profiler may slow what follows."""
    profiled = (GemmCase, AttentionCase, MemoryBoundCase, AllReduceCase)
    targets = [
        case
        for case in chain.from_iterable(block.cases for block in blocks)
        if isinstance(case, profiled) and case.launch is Launch.GRAPH and wanted(case)
    ]
    alone: list[Case] = [KernelsCase(of=case.key) for case in targets if not case.collective]
    together: list[Case] = [KernelsCase(of=case.key) for case in targets if case.collective]
    return in_blocks(condition, [together, alone], BLOCK_SIZES["kernels"])


def remaining(blocks: Iterable[Block], done: set[str], only: str | None = None) -> list[Block]:
    """The blocks without the cases that are done or whose key does not match the regular expression `only`."""
    wanted = re.compile(only) if only else None
    found = []
    for block in blocks:
        cases = tuple(
            case for case in block.cases if case.key not in done and (wanted is None or wanted.search(case.key))
        )
        if cases:
            found.append(Block(block.condition, cases))
    return found
