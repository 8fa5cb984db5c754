"""The shortest ways between two nodes of a machine, on which no GPU forwards what is not its own.

Both ends are searched at once, and of the two the side with fewer links to try goes on. So a way takes as many steps
as there are links near its ends, and not as many as the switch between them has.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kraken_sim.hardware.topology.graph import NodeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Arc, Link, LinkKind

OneHop = tuple[str, "Arc"]
"""A node and the arc that leads to it."""

Way = tuple["Arc", ...]


_FEW = 16
"""Neighbours of two ends that are compared one by one; a limit of ours, for the time it takes."""


class ShortestWays:
    """All shortest ways from one node to another: from each node on them the arcs that lead on, in the links' order."""

    def __init__(self, source: str, target: str, onward: Mapping[str, Sequence[OneHop]]) -> None:
        self._source = source
        self._target = target
        self._onward = onward
        self.only = self._first(onward) if all(len(steps) == 1 for steps in onward.values()) else None
        """The way, where there is no other."""

    def reversed(self) -> ShortestWays:
        """The same ways in the other direction."""
        onward: dict[str, list[OneHop]] = {}
        for name, steps in self._onward.items():
            for other, (index, forward) in steps:
                onward.setdefault(other, []).append((name, (index, not forward)))
        return ShortestWays(self._target, self._source, _in_order(onward))

    def widest(self, capacity: Mapping[Arc, float]) -> Way:
        """The one whose narrowest link is the widest; of several, the one whose links are declared first."""
        if self.only is not None:
            return self.only
        width: dict[str, float] = {self._target: float("inf")}
        for name in self._backwards():
            width[name] = max(min(capacity[arc], width[other]) for other, arc in self._onward[name])
        most = width[self._source]
        wide = {
            name: [(other, arc) for other, arc in steps if min(capacity[arc], width[other]) >= most]
            for name, steps in self._onward.items()
        }
        return self._first(wide)

    def _first(self, onward: Mapping[str, Sequence[OneHop]]) -> Way:
        name, way = self._source, []
        while name != self._target:
            name, arc = onward[name][0]
            way.append(arc)
        return tuple(way)

    def _backwards(self) -> list[str]:
        """The nodes before the target, each after those that follow it."""
        levels: list[list[str]] = [[self._source]]
        while True:
            following = dict.fromkeys(other for name in levels[-1] for other, _ in self._onward[name])
            if self._target in following:
                return [name for level in reversed(levels) for name in level]
            levels.append(list(following))


class WaySearch:
    """Shortest ways over links of some kinds."""

    def __init__(self, links: Sequence[Link], nodes: Mapping[str, NodeKind], kinds: Collection[LinkKind]) -> None:
        self._direct: dict[tuple[str, str], list[Arc]] = defaultdict(list)
        self._through: dict[str, list[OneHop]] = defaultdict(list)
        """The neighbours that forward."""
        self._gpus: dict[str, list[str]] = defaultdict(list)
        for index, link in enumerate(links):
            if link.kind in kinds:
                for name, other, arc in ((link.a, link.b, (index, True)), (link.b, link.a, (index, False))):
                    self._direct[name, other].append(arc)
                    if nodes[other] is NodeKind.GPU:
                        self._gpus[name].append(other)
                    else:
                        self._through[name].append((other, arc))

    def ways(self, source: str, target: str) -> ShortestWays | None:
        """All ways of fewest hops between two different nodes, None where there is none."""
        direct = self._direct.get((source, target))
        if direct is not None:
            return ShortestWays(source, target, {source: [(target, arc) for arc in direct]})
        ahead, behind = self._through.get(source), self._through.get(target)
        if ahead is None or behind is None:
            return None
        if (onward := _two_hops(source, target, ahead, behind)) is not None:
            return ShortestWays(source, target, onward)
        there, back = _Side(source, self._through), _Side(target, self._through)
        there.advance()
        back.advance()
        met = there.front & back.front
        while not met:
            if not there.front or not back.front:
                return None
            side, other = (there, back) if there.cost() <= back.cost() else (back, there)
            side.advance()
            met = side.front & other.reached.keys()
        return ShortestWays(source, target, _onward(met, there.came_from, back.came_from))

    def ways_from(self, source: str) -> Callable[[str], ShortestWays | None]:
        """`ways` from one node to any that forwards, by one search for all of them."""
        side = _Side(source, self._through)
        while side.front:
            side.advance()

        def ways(target: str) -> ShortestWays | None:
            if target not in side.came_from:
                return None
            return ShortestWays(source, target, _onward({target}, side.came_from, {}))

        return ways

    def nearest(self, source: str, targets: Collection[str]) -> tuple[int, set[str]]:
        """The fewest hops to any of some nodes that forward, and which are so near; none where there is no way."""
        side, hops = _Side(source, self._through), 0
        while side.front:
            side.advance()
            hops += 1
            found = side.front.intersection(targets)
            if found:
                return hops, found
        return 0, set()

    def gpus_at(self, source: str, hops: int) -> set[str]:
        """The GPUs that are so many hops, at least one, away from a node."""
        side, near = _Side(source, self._through), set[str]()
        for _ in range(hops - 1):
            near.update(gpu for name in side.front for gpu in self._gpus.get(name, ()))
            side.advance()
        return {gpu for name in side.front for gpu in self._gpus.get(name, ())} - near


class _Side:
    """A search from one end, level by level."""

    def __init__(self, start: str, through: Mapping[str, Sequence[OneHop]]) -> None:
        self._through = through
        self.reached: dict[str, None] = {start: None}
        self.front = {start}
        self.came_from: dict[str, list[OneHop]] = defaultdict(list)

    def cost(self) -> int:
        """Links that the next level tries."""
        return sum(len(self._through.get(name, ())) for name in self.front)

    def advance(self) -> None:
        """One level further."""
        front: set[str] = set()
        for name in self.front:
            for other, arc in self._through.get(name, ()):
                if other not in self.reached:
                    front.add(other)
                    self.came_from[other].append((name, arc))
        self.reached.update(dict.fromkeys(front))
        self.front = front


def _two_hops(
    source: str, target: str, ahead: Sequence[OneHop], behind: Sequence[OneHop]
) -> dict[str, list[OneHop]] | None:
    """The arcs on ways through one node between, from the neighbours of both ends."""
    if len(ahead) + len(behind) > _FEW:
        return None
    onward: dict[str, list[OneHop]] = {}
    for name, (index, direction) in behind:
        onward.setdefault(name, []).append((target, (index, not direction)))
    first = [step for step in ahead if step[0] in onward]
    if not first:
        return None
    return {source: first} | {name: onward[name] for name, _ in first}


def _onward(
    met: Iterable[str], there: Mapping[str, Sequence[OneHop]], back: Mapping[str, Sequence[OneHop]]
) -> dict[str, list[OneHop]]:
    """The arcs on shortest ways, from the steps that led from both ends to where they met."""
    onward: dict[str, list[OneHop]] = defaultdict(list)
    for came_from, forward in ((there, True), (back, False)):
        todo, seen = list(met), set(met)
        while todo:
            name = todo.pop()
            for other, (index, direction) in came_from.get(name, ()):
                if forward:
                    onward[other].append((name, (index, direction)))
                else:
                    onward[name].append((other, (index, not direction)))
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
    return _in_order(onward)


def _in_order(onward: dict[str, list[OneHop]]) -> dict[str, list[OneHop]]:
    """The same with the arcs of each node in the links' order."""
    for steps in onward.values():
        steps.sort(key=lambda step: step[1])
    return onward
