"""Hardware profiles as text: which there are, and every number of one with its source."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kraken_sim.errors import InputError
from kraken_sim.profiles.load import list_profiles, load_profile
from kraken_sim.profiles.profile import ProvenanceKind
from kraken_sim.report.page import TextTable
from kraken_sim.units import (
    Dimension,
    dimension_of_field,
    format_bandwidth,
    format_bytes,
    format_flops,
    format_quantity,
    format_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from rich.console import RenderableType

    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.hardware.topology.graph import Link, LinkKind
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.profile import HardwareProfile, Provenance

BLOCKS: Final = (
    *("device", "launch", "gemm", "gemm_fp8", "gemm_fp8_rows", "gemm_fp8_block", "gemm_nvfp4"),
    *("attention", "serving_attention", "attention_float8"),
    *("memory_bound", "collectives", "contention", "power"),
)
GROUP_COLUMNS: Final = ("GPUs", "best ring", "over", "one way", "hop latency", "through host memory")
_UNKNOWN: Final = "?"

_MOST_LISTED: Final = 256
"""Most nodes of a machine that are listed one by one, a limit of ours: more do not help a reader."""


def profiles_table(names: Sequence[str] | None = None) -> TextTable:
    """One line a profile: what the machine is and what its GPUs communicate over.

    A profile that cannot be loaded says so in its line; `profiles check` has the details.
    """
    rows: list[tuple[str, ...]] = []
    for name in list_profiles() if names is None else names:
        try:
            rows.append(_summary(load_profile(name)))
        except InputError as error:
            rows.append((name, *[_UNKNOWN] * 6, f"{len(error.problems)} problems"))
    columns = ("profile", "GPUs", "fp16", "HBM", "capacity", "interconnect", "line rate, one way", "device")
    return TextTable("", columns, rows)


def _summary(profile: HardwareProfile) -> tuple[str, ...]:
    device, topology = profile.device, profile.topology
    interconnect = topology.interconnect(len(topology.gpus))
    return (
        profile.name,
        str(len(topology.gpus)),
        format_flops(device.unquantised_flops),
        format_bandwidth(device.hbm_bandwidth_bytes_per_s),
        format_bytes(device.hbm_capacity_bytes),
        str(interconnect.kind),
        format_bandwidth(interconnect.bandwidth_bytes_per_s),
        device.name,
    )


def profile_text(profile: HardwareProfile) -> RenderableType:
    """A whole profile: the machine's links, its groups of GPUs, and every number with value, kind and source."""
    title = Text(f"{profile.name}: {profile.description}", style="bold")
    return Group(title, topology_tree(profile), groups_table(profile).rich(), *number_parts(profile))


def topology_tree(profile: HardwareProfile) -> Tree:
    """The nodes of a machine, each with its links; links alike are one line, and in a large machine nodes alike too."""
    topology = profile.topology
    tree = Tree(f"{len(topology.nodes)} nodes, {len(topology.links)} links (bandwidth per direction)")
    large = len(topology.nodes) > _MOST_LISTED
    alike: dict[Hashable, list[str]] = {}
    for node in topology.nodes:
        lines = _large_lines(topology, node.name) if large else ()
        alike.setdefault((node.kind, lines) if large else node.name, []).append(node.name)
    for names in alike.values():
        branch = tree.add(names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} alike)")
        for line in _large_lines(topology, names[0]) if large else _lines(topology, names[0]):
            branch.add(line)
    return tree


def _lines(topology: Topology, name: str) -> list[str]:
    """The links of a node, those alike in one line."""
    return [f"{text} to {', '.join(others)}" for text, others in _neighbours(topology, name).items()]


def _large_lines(topology: Topology, name: str) -> tuple[str, ...]:
    """The same with the others counted by their kind instead of named."""
    lines = []
    for text, others in _neighbours(topology, name).items():
        kinds = Counter(str(topology.kinds[other]) for other in others)
        lines.append(f"{text} to {', '.join(f'{number} {kind}' for kind, number in kinds.items())}")
    return tuple(lines)


def _neighbours(topology: Topology, name: str) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for link in topology.links_of[name]:
        alike.setdefault(_link_text(link), []).append(link.b if link.a == name else link.a)
    return alike


def _link_text(link: Link) -> str:
    return _text_of(link.kind, link.pcie_gen, link.count, link.bandwidth_bytes_per_s, link.latency_s)


@lru_cache(maxsize=256)
def _text_of(kind: LinkKind, pcie_gen: int, count: int, bandwidth_bytes_per_s: float, latency_s: float) -> str:
    """The text of all links that are alike: a large machine has thousands."""
    name = f"PCIe gen {pcie_gen}" if pcie_gen else str(kind)
    times = f"{count} x " if count > 1 else ""
    return f"{name} {times}{format_bandwidth(bandwidth_bytes_per_s)}, {format_seconds(latency_s)}"


def groups_table(profile: HardwareProfile) -> TextTable:
    """What groups of 2, 4, 8, ... GPUs communicate over, peer to peer and through host memory."""
    return TextTable("", GROUP_COLUMNS, list(group_rows(profile)))


def group_rows(profile: HardwareProfile) -> Iterator[tuple[str, ...]]:
    """A row of text for each group of `groups_table`."""
    topology = profile.topology
    sizes = [size for size in (2, 4, 8, 16, 32, 64) if size < len(topology.gpus)]
    for size in [*sizes, len(topology.gpus)] if len(topology.gpus) > 1 else []:
        direct = topology.interconnect(size)
        yield (
            str(size),
            order_text(topology.best_ring(size).order),
            _kind_text(direct),
            format_bandwidth(direct.bandwidth_bytes_per_s),
            format_seconds(direct.latency_s),
            _host_text(profile, size),
        )


def order_text(order: Sequence[str]) -> str:
    """A ring's GPUs, those in the middle left out where they are many."""
    return " ".join(order) if len(order) <= 8 else f"{' '.join(order[:7])} ... {order[-1]}"


def _kind_text(interconnect: Interconnect) -> str:
    gen = f" gen {interconnect.pcie_gen}" if interconnect.pcie_gen else ""
    sockets = ", across sockets" if interconnect.crosses_sockets else ""
    host = ", through host memory" if interconnect.through_host else ""
    return f"{interconnect.kind}{gen}{sockets}{host}"


def _host_text(profile: HardwareProfile, size: int) -> str:
    try:
        return format_bandwidth(profile.topology.interconnect(size, p2p=False).bandwidth_bytes_per_s)
    except InputError:
        return "no host"


def number_parts(profile: HardwareProfile) -> Iterator[RenderableType]:
    """Every number of the device and of the blocks of constants, those of one source below it."""
    numbers = [(path, value, profile.provenance.get(path)) for path, value in profile_numbers(profile)]
    for (kind, source), rows in groupby(numbers, lambda row: (_kind_of(row[2]), _source_text(row[2]))):
        # A block's source is long and holds for many numbers: it is said once.
        yield Text(f"\n{kind}: {source}", style="italic")
        grid = Table.grid(padding=(0, 2, 0, 0))
        for path, value, _ in rows:
            grid.add_row(Text(path, overflow="fold"), Text(value))
        yield Padding(grid, (0, 2), expand=False)


def _kind_of(provenance: Provenance | None) -> str:
    return _UNKNOWN if provenance is None else str(provenance.kind)


def _source_text(provenance: Provenance | None) -> str:
    if provenance is None:
        return _UNKNOWN
    if provenance.residual is None:
        return provenance.source
    of_fit = provenance.kind is not ProvenanceKind.ASSUMED
    return f"{provenance.source} ({'mean' if of_fit else 'assumed'} error {provenance.residual:.1%})"


def profile_numbers(profile: HardwareProfile) -> Iterator[tuple[str, str]]:
    """Dotted path and formatted value of every number outside the topology."""
    for block in BLOCKS:
        record = getattr(profile, block)
        for field in dataclasses.fields(record) if record is not None else ():
            path, value = f"{block}.{field.name}", getattr(record, field.name)
            # A number that the file leaves out has no source, and stands for "none of it".
            if path in profile.provenance or value != field.default:
                yield from _numbers(path, field.name, value)


def _numbers(path: str, field: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            named = field if dimension_of_field(field) is not Dimension.DIMENSIONLESS else str(key)
            yield from _numbers(f"{path}.{key}", named, inner)
    elif isinstance(value, int | float):
        yield path, format_quantity(value, dimension_of_field(field), digits=5)
