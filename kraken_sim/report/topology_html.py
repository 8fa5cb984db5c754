"""A machine as a page: its picture, the best ring, its links with their sources, and its groups of GPUs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from kraken_sim.report.page import Facts, Headline, Page, PageBlock, Plot, Section, TextTable
from kraken_sim.report.profiles import GROUP_COLUMNS, group_rows, order_text
from kraken_sim.report.topology import LABELS, topology_figure
from kraken_sim.report.topology_part import drawn_part
from kraken_sim.units import format_bandwidth, format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.hardware.topology.graph import Link
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.profiles.profile import HardwareProfile

_MOST_NAMED: Final = 16
"""Most GPUs of a ring that are named one by one; a limit of ours."""


def topology_page(profile: HardwareProfile) -> Page:
    """A page with the machine's picture, its links with their sources, and what groups of GPUs communicate over."""
    topology = profile.topology
    part = drawn_part(topology)
    sentences = [profile.description, *_ring_sentences(topology)]
    if part is not topology:
        some, everything = len(part.gpus), len(topology.gpus)
        sentences.append(
            f"Drawn are {some} of its {everything} GPUs, what they hang on, and the best ring through them."
        )
    drawing = Plot(topology_figure(part), "Lines are as wide as their bandwidth; point at one for its numbers")
    sections = [
        Section("The machine", [drawing]),
        Section("Links, bandwidth in one direction", _links_blocks(profile)),
        Section("Groups of GPUs", [TextTable("", GROUP_COLUMNS, list(group_rows(profile)), num_left=3)]),
    ]
    return Page("Machine", profile.name, sections, _headline(profile), sentences)


def _headline(profile: HardwareProfile) -> Headline:
    """What its GPUs get from one another, or what a GPU that is alone gets from its memory."""
    gpus, device = len(profile.topology.gpus), profile.device
    if gpus < 2:
        rate = format_bandwidth(device.hbm_bandwidth_bytes_per_s, 3)
        return Headline(rate, f"the memory of one {device.name}, {format_bytes(device.hbm_capacity_bytes, 3)}")
    ring = profile.topology.best_ring(gpus)
    return Headline(
        format_bandwidth(ring.total_bytes_per_s, 3),
        f"a GPU, in one direction, on the best rings through all {gpus} x {device.name}",
        why=f"The slowest link of the best ring, {ring.slowest}, limits it.",
    )


def _ring_sentences(topology: Topology) -> list[str]:
    if len(topology.gpus) < 2:
        return ["One GPU communicates with nobody."]
    ring = topology.best_ring(len(topology.gpus))
    further = ""
    if ring.further_bytes_per_s > 0.0:
        further = f"; further rings over the links that it leaves make it {format_bandwidth(ring.total_bytes_per_s)}"
    return [
        f"The best ring through all {len(ring.order)} GPUs is {_order(ring.order)}. It carries "
        f"{format_bandwidth(ring.bandwidth_bytes_per_s)} a GPU in one direction, limited by {ring.slowest}{further}."
    ]


def _order(order: Sequence[str]) -> str:
    return " ".join(order) if len(order) <= _MOST_NAMED else order_text(order)


def _links_blocks(profile: HardwareProfile) -> list[PageBlock]:
    """A table with a row for all links of one entry of the file that are alike, and where its numbers are from."""
    alike: dict[tuple[object, ...], list[Link]] = defaultdict(list)
    for link in profile.topology.links:
        alike[link.entry, link.kind, link.count, link.bandwidth_bytes_per_s, link.latency_s].append(link)
    sources: dict[str, int] = {}

    def number(link: Link, field: str) -> str:
        where = profile.provenance.get(f"{link.entry}.{field}")
        text = "unknown" if where is None else f"{where.kind}: {where.source}"
        return f"[{sources.setdefault(text, len(sources) + 1)}]"

    rows = [
        (*_links_row(links), number(links[0], "bandwidth"), number(links[0], "latency")) for links in alike.values()
    ]
    columns = ("from", "to", "kind", "pairs", "links", "one link", "together", "latency", "bandwidth is", "latency is")
    listed = [(f"[{index}]", text) for text, index in sources.items()]
    return [TextTable("", columns, rows, num_left=3), Facts(listed, sentences=True)]


def _links_row(links: Sequence[Link]) -> tuple[str, ...]:
    first = links[0]
    return (
        _span([link.a for link in links]),
        _span([link.b for link in links]),
        LABELS[first.kind] + (f" gen {first.pcie_gen}" if first.pcie_gen else ""),
        str(len(links)),
        str(first.count),
        format_bandwidth(first.bandwidth_bytes_per_s),
        format_bandwidth(first.total_bytes_per_s),
        format_seconds(first.latency_s),
    )


def _span(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    return different[0] if len(different) == 1 else f"{different[0]} ... {different[-1]}"
