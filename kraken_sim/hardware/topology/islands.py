"""Parts of a machine that a ring should leave only once: GPUs joined by NVLink, and whole nodes.

A ring leaves every part of the graph at least once and enters it as often. An order that keeps the GPUs of each
part together does so exactly once, whichever part the slow links separate; between nodes, several such orders turned
against each other use the rails of all NICs, as NCCL's channels do.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kraken_sim.hardware.topology.graph import LinkKind, NodeKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Graph, Link

_SWITCHES: Final = frozenset({NodeKind.NVSWITCH, NodeKind.NETWORK_SWITCH})

Islands = tuple[tuple[str, ...], ...]
"""GPUs in parts; the parts and the GPUs of each in the order in which they hang below hosts and switches."""


def with_planes_merged(topology: Graph) -> tuple[Link, ...]:
    """The links with switches that join the same nodes by the same links made one, whose links add up."""
    links_of: dict[str, list[Link]] = defaultdict(list)
    for link in topology.links:
        for end, other in ((link.a, link.b), (link.b, link.a)):
            if topology.kinds[end] in _SWITCHES:
                links_of[end].append(replace(link, a=other, b=""))
    planes: dict[frozenset[Link], list[str]] = defaultdict(list)
    for switch, links in links_of.items():
        planes[frozenset(links)].append(switch)
    merged = {switch: len(names) if switch == names[0] else 0 for names in planes.values() for switch in names}
    counts = [(link, merged.get(link.a, 1) * merged.get(link.b, 1)) for link in topology.links]
    return tuple(replace(link, count=link.count * count) if count > 1 else link for link, count in counts if count)


def nvlink_islands(topology: Graph, gpus: Sequence[str]) -> Islands:
    """The group in parts that NVLink joins; without NVLink each GPU is one."""
    left, home = set(gpus), dict[str, str]()
    while left:
        first = left.pop()
        todo, seen = [first], {first}
        while todo:
            for link in topology.links_of[todo.pop()]:
                if link.kind is LinkKind.NVLINK:
                    for name in {link.a, link.b} - seen:
                        if topology.kinds[name] is not NodeKind.GPU or name in left:
                            seen.add(name)
                            todo.append(name)
        left -= seen
        home |= dict.fromkeys(seen, first)
    parts: dict[str, list[str]] = defaultdict(list)
    for name in _as_they_hang(topology, gpus):
        parts[home[name]].append(name)
    return tuple(tuple(part) for part in parts.values())


def node_islands(topology: Graph, gpus: Sequence[str]) -> Islands:
    """The group in nodes; see `nodes_of`."""
    return nodes_of(topology, _as_they_hang(topology, gpus))


def nodes_of(topology: Graph, gpus: Sequence[str]) -> Islands:
    """The group in nodes, what hangs together without the network, in the order of `gpus`."""
    component = topology.components
    found: dict[str, list[str]] = defaultdict(list)
    for gpu in gpus:
        found[component[gpu]].append(gpu)
    return tuple(map(tuple, found.values()))


def _as_they_hang(topology: Graph, gpus: Sequence[str]) -> list[str]:
    return sorted(gpus, key=topology.board_places.__getitem__)


def together(nodes: Islands, islands: Islands) -> Islands:
    """Each node's GPUs, with those of one NVLink island side by side."""
    home = {gpu: index for index, node in enumerate(nodes) for gpu in node}
    grouped: list[list[str]] = [[] for _ in nodes]
    for island in islands:
        grouped[home[island[0]]] += island
    return tuple(map(tuple, grouped))


def rail_orders(nodes: Islands, *, both_ways: bool = False) -> Iterator[tuple[str, ...]]:
    """Rings through all nodes that leave and enter each of them once, every one by another rail.

    The k-th ring enters a node at its k-th GPU and leaves it at the one before; every other node is passed through
    backwards, so that the GPU that sends and the one that receives hang on the same rail. With `both_ways` each is
    followed by its reverse.
    """
    shared = min(map(len, nodes))
    for turn in range(shared):
        turned = [_turned(node, turn, shared) for node in nodes]
        order = tuple(gpu for index, node in enumerate(turned) for gpu in (node[::-1] if index % 2 else node))
        yield order
        if both_ways:
            yield (order[0], *order[:0:-1])


def _turned(node: Sequence[str], turn: int, shared: int) -> tuple[str, ...]:
    """A node's GPUs from the `turn`-th on; those that have no counterpart in the smallest node stand inside."""
    core = (*node[turn:shared], *node[:turn])
    return (core[0], *node[shared:], *core[1:])


def most_out_of(part: Collection[str], links: Iterable[Link]) -> float:
    """The most that one way out of a part can carry, in bytes a second; no ring through it carries more."""
    inside = set(part)
    return max((link.total_bytes_per_s for link in links if (link.a in inside) != (link.b in inside)), default=0.0)


def with_switches(part: Sequence[str], links: Iterable[Link], kinds: Mapping[str, NodeKind]) -> set[str]:
    """A part together with the NVSwitches that join it."""
    inside, found = set(part), set(part)
    for link in links:
        for end, other in ((link.a, link.b), (link.b, link.a)):
            if end in inside and kinds[other] is NodeKind.NVSWITCH:
                found.add(other)
    return found
