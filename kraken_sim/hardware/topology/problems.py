"""What keeps a graph from being a machine, each problem with its place and its repair."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from kraken_sim.errors import Problem, closest
from kraken_sim.hardware.topology.graph import ENDPOINTS, LinkKind, NodeKind
from kraken_sim.hardware.topology.union_find import UnionFind
from kraken_sim.units import format_bandwidth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.hardware.topology.graph import Link, Node


def find_problems(
    nodes: Sequence[Node], links: Sequence[Link], where: Callable[[int], str] = "links.{}".format
) -> list[Problem]:
    """Everything that keeps a graph from being a machine.

    - Node names are unique, there is at least one GPU, links join two different nodes of kinds that fit.
    - Bandwidths are positive and finite, latencies not negative, counts at least one.
    - Two nodes have one entry per kind of link: two entries would make it asymmetric or count it twice.
    - PCIe links form a forest in which every tree holds at most one host: a GPU, NIC or PCIe switch has
      exactly one way up. Cycles that NVLink, socket or network links take part in are fine.
    - Everything is connected with everything.

    `where` turns a link's index into the path that its problems are reported at.
    """
    problems = _node_problems(nodes)
    kinds = {node.name: node.kind for node in nodes}
    for index, link in enumerate(links):
        problems += _link_problems(link, kinds, where(index))
    if problems:
        return problems
    problems = _repeated(links, where)
    problems += _pcie_cycles(links, kinds, where)
    return problems or _disconnected(nodes, links)


def _node_problems(nodes: Sequence[Node]) -> list[Problem]:
    twice = [name for name, number in Counter(node.name for node in nodes).items() if number > 1]
    problems = [Problem("nodes", "two nodes have the same name", name) for name in twice]
    if not any(node.kind is NodeKind.GPU for node in nodes):
        problems.append(Problem("nodes", "a machine needs at least one GPU", example="gpu: {kind: gpu, count: 8}"))
    return problems


def _link_problems(link: Link, kinds: Mapping[str, NodeKind], path: str) -> list[Problem]:
    problems = []
    for end in (link.a, link.b):
        if end not in kinds:
            known = list(kinds)
            problems.append(Problem(path, "no such node", end, suggestion=closest(end, known)))
        elif kinds[end] not in ENDPOINTS[link.kind]:
            problems.append(_wrong_end(link, end, kinds, path))
    if link.a == link.b:
        problems.append(Problem(path, "a link joins two different nodes", link.a))
    rate, latency = link.bandwidth_bytes_per_s, link.latency_s
    if not (rate > 0 and math.isfinite(rate)):
        problems.append(Problem(path, f"{link}: bandwidth must be more than zero", rate, "25 GB/s"))
    if not (latency >= 0 and math.isfinite(latency)):
        problems.append(Problem(path, f"{link}: latency must not be negative", latency, "0.3 us"))
    if link.count < 1:
        problems.append(Problem(path, f"{link}: count must be at least 1", link.count, "18"))
    return problems


def _wrong_end(link: Link, end: str, kinds: Mapping[str, NodeKind], path: str) -> Problem:
    allowed = " and ".join(sorted(ENDPOINTS[link.kind]))
    ends = {kinds.get(name) for name in (link.a, link.b)}
    fitting = [str(kind) for kind, joined in ENDPOINTS.items() if ends <= joined]
    example = f"kind: {' or '.join(fitting)}" if fitting else None
    return Problem(path, f"a {link.kind} link joins {allowed}, not a {kinds[end]}", end, example)


def _repeated(links: Sequence[Link], where: Callable[[int], str]) -> list[Problem]:
    first: dict[tuple[frozenset[str], LinkKind], Link] = {}
    problems = []
    for index, link in enumerate(links):
        other = first.setdefault((frozenset({link.a, link.b}), link.kind), link)
        if other is link:
            continue
        if other.a == link.b and other.total_bytes_per_s != link.total_bytes_per_s:
            rates = f"{format_bandwidth(other.total_bytes_per_s)} and {format_bandwidth(link.total_bytes_per_s)}"
            message = f"{link}: asymmetric, {rates}; a link has one bandwidth for both directions"
            example = f"one entry with the smaller: {{from: {other.a}, to: {other.b}, ...}}"
            problems.append(Problem(where(index), message, example=example))
        else:
            problems.append(Problem(where(index), f"{link}: declared twice; use count for parallel links"))
    return problems


def _pcie_cycles(links: Sequence[Link], kinds: Mapping[str, NodeKind], where: Callable[[int], str]) -> list[Problem]:
    trees, problems = UnionFind(), []
    # All hosts count as one root, so that a second way up to another host closes a cycle too.
    root = {name: "host" if kind is NodeKind.HOST else f"node {name}" for name, kind in kinds.items()}
    for index, link in enumerate(links):
        if link.kind is LinkKind.PCIE and not trees.join(root[link.a], root[link.b]):
            message = f"{link}: closes a cycle; PCIe is a tree, with one way up from each device to one host"
            problems.append(Problem(where(index), message))
    return problems


def _disconnected(nodes: Sequence[Node], links: Sequence[Link]) -> list[Problem]:
    parts = UnionFind()
    for link in links:
        parts.join(link.a, link.b)
    islands: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        islands[parts.find(node.name)].append(node.name)
    if len(islands) == 1:
        return []
    shown = "; ".join(", ".join(names[:4]) + (", ..." if len(names) > 4 else "") for names in islands.values())
    kinds = {node.name: node.kind for node in nodes}
    first, second, *_ = islands.values()
    message = f"the machine falls into {len(islands)} unconnected parts: {shown}"
    return [Problem("links", message, example=_joining(first, second, kinds))]


def _joining(a: Sequence[str], b: Sequence[str], kinds: Mapping[str, NodeKind]) -> str | None:
    """A link that would join two parts of a machine."""
    for kind in (LinkKind.SOCKET, LinkKind.PCIE, LinkKind.NVLINK, LinkKind.NETWORK):
        ends = [next((name for name in part if kinds[name] in ENDPOINTS[kind]), None) for part in (a, b)]
        if all(ends):
            return f"{{from: {ends[0]}, to: {ends[1]}, kind: {kind}, ...}}"
    return None
