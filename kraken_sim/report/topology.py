"""A machine as a picture: its nodes, its links and their bandwidth, and the best ring."""

from __future__ import annotations

import re
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.hardware.topology.graph import Link, LinkKind, NodeKind
from kraken_sim.report.figures import PALETTE
from kraken_sim.report.topology_layout import MachinePlan, arc_height, gpu_pairs, layout
from kraken_sim.units import format_bandwidth, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.hardware.topology.rings import Ring
    from kraken_sim.hardware.topology.topology import Topology

LINK_COLOURS: Final[Mapping[LinkKind, str]] = {
    LinkKind.NVLINK: "#009e73",
    LinkKind.PCIE: "#56b4e9",
    LinkKind.SOCKET: "#7d5a3c",
    LinkKind.C2C: "#cc79a7",
    LinkKind.NETWORK: "#d55e00",
}
NODE_COLOURS: Final[Mapping[NodeKind, str]] = {
    NodeKind.GPU: "#0072b2",
    NodeKind.NVSWITCH: "#00785a",
    NodeKind.PCIE_SWITCH: "#3d7ea6",
    NodeKind.HOST: "#767676",
    NodeKind.NIC: "#b34700",
    NodeKind.NETWORK_SWITCH: "#a05a1a",
}
LABELS: Final[Mapping[str, str]] = {
    "gpu": "GPU",
    "nvswitch": "NVSwitch",
    "pcie_switch": "PCIe switch",
    "host": "host (a socket)",
    "nic": "NIC",
    "network_switch": "network switch",
    "nvlink": "NVLink",
    "pcie": "PCIe",
    "socket": "between sockets",
    "c2c": "NVLink-C2C",
    "network": "network",
}
RING_COLOUR: Final = PALETTE[4]
"""Of the best ring; a choice of ours."""

_ROW_PX: Final = 52
"""Height of a row of the drawing."""

_MOST_SLOT_PX: Final = 84.0
"""Greatest width of a slot."""

_PAGE_PX: Final = 950.0
"""Width of a drawing on a wide screen; the page's script shrinks its marks on others."""

_NAMES_PX: Final = 120
"""Left of the drawing, where a wide screen has the names of its rows."""

_BAR: Final = 0.17
"""Half the height of a bar, in rows."""

_ARC_POINTS: Final = 24
"""Points of an arc."""


_SWITCHES: Final = (NodeKind.NVSWITCH, NodeKind.NETWORK_SWITCH)


def topology_figure(topology: Topology) -> Any:
    """The picture: bars for what joins others, lines as wide as their bandwidth, the best ring behind them."""
    plan = layout(topology)
    slots = max(plan.width, _PAGE_PX / _MOST_SLOT_PX) + 0.8
    slot_px = _PAGE_PX / slots
    figure = go.Figure()
    _add_links(figure, topology, plan)
    _add_bars(figure, topology, plan, slot_px)
    _add_points(figure, topology, plan, slot_px)
    heights = [place.y for place in plan.places.values()]
    arcs = [arc_height(plan.places[a].x, plan.places[b].x) for a, b in gpu_pairs(topology)]
    top = max(heights + arcs)
    for kind, y in plan.rows.items():
        label = LABELS[kind].removesuffix(" (a socket)")
        figure.add_annotation(x=0, xref="paper", xanchor="right", xshift=-8, y=y, text=label, showarrow=False)
    figure.update_layout(
        height=round((top - min(heights) + 1.2) * _ROW_PX) + 60,
        meta={"slots": slots, "names_px": _NAMES_PX},
        xaxis={"visible": False, "range": [-0.9, slots - 0.9]},
        yaxis={"visible": False, "range": [min(heights) - 0.6, top + 0.6]},
    )
    return figure


# Links ------------------------------------------------------------------------------------------------------


def _add_links(figure: Any, topology: Topology, plan: MachinePlan) -> None:
    """One trace for all links that look alike, behind them the best ring, and points to hover over."""
    on_ring = _ring_keys(topology)
    paths = [(link, _path(topology, plan, link)) for link in topology.links]
    ringed = [(link, path) for link, path in paths if _key(topology, link) in on_ring]
    for width in sorted({_width(link) for link, _ in ringed}):
        chosen = [path for link, path in ringed if _width(link) == width]
        line = {"color": RING_COLOUR, "width": width + 6}
        _add_lines(figure, chosen, line, "best ring through all GPUs", width == min(_width(link) for link, _ in ringed))
    shown: set[LinkKind] = set()
    for kind, width in sorted({(link.kind, _width(link)) for link, _ in paths}):
        chosen = [path for link, path in paths if (link.kind, _width(link)) == (kind, width)]
        line = {"color": LINK_COLOURS[kind], "width": width}
        _add_lines(figure, chosen, line, LABELS[kind], kind not in shown)
        shown.add(kind)
    middles = [path[len(path) // 2] if len(path) > 2 else _middle(path) for _, path in paths]
    figure.add_scatter(
        x=[x for x, _ in middles],
        y=[y for _, y in middles],
        mode="markers",
        marker={"size": 12, "opacity": 0},
        text=[_hover(link) for link, _ in paths],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _add_lines(figure: Any, paths: Sequence[Sequence[tuple[float, float]]], line: Any, name: str, legend: bool) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for path in paths:
        xs += [*(x for x, _ in path), None]
        ys += [*(y for _, y in path), None]
    figure.add_scatter(
        x=xs, y=ys, mode="lines", line=line, name=name, legendgroup=name, showlegend=legend, hoverinfo="skip"
    )


def _middle(path: Sequence[tuple[float, float]]) -> tuple[float, float]:
    (ax, ay), (bx, by) = path
    return (ax + bx) / 2.0, (ay + by) / 2.0


def _width(link: Link) -> float:
    """1.6 px for 25 GB/s, 5 px for 450 GB/s."""
    return round(float(1.2 * (link.total_bytes_per_s / 12.5e9) ** 0.4), 1)


def _hover(link: Link) -> str:
    gen = f" gen {link.pcie_gen}" if link.pcie_gen else ""
    each = f"{link.count} x {format_bandwidth(link.bandwidth_bytes_per_s)} = " if link.count > 1 else ""
    rate = f"{each}{format_bandwidth(link.total_bytes_per_s)} in one direction"
    return f"{link.a} - {link.b}\n{LABELS[link.kind]}{gen}: {rate}\n{format_seconds(link.latency_s)}"


def _path(topology: Topology, plan: MachinePlan, link: Link) -> list[tuple[float, float]]:
    """The points that a link's line runs through."""
    a, b = plan.places[link.a], plan.places[link.b]
    if topology.kinds[link.a] is topology.kinds[link.b] is NodeKind.GPU:
        return list(_arc(a.x, b.x))
    if link.kind is LinkKind.SOCKET and a.y == b.y:
        left, right = (a, b) if a.x < b.x else (b, a)
        return [(left.right, left.y), (right.left, right.y)]
    x = min((a, b), key=lambda place: place.right - place.left).x
    upper, lower = (a, b) if a.y > b.y else (b, a)
    return [(x, upper.y - _BAR * upper.is_bar), (x, lower.y + _BAR * lower.is_bar)]


def _arc(a: float, b: float) -> Iterator[tuple[float, float]]:
    """An arc over the row of GPUs."""
    for step in range(_ARC_POINTS + 1):
        angle = pi * step / _ARC_POINTS
        yield (a + b) / 2.0 - (b - a) / 2.0 * cos(angle), arc_height(a, b) * sin(angle)


def _key(topology: Topology, link: Link) -> tuple[LinkKind, frozenset[str]]:
    """Switches that join the same nodes work as one: the key tells their links from others only by the other end."""
    names = (link.a, link.b)
    return link.kind, frozenset(topology.kinds[n] if topology.kinds[n] in _SWITCHES else n for n in names)


def _ring_keys(topology: Topology) -> set[tuple[LinkKind, frozenset[str]]]:
    if len(topology.gpus) < 2:
        return set()
    ring: Ring = topology.best_ring(len(topology.gpus))
    return {_key(topology, link) for hop in ring.hops for link in hop.links}


# Nodes ------------------------------------------------------------------------------------------------------


def _add_bars(figure: Any, topology: Topology, plan: MachinePlan, slot_px: float) -> None:
    for kind in NodeKind:
        bars = [n for n in topology.nodes if n.kind is kind and plan.places[n.name].is_bar]
        for node in bars:
            place = plan.places[node.name]
            corners = {"x0": place.left, "x1": place.right, "y0": place.y - _BAR, "y1": place.y + _BAR}
            figure.add_shape(type="rect", **corners, fillcolor=NODE_COLOURS[kind], line_width=0, layer="below")
        if bars:
            middles = [plan.places[node.name] for node in bars]
            texts = [_fitting(node.name, (p.right - p.left) * slot_px) for node, p in zip(bars, middles, strict=True)]
            spans = {"spans": [place.right - place.left for place in middles]}
            _add_nodes(figure, [n.name for n in bars], middles, texts, kind, {"size": 9, "symbol": "square"}, 11, spans)


def _fitting(name: str, width_px: float) -> str:
    """The name, else its number, else nothing: what has room in a bar."""
    number = re.sub(r"^\D*", "", name)
    return next((text for text in (name, number) if text and 7.5 * len(text) <= width_px), "")


def _add_points(figure: Any, topology: Topology, plan: MachinePlan, slot_px: float) -> None:
    size = min(34.0, 0.8 * slot_px)
    for kind, symbol, scale in ((NodeKind.GPU, "square", 1.0), (NodeKind.NIC, "diamond", 0.55)):
        names = [node.name for node in topology.nodes if node.kind is kind]
        if names:
            texts = [re.sub(r"^\D*", "", name) if kind is NodeKind.GPU else "" for name in names]
            marker = {"size": scale * size, "symbol": symbol}
            places, font = [plan.places[name] for name in names], round(min(13.0, size / 1.9))
            _add_nodes(figure, names, places, texts, kind, marker, font, {"size": 0.8 * scale})


def _add_nodes(
    figure: Any,
    names: Sequence[str],
    places: Sequence[Any],
    texts: Sequence[str],
    kind: NodeKind,
    marker: Any,
    font: int,
    meta: Mapping[str, Any],
) -> None:
    """Nodes of a kind; of `meta` the page's script takes how large they are in slots."""
    figure.add_scatter(
        x=[place.x for place in places],
        y=[place.y for place in places],
        mode="markers+text",
        marker={"color": NODE_COLOURS[kind], "opacity": 1, **marker},
        text=texts,
        textfont={"color": "white", "size": font},
        customdata=names,
        meta=meta,
        hovertemplate=f"%{{customdata}}<extra>{LABELS[kind]}</extra>",
        name=LABELS[kind],
    )
