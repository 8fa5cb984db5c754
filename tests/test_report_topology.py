"""The drawing of a machine: nothing lies on anything else, and every link ends where it should."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from topology_support import MACHINES, cluster, nvswitch_box

from kraken_sim.cli import main
from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.profiles.load import list_profiles, load_profile
from kraken_sim.report.render import render
from kraken_sim.report.topology import topology_figure
from kraken_sim.report.topology_html import topology_page
from kraken_sim.report.topology_layout import layout

if TYPE_CHECKING:
    from pathlib import Path

DRAWN = {
    **{name: load_profile(name).topology for name in list_profiles()},
    **MACHINES,
    "three nodes": cluster(3, gpus=4, rails=2),
    "planes": nvswitch_box(16, 18, planes=6),
}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_no_node_lies_on_another(name: str) -> None:
    topology = DRAWN[name]
    plan = layout(topology)
    assert plan.places.keys() == topology.kinds.keys()
    for a, b in itertools.combinations(plan.places.values(), 2):
        touching = a.left < b.right + 1e-9 and b.left < a.right + 1e-9
        assert not touching or abs(a.y - b.y) > 0.3


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_switches_stand_above_the_gpus_and_hosts_below(name: str) -> None:
    topology = DRAWN[name]
    heights = {node: place.y for node, place in layout(topology).places.items()}
    for node, kind in topology.kinds.items():
        if kind in (NodeKind.NVSWITCH, NodeKind.NETWORK_SWITCH):
            assert heights[node] > 0
        elif kind is not NodeKind.GPU:
            assert heights[node] < 0
    for link in topology.links:
        if link.kind is LinkKind.PCIE and topology.kinds[link.b] is NodeKind.HOST:
            assert heights[link.a] > heights[link.b]


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_bar_reaches_over_everything_that_it_joins(name: str) -> None:
    topology = DRAWN[name]
    places = layout(topology).places
    for link in topology.links:
        a, b = places[link.a], places[link.b]
        if link.kind is not LinkKind.SOCKET and (a.is_bar or b.is_bar):
            wide, narrow = (a, b) if a.right - a.left >= b.right - b.left else (b, a)
            assert wide.left <= narrow.x <= wide.right


def test_the_legend_names_each_kind_once_and_the_ring() -> None:
    figure = topology_figure(load_profile("h100-sxm-2x8").topology)
    shown = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert sorted(shown) == sorted(set(shown))
    assert {"NVLink", "PCIe", "network", "between sockets", "GPU", "NIC", "best ring through all GPUs"} <= set(shown)


def test_the_ring_of_a_cube_mesh_is_drawn_over_eight_doubled_links() -> None:
    figure = topology_figure(MACHINES["cube mesh"])
    arcs = next(trace for trace in figure.data if trace.name == "best ring through all GPUs")
    assert arcs.x.count(None) == 8


def test_wider_links_are_drawn_wider() -> None:
    def width(name: str) -> float:
        figure = topology_figure(load_profile(name).topology)
        return float(max(trace.line.width for trace in figure.data if trace.name == "NVLink"))

    assert width("v100-dgx1-x8") < width("a100-sxm4-80gb-x8") < width("h100-sxm-x8") < width("b200-sxm-x8")


def test_every_link_says_its_numbers_where_one_points_at_it() -> None:
    topology = load_profile("h100-sxm-x8").topology
    texts = [text for trace in topology_figure(topology).data if trace.hoverinfo != "skip" for text in trace.text or ()]
    assert "gpu0 - nvswitch\nNVLink: 18 x 25 GB/s = 450 GB/s in one direction\n250 ns" in texts
    assert sum(" in one direction" in text for text in texts) == len(topology.links)


def test_the_page_has_the_numbers_and_where_they_are_from() -> None:
    page = render(topology_page(load_profile("h100-sxm-2x8")))
    for part in ("ConnectX-7", "400 GB/s", "NCCL src/graph/tuning.cc", "rail0 ... rail7", "gpu0 ... gpu15"):
        assert part in page


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    out = tmp_path / "new" / "machine.html"
    assert main(["profiles", "show", "v100-dgx1-x8", "--html", str(out)]) == 0
    assert "best ring through all 8 GPUs" in out.read_text(encoding="utf-8")
