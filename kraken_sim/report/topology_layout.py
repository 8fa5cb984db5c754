"""Where the nodes of a machine stand in its drawing.

GPUs stand in a row, node after node, in the order in which they hang below hosts. What joins several of them is a bar
over everything that it joins: NVSwitches and network switches above, PCIe switches and hosts below. So every link is
a vertical line between what it joins, and links between GPUs are arcs over their row.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.hardware.topology.islands import node_islands

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.hardware.topology.topology import Topology

NODE_GAP: Final = 1.0
"""Free slots between two nodes of a cluster."""

SOCKET_GAP: Final = 0.6
"""Free slots between two sockets that a link joins."""

_BESIDE: Final = 0.5
"""Free slots between a group and what stands beside it."""

_MARGINS: Final[Mapping[NodeKind, float]] = {
    NodeKind.PCIE_SWITCH: 0.2,
    NodeKind.HOST: 0.0,
    NodeKind.NVSWITCH: 0.3,
    NodeKind.NETWORK_SWITCH: 0.3,
}
"""How far a bar reaches beyond what hangs on it, in slots."""

_LEAST_MARGIN: Final = 0.2
"""Of a bar over points."""

_BOARD: Final = frozenset({LinkKind.PCIE, LinkKind.C2C})


@dataclass(frozen=True, slots=True)
class Place:
    """A bar from `left` to `right` at height `y`, or a point where both are the same; in slots and in rows."""

    left: float
    right: float
    y: float

    @property
    def x(self) -> float:
        """The middle."""
        return (self.left + self.right) / 2.0

    @property
    def is_bar(self) -> bool:
        """Whether it has a width."""
        return self.right > self.left


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """The place of every node, and the middle height of every kind's rows."""

    places: Mapping[str, Place]
    rows: Mapping[NodeKind, float]

    @property
    def width(self) -> float:
        """Slots from the left to the right end."""
        return max(place.right for place in self.places.values()) + 1.0


def layout(topology: Topology) -> MachinePlan:
    """Places for all nodes of a machine."""
    below = _board_children(topology)
    points = _points(topology, below)
    spans = {name: Place(x, x, 0.0) for name, x in points.items()}
    free = max(points.values(), default=-1.0)
    for node in _bars_inside_out(topology, below):
        inside = [spans[name] for name in _joined(topology, node, below) if name in spans]
        if not inside:
            free += 1.0
            inside = [Place(free, free, 0.0)]
        spans[node] = _over(inside, _MARGINS[topology.kinds[node]])
    network = [name for name in spans if topology.kinds[name] is NodeKind.NETWORK_SWITCH]
    if network:
        spans |= dict.fromkeys(network, _over([spans[name] for name in network], 0.0))
    return _stacked(topology, spans, below)


def _over(inside: Sequence[Place], margin: float) -> Place:
    """A bar over places."""
    left, right = min(place.left for place in inside), max(place.right for place in inside)
    if not any(place.is_bar for place in inside):
        margin = max(margin, _LEAST_MARGIN)
    return Place(left - margin, right + margin, 0.0)


def _board_children(topology: Topology) -> dict[str, list[str]]:
    """What hangs below each host and PCIe switch."""
    neighbours: dict[str, list[str]] = defaultdict(list)
    for link in topology.links:
        if link.kind in _BOARD:
            neighbours[link.a].append(link.b)
            neighbours[link.b].append(link.a)
    below: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for kind in (NodeKind.HOST, NodeKind.PCIE_SWITCH):
        queue = [node.name for node in topology.nodes if node.kind is kind and node.name not in seen]
        seen.update(queue if kind is NodeKind.HOST else ())
        while queue:
            name = queue.pop(0)
            seen.add(name)
            below[name] = [other for other in neighbours[name] if other not in seen]
            seen.update(below[name])
            queue += [other for other in below[name] if topology.kinds[other] is NodeKind.PCIE_SWITCH]
    return below


def _points(topology: Topology, below: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Where GPUs and NICs stand from left to right."""
    points: dict[str, float] = {}
    at = 0.0
    sockets = any(link.kind is LinkKind.SOCKET for link in topology.links)
    root = {leaf: host for host in below if topology.kinds[host] is NodeKind.HOST for leaf in _descendants(host, below)}
    for island in node_islands(topology, topology.gpus):
        for before, gpu in zip((island[0], *island), island, strict=False):
            at += SOCKET_GAP if sockets and root.get(before) != root.get(gpu) else 0.0
            points[gpu] = at
            at += 1.0
        at += NODE_GAP
    for parent, children in below.items():
        nics = [name for name in children if topology.kinds[name] is NodeKind.NIC]
        gpus = sorted(points[name] for name in _descendants(parent, below) if name in topology.gpus)
        for index, nic in enumerate(nics):
            beside = gpus[index * len(gpus) // len(nics)] if gpus else at + index
            points[nic] = beside + _BESIDE
    for node in topology.nodes:
        if node.kind is NodeKind.NIC and node.name not in points:
            points[node.name] = at
            at += 1.0
    return points


def _descendants(name: str, below: Mapping[str, Sequence[str]]) -> list[str]:
    found: list[str] = []
    for child in below.get(name, ()):
        found += [child, *_descendants(child, below)]
    return found


def _bars_inside_out(topology: Topology, below: Mapping[str, Sequence[str]]) -> list[str]:
    """Switches and hosts, each after those that hang below it."""
    depth = {node.name: len(_descendants(node.name, below)) for node in topology.nodes}
    order = (NodeKind.NVSWITCH, NodeKind.PCIE_SWITCH, NodeKind.HOST, NodeKind.NETWORK_SWITCH)
    bars = [node for node in topology.nodes if node.kind in order]
    return [node.name for node in sorted(bars, key=lambda node: (order.index(node.kind), depth[node.name]))]


def _joined(topology: Topology, name: str, below: Mapping[str, Sequence[str]]) -> list[str]:
    if topology.kinds[name] in (NodeKind.PCIE_SWITCH, NodeKind.HOST):
        return list(below.get(name, ()))
    ends = [(link.a, link.b) for link in topology.links if name in (link.a, link.b)]
    return [b if a == name else a for a, b in ends]


def _stacked(topology: Topology, spans: Mapping[str, Place], below: Mapping[str, Sequence[str]]) -> MachinePlan:
    """Heights: bars that would lie on each other go into rows of their own."""
    kinds = topology.kinds
    named = {kind: [name for name in spans if kinds[name] is kind] for kind in NodeKind}
    places = {name: replace(spans[name], y=0.0) for name in named[NodeKind.GPU]}
    rows = {NodeKind.GPU: 0.0}
    arcs = [arc_height(spans[a].x, spans[b].x) for a, b in gpu_pairs(topology)]
    top, bottom = max([1.2, *(height + 0.6 for height in arcs)]), -1.4
    for kind in (NodeKind.NVSWITCH, NodeKind.NETWORK_SWITCH):
        if named[kind]:
            last = _place_rows(named[kind], spans, places, top, step=0.5)
            rows[kind], top = (top + last) / 2.0, last + 1.1
    if named[NodeKind.NIC]:
        rows[NodeKind.NIC] = bottom + 0.4
        places |= {name: replace(spans[name], y=bottom + 0.4) for name in named[NodeKind.NIC]}
        bottom -= 0.4
    for kind in (NodeKind.PCIE_SWITCH, NodeKind.HOST):
        if named[kind]:
            inner_first = sorted(named[kind], key=lambda name: len(_descendants(name, below)))
            last = _place_rows(inner_first, spans, places, bottom, step=-0.7)
            rows[kind], bottom = (bottom + last) / 2.0, last - 1.0
    return MachinePlan(places, rows)


def gpu_pairs(topology: Topology) -> list[tuple[str, str]]:
    """The GPUs that a link joins directly; it is drawn as an arc."""
    ends = [(link.a, link.b) for link in topology.links]
    return [(a, b) for a, b in ends if topology.kinds[a] is topology.kinds[b] is NodeKind.GPU]


def arc_height(a: float, b: float) -> float:
    """The top of an arc, the higher the further its ends are apart."""
    return min(0.4 + 0.35 * max(abs(b - a) - 1.0, 0.0), 2.6)


def _place_rows(
    names: Iterable[str], spans: Mapping[str, Place], places: dict[str, Place], start: float, step: float
) -> float:
    """Each bar in the first row where it touches no other; the height of the last row."""
    rows: list[list[Place]] = []
    for name in names:
        span = spans[name]
        free = (i for i, row in enumerate(rows) if all(span.left >= p.right or span.right <= p.left for p in row))
        index = next(free, len(rows))
        if index == len(rows):
            rows.append([])
        rows[index].append(span)
        places[name] = replace(span, y=start + step * index)
    return start + step * (len(rows) - 1)
