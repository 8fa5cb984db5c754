"""How a file describes a machine's graph: nodes by groups, links by patterns, whole machines by presets.

    nodes:
      gpu: {kind: gpu, count: 8}              # gpu0 ... gpu7
      nvswitch: {kind: nvswitch}
      host: {kind: host, count: 2}            # host0, host1
    links:
      - {from: "gpu*", to: nvswitch, kind: nvlink, count: 18, bandwidth: 25 GB/s, latency: 0.3 us}
      - {from: "gpu*", to: "host*", match: blocks, kind: pcie, gen: 5, bandwidth: 63 GB/s, latency: 0.5 us}
      - {from: host0, to: host1, kind: socket, bandwidth: 62 GB/s, latency: 0.2 us}

Bandwidth is one link's, in one direction; a PCIe link without one has 16 lanes of its generation. A link without a
latency has that of its kind in the machines that ship. Patterns know `*`, `?`, `[0-3]`, `{0..35}` and lists with
commas.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, StrictInt, StrictStr, ValidationError, WithJsonSchema

from kraken_sim.errors import Problem, closest
from kraken_sim.files.meaning import Meaning, meanings_of
from kraken_sim.files.model import FileModel
from kraken_sim.hardware.topology.graph import HostCpu, Link, LinkKind, Node, NodeKind, P2PLevel
from kraken_sim.hardware.topology.problems import find_problems
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.profiles.json_schema import described, quantity_schema, sourced_schema
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.units import Dimension, dimension_of_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.profiles.blocks import Reading

_MOST_NODES: Final = 4096
"""Most nodes of a group, and most GPUs of a machine, a limit of ours: more are a slip in a `count`."""

_MOST_NODES_TOGETHER: Final = 20_000
"""Most nodes of a machine, a limit of ours: each of 4,096 GPUs with a PCIe switch, a NIC and a host of its own."""

_MOST_LINKS: Final = 20_000
"""Most links that one entry may stand for, a limit of ours: more are a slip in a pattern."""

_MOST_LINKS_TOGETHER: Final = 50_000
"""Most links of a machine, a limit of ours, for the time that they take."""


PCIE_LANE_BYTES_PER_S: Final[Mapping[int, float]] = {
    1: 2.5e9 / 10,
    2: 5e9 / 10,
    3: 8e9 * 128 / 130 / 8,
    4: 16e9 * 128 / 130 / 8,
    5: 32e9 * 128 / 130 / 8,
    6: 64e9 * 236 / 256 / 8,
}
"""Line rate of a lane in one direction (PCI Express Base Specification: 8b/10b, 128b/130b, FLIT coding)."""

PCIE_LANES: Final = 16
"""Lanes of a card's slot; a definition of the formats that graphics cards have (PCI Express Card Electromechanical
Specification)."""

LATENCIES: Final[Mapping[LinkKind, tuple[float, str]]] = {
    LinkKind.NVLINK: (0.25e-6, "half a GPU-to-GPU hop: NCCL src/graph/tuning.cc has 0.6 us for a ring step with LL"),
    LinkKind.PCIE: (0.5e-6, "half a hop: NCCL src/graph/tuning.cc has 1.0 us for a PCIe ring step with LL"),
    LinkKind.SOCKET: (0.2e-6, "a remote-socket memory access takes 0.1 to 0.2 us longer than a local one"),
    LinkKind.C2C: (0.5e-6, "as PCIe's; Grace and its GPUs are one coherent memory, whose latency nobody publishes"),
    LinkKind.NETWORK: (0.5e-6, "half of NIC to NIC through one switch, about 1 us (InfiniBand perftest)"),
}
"""Latency of a link whose file gives none, assumed, and what it rests on."""


_LINK: Final = meanings_of(Link)


def _link_meaning(name: str) -> Meaning | None:
    """What a number of a link means."""
    said = _LINK[name]
    return said if isinstance(said, Meaning) else None


def _quantity(name: str) -> WithJsonSchema:
    dimension = dimension_of_field(name)
    plain = quantity_schema(dimension)
    return WithJsonSchema(described({"anyOf": [plain, sourced_schema(plain)]}, dimension, _link_meaning(name)))


Bandwidth = Annotated[Any, _quantity("bandwidth_bytes_per_s")]
Latency = Annotated[Any, _quantity("latency_s")]
Text = Annotated[StrictStr, Field(min_length=1, max_length=2000)]
NodeCount = Annotated[StrictInt, Field(ge=1, le=_MOST_NODES)]


class Match(StrEnum):
    """Which of the nodes that two patterns name get a link."""

    EACH = "each"
    """Every one on the left with every one on the right."""
    PAIRS = "pairs"
    """The first with the first, the second with the second, ..."""
    BLOCKS = "blocks"
    """The left ones in equal blocks: the first block with the first on the right, ..."""
    TURNS = "turns"
    """The left ones dealt out in turn: the first with the first on the right, the second with the second, ...,
    and from the start again. NICs on the switches of their rails."""


class NodeGroup(FileModel):
    """Nodes of one kind; with a count they are numbered from 0, without one the group is a single node.

    `cpu` is a host's; NCCL has its own idea of what each kind carries between sockets.
    """

    kind: NodeKind
    count: NodeCount | None = None
    cpu: HostCpu | None = None


class LinkValues(FileModel):
    """What a link can do."""

    bandwidth: Bandwidth = Field(default=None, examples=["25 GB/s"])
    latency: Latency = Field(default=None, examples=["0.3 us"])
    count: NodeCount = 1
    gen: Annotated[StrictInt, Field(ge=1, le=7)] | None = None


class LinkEntry(LinkValues):
    """Links of one kind between two patterns of nodes."""

    from_: Text = Field(alias="from")
    to: Text
    kind: LinkKind
    match: Match = Match.EACH


class Preset(FileModel):
    """A common machine: GPUs in equal blocks below the sockets, and an NVSwitch where `nvlink` is given."""

    num_gpus: NodeCount
    num_hosts: NodeCount = 1
    cpu: HostCpu | None = None
    pcie: LinkValues
    nvlink: LinkValues | None = None
    socket: LinkValues | None = None


class TopologyFile(FileModel):
    """The graph of a machine; `kind` and `source` hold for every number that has none of its own."""

    kind: ProvenanceKind
    source: Text
    p2p_level: P2PLevel | None = None
    nvswitch_node: Preset | None = None
    pcie_node: Preset | None = None
    nodes: dict[str, NodeGroup] = Field(default_factory=dict)
    links: list[LinkEntry] = Field(default_factory=list)


def build_topology(file: TopologyFile, reading: Reading) -> Topology | None:
    """The machine that a file describes; None where `reading` got problems."""
    before = len(reading.problems)
    inherited = Provenance(file.kind, file.source)
    groups, entries = dict(file.nodes), [(f"topology.links.{i}", entry) for i, entry in enumerate(file.links)]
    for name in ("nvswitch_node", "pcie_node"):
        preset = getattr(file, name)
        if preset is not None:
            _expand_preset(preset, f"topology.{name}", groups, entries, reading)
    if not _small_enough(groups, reading):
        return None
    for name, group in groups.items():
        if group.cpu is not None and group.kind is not NodeKind.HOST:
            reading.add(f"topology.nodes.{name}.cpu", f"only hosts have a CPU, not a {group.kind}", str(group.cpu))
    nodes = _nodes(groups)
    names = [node.name for node in nodes]
    links: list[Link] = []
    where: list[str] = []
    for path, entry in entries:
        made = _links(entry, names, path, reading, inherited)
        links += made
        where += [path] * len(made)
        if len(links) > _MOST_LINKS_TOGETHER:
            reading.add(path, f"a machine has at most {_MOST_LINKS_TOGETHER} links", len(links))
            return None
    if len(reading.problems) == before:
        found = find_problems(nodes, links, where.__getitem__)
        found = [p if p.path.startswith("topology.") else replace(p, path=f"topology.{p.path}") for p in found]
        # One entry makes many links, which are wrong in the same way.
        reading.problems += list({(p.path, _general(p, nodes)): p for p in reversed(found)}.values())[::-1]
    return None if len(reading.problems) > before else Topology(tuple(nodes), tuple(links), file.p2p_level)


def _small_enough(groups: Mapping[str, NodeGroup], reading: Reading) -> bool:
    """Whether a machine has as few GPUs and nodes as can be worked with; else `reading` gets a problem."""
    gpus = sum(group.count or 1 for group in groups.values() if group.kind is NodeKind.GPU)
    together = sum(group.count or 1 for group in groups.values())
    for number, most, what in ((gpus, _MOST_NODES, "GPUs"), (together, _MOST_NODES_TOGETHER, "nodes")):
        if number > most:
            reading.add("topology.nodes", f"a machine has at most {most} {what}", number)
            return False
    return True


def _general(problem: Problem, nodes: Sequence[Node]) -> str:
    """What a problem says without the names of nodes."""
    names = {node.name for node in nodes}
    return " ".join(word for word in problem.message.split() if word not in names)


def check_quantities(raw: object, reading: Reading) -> None:
    """Notes what is wrong with the numbers of a topology's links where other parts of its outline are wrong."""
    links = raw.get("links") if isinstance(raw, dict) else None
    for index, link in enumerate(links if isinstance(links, list) else ()):
        try:
            entry = LinkEntry.model_validate(link)
        except ValidationError:
            continue  # reported with the outline
        _quantities(entry, f"topology.links.{index}", reading, Provenance(ProvenanceKind.DATASHEET, ""))


def _expand_preset(
    preset: Preset,
    path: str,
    groups: dict[str, NodeGroup],
    entries: list[tuple[str, LinkEntry]],
    reading: Reading,
) -> None:
    groups["gpu"] = NodeGroup(kind=NodeKind.GPU, count=preset.num_gpus)
    groups["host"] = NodeGroup(kind=NodeKind.HOST, count=preset.num_hosts, cpu=preset.cpu)
    parts: list[tuple[str, LinkValues | None, str, str, Match]] = [("pcie", preset.pcie, "gpu*", "host*", Match.BLOCKS)]
    if path.endswith("nvswitch_node"):
        groups["nvswitch"] = NodeGroup(kind=NodeKind.NVSWITCH)
        parts.append(("nvlink", preset.nvlink, "gpu*", "nvswitch", Match.EACH))
    elif preset.nvlink is not None:
        reading.add(f"{path}.nvlink", "a pcie_node has no NVLink; use nvswitch_node, or nodes and links")
    if preset.num_hosts > 1:
        parts.append(("socket", preset.socket, "host*", "host*", Match.EACH))
    for kind, values, source, target, match in parts:
        if values is None:
            reading.add(f"{path}.{kind}", "is required", example="{bandwidth: 25 GB/s, latency: 0.3 us}")
            continue
        fields = {"from": source, "to": target, "kind": kind, "match": match, **dict(values)}
        entries.append((f"{path}.{kind}", LinkEntry.model_validate(fields)))


def _nodes(groups: dict[str, NodeGroup]) -> list[Node]:
    nodes = []
    for name, group in groups.items():
        names = [name] if group.count is None else [f"{name}{index}" for index in range(group.count)]
        nodes += [Node(each, group.kind, group.cpu) for each in names]
    return nodes


def _links(entry: LinkEntry, names: Sequence[str], path: str, reading: Reading, inherited: Provenance) -> list[Link]:
    bandwidth, latency = _quantities(entry, path, reading, inherited)
    left = _matching(entry.from_, names, f"{path}.from", reading)
    right = _matching(entry.to, names, f"{path}.to", reading)
    pairs = _pairs(left, right, entry.match, path, reading)
    if bandwidth is None or latency is None:
        return []
    return [Link(a, b, entry.kind, bandwidth, latency, entry.count, entry.gen or 0, path) for a, b in pairs]


def _quantities(
    entry: LinkEntry, path: str, reading: Reading, inherited: Provenance
) -> tuple[float | None, float | None]:
    """Bandwidth and latency of an entry's links, None where wrong."""
    reading.note(f"{path}.count", inherited)
    if entry.kind is LinkKind.PCIE and entry.gen is None:
        reading.add(f"{path}.gen", "is required for a PCIe link", example="5")
    if entry.kind is not LinkKind.PCIE and entry.gen is not None:
        reading.add(f"{path}.gen", f"only PCIe links have a generation, not {entry.kind}", entry.gen)
    return _bandwidth(entry, path, reading, inherited), _latency(entry, path, reading, inherited)


def _bandwidth(entry: LinkEntry, path: str, reading: Reading, inherited: Provenance) -> float | None:
    if entry.bandwidth is not None:
        meaning = _link_meaning("bandwidth_bytes_per_s")
        return reading.number(entry.bandwidth, Dimension.BANDWIDTH, f"{path}.bandwidth", inherited, meaning)
    lane = PCIE_LANE_BYTES_PER_S.get(entry.gen or 0)
    if entry.kind is not LinkKind.PCIE or lane is None:
        if entry.kind is not LinkKind.PCIE or entry.gen is not None:
            reading.add(f"{path}.bandwidth", "is required: one link, in one direction", example="25 GB/s")
        return None
    source = f"PCI Express Base Specification: {PCIE_LANES} lanes of generation {entry.gen}"
    reading.note(f"{path}.bandwidth", Provenance(ProvenanceKind.DATASHEET, source))
    return PCIE_LANES * lane


def _latency(entry: LinkEntry, path: str, reading: Reading, inherited: Provenance) -> float | None:
    if entry.latency is not None:
        return reading.number(entry.latency, Dimension.TIME, f"{path}.latency", inherited, _link_meaning("latency_s"))
    latency, source = LATENCIES[entry.kind]
    reading.note(f"{path}.latency", Provenance(ProvenanceKind.ASSUMED, source))
    return latency


def _pairs(
    left: Sequence[str], right: Sequence[str], match: Match, path: str, reading: Reading
) -> list[tuple[str, str]]:
    if not left or not right:
        return []
    num_links = len(left) * len(right) if match is Match.EACH else len(left)
    if num_links > _MOST_LINKS:
        reading.add(path, f"more than {_MOST_LINKS} links in one entry", num_links)
        return []
    if match is Match.EACH:
        # A pattern joined with itself is a mesh: each pair once, nobody with itself.
        pairs = {frozenset((a, b)): (a, b) for a in reversed(left) for b in reversed(right) if a != b}
        if not pairs:
            reading.add(path, "a link joins two different nodes", left[0])
        ranks = [{name: index for index, name in enumerate(names)} for names in (left, right)]
        return sorted(pairs.values(), key=lambda pair: (ranks[0][pair[0]], ranks[1][pair[1]]))
    if match is Match.PAIRS and len(left) != len(right):
        reading.add(f"{path}.match", f"pairs need equal numbers of nodes, not {len(left)} and {len(right)}")
        return []
    if match is Match.TURNS:
        return [(name, right[index % len(right)]) for index, name in enumerate(left)]
    if len(left) % len(right):
        reading.add(f"{path}.match", f"{len(left)} nodes do not fall into {len(right)} equal blocks")
        return []
    size = len(left) // len(right)
    return [(name, right[index // size]) for index, name in enumerate(left)]


_RANGE: Final = re.compile(r"\{(\d{1,4})\.\.(\d{1,4})\}")


def _matching(pattern: str, names: Sequence[str], path: str, reading: Reading) -> list[str]:
    """The nodes that a pattern names, in the order of the file's nodes."""
    wanted: set[str] = set()
    for part in pattern.split(","):
        found = [name for one in _ranges(part.strip()) for name in fnmatch.filter(names, one)]
        if not found:
            reading.add(path, "no such node", part.strip(), suggestion=closest(part.strip(), list(names)))
        wanted.update(found)
    return [name for name in names if name in wanted]


def _ranges(part: str) -> list[str]:
    match = _RANGE.search(part)
    if match is None:
        return [part]
    numbers = range(int(match[1]), int(match[2]) + 1)
    return [part[: match.start()] + str(number) + part[match.end() :] for number in numbers]
