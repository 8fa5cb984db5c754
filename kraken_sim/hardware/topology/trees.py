"""Parts of a machine whose links form trees with GPUs as leaves: one switch, a PCIe box."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from kraken_sim.hardware.topology.graph import NodeKind
from kraken_sim.hardware.topology.union_find import UnionFind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Link, LinkKind

_Step = tuple[int, str]
"""A link by its place, and the node at its other end."""


class Trees:
    """The parts that links of some kinds join, and which of them are trees."""

    def __init__(self, links: Sequence[Link], nodes: Mapping[str, NodeKind], kinds: Collection[LinkKind]) -> None:
        self._nodes = nodes
        self._steps: dict[str, list[_Step]] = defaultdict(list)
        for index, link in enumerate(links):
            if link.kind in kinds:
                self._steps[link.a].append((index, link.b))
                self._steps[link.b].append((index, link.a))

    def part(self, gpus: Sequence[str]) -> str | None:
        """The part that some GPUs are in, by the name of one of its nodes; None where they are not in one."""
        parts = {self._part_of.get(name) for name in gpus}
        return parts.pop() if len(parts) == 1 else None

    def is_tree(self, part: str) -> bool:
        """Whether its links form a tree with GPUs as leaves."""
        return part in self._trees

    def depth_first(self, gpus: Sequence[str]) -> tuple[str, ...]:
        """GPUs of one tree in depth-first order from the first of them, in the order of the links."""
        steps, seen = defaultdict[str, list[_Step]](list), set[str]()
        for gpu in gpus:
            name = gpu
            while name not in seen and (up := self._up.get(name)) is not None:
                seen.add(name)
                index, above = up
                steps[name].append((index, above))
                steps[above].append((index, name))
                name = above
        order: dict[str, None] = {}
        stack = [gpus[0]]
        while stack:
            name = stack.pop()
            if name not in order:
                order[name] = None
                stack.extend(other for _, other in sorted(steps[name], reverse=True))
        wanted = set(gpus)
        return tuple(name for name in order if name in wanted)

    @cached_property
    def _part_of(self) -> Mapping[str, str]:
        joined = UnionFind()
        for name, steps in self._steps.items():
            for _, other in steps:
                joined.join(name, other)
        return {name: joined.find(name) for name in self._steps}

    @cached_property
    def _trees(self) -> set[str]:
        num_nodes, num_ends = Counter(self._part_of.values()), Counter[str]()
        for name, part in self._part_of.items():
            num_ends[part] += len(self._steps[name])
        inner = {
            part
            for name, part in self._part_of.items()
            if len(self._steps[name]) > 1 and self._nodes[name] is NodeKind.GPU
        }
        return {part for part, count in num_nodes.items() if num_ends[part] == 2 * (count - 1)} - inner

    @cached_property
    def _up(self) -> Mapping[str, _Step]:
        """The step from each node of the trees towards the root of its tree, any of its nodes."""
        up: dict[str, _Step] = {}
        todo = [name for name, part in self._part_of.items() if name == part and part in self._trees]
        while todo:
            name = todo.pop()
            for index, other in self._steps[name]:
                if name not in up or up[name][0] != index:
                    up[other] = (index, name)
                    todo.append(other)
        return up
