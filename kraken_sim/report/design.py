"""The Pareto front of a search as a table and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Group

from kraken_sim.explore.design.request import Objective
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.report.explore import percent, sureness
from kraken_sim.report.page import PALETTE, Grid, figures_html, render_page
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kraken_sim.explore.design.search import Evaluated, SearchResult

_AXES: Final = {
    Objective.TTFT: ("TTFT, ms", 1e3),
    Objective.TPOT: ("TPOT, ms", 1e3),
    Objective.ENERGY: ("energy of the GPUs, J a step", 1.0),
    Objective.COST: ("cost a million tokens", 1.0),
    Objective.MEMORY: ("memory a device, GB", 1e-9),
    Objective.GPUS: ("GPUs", 1.0),
    Objective.PARAMETERS: ("parameters, B", 1e-9),
    Objective.WIDTH: ("hidden_size", 1.0),
    Objective.DEPTH: ("layers", 1.0),
}
MOST_ROWS: Final = 20


def design_report(result: SearchResult) -> RenderableType:
    """How it was searched, the front, and how sure its fastest is."""
    return Group(_grid(result).rich(), *_sentences(result))


def design_html(result: SearchResult) -> str:
    """The same as a page, with every design that was evaluated."""
    picture = figures_html([front_figure(result)])[0]
    sections = [("Every design that keeps the constraints", picture), ("The front", _grid(result).html())]
    return render_page(f"Designs: {result.request.name}", _sentences(result), sections)


def _grid(result: SearchResult) -> Grid:
    columns = ["architecture", "machine", "layers", "width", "heads (q/kv x dim)", "FFN", "channels"]
    columns += ["TPOT" if _decodes(result) else "TTFT", "90 % interval", "parameters", "GB/GPU", "J/step"]
    priced = any(item.cost is not None for item in result.front)
    if priced:
        columns.append(f"{result.request.currency}/M tokens")
    rows = []
    for item in result.front[:MOST_ROWS]:
        design = item.design
        kraken = design.kind is ArchitectureKind.KRAKEN
        row = [
            design.kind.value,
            f"{design.num_devices} x {design.hardware}",
            str(design.num_hidden_layers),
            f"{design.ways} x {design.hidden_size}" if kraken else str(design.hidden_size),
            f"{design.num_attention_heads}/{design.num_key_value_heads} x {design.head_dim}",
            str(design.intermediate_size),
            "default" if design.channels is None else str(design.channels),
            format_seconds(item.latency_s),
            f"{format_seconds(item.low_s, 3)} to {format_seconds(item.high_s, 3)}",
            f"{item.num_parameters / 1e9:.2f} B",
            f"{1e-9 * item.memory_bytes:.3g}",
            f"{item.energy_j:.3g}",
        ]
        rows.append([*row, f"{item.cost:.3g}"] if priced and item.cost is not None else row)
    listed = ", ".join(objective.value for objective in result.request.objectives)
    return Grid(f"{result.request.name}: nothing else is better in all of {listed}", columns, rows, num_left=2)


def _decodes(result: SearchResult) -> bool:
    return result.request.base.phase.value == "decode"


def _sentences(result: SearchResult) -> list[str]:
    sentences = [
        f"Searched {result.method}; {len(result.evaluated)} keep the constraints, {len(result.front)} are best."
    ]
    if not result.complete:
        sentences.append("Interrupted: the front is that of the designs tried so far.")
    if result.rejections.counts:
        parts = []
        for constraint, count in result.rejections.counts.most_common():
            parts.append(f"{count} by {constraint} ({result.rejections.nearest[constraint][1]})")
        sentences.append(f"Rejected: {'; '.join(parts)}.")
    if len(result.front) > MOST_ROWS:
        sentences.append(f"The first {MOST_ROWS} of the front are shown; --json has all.")
    if result.decision is not None:
        decision = result.decision
        sentences.append(f"Fastest: {sureness(decision, dict.fromkeys(decision.predictions, 1.0), decision.best)}")
        others = [(name, chance) for name, chance in decision.probability.items() if name != decision.best]
        listed = "; ".join(f"{name} ({percent(chance, 0)})" for name, chance in others[:2])
        sentences.append(f"The next: {listed}.")
    if any(item.energy_basis.startswith("assumed") for item in result.front):
        sentences.append("Energy without a power model in the profile is the TDP all the time, an upper bound.")
    sentences.append("Parameters, width and depth only stand in for quality, which nothing here predicts.")
    return sentences


def front_figure(result: SearchResult) -> Any:
    """Designs over the first two objectives, by architecture, and the front through them."""
    import plotly.graph_objects as go

    objectives = (*result.request.objectives, Objective.PARAMETERS, Objective.MEMORY)
    x_axis = objectives[0]
    y_axis = next(objective for objective in objectives[1:] if objective is not x_axis)
    figure = go.Figure()
    for kind, colour in zip(ArchitectureKind, PALETTE, strict=False):
        chosen = [item for item in result.evaluated if item.design.kind is kind]
        if chosen:
            marker = {"color": colour, "size": 7, "opacity": 0.55}
            _add_points(figure, kind.value, chosen, x_axis, y_axis, {"mode": "markers", "marker": marker})
    front = sorted(result.front, key=lambda item: item.value(x_axis))
    ring = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": "#222", "width": 1.5}}
    style = {"mode": "lines+markers", "marker": ring, "line": {"color": "#222", "width": 1, "dash": "dot"}}
    _add_points(figure, "front", front, x_axis, y_axis, style)
    figure.update_layout(
        template="plotly_white",
        height=520,
        margin={"t": 30},
        xaxis_title=_AXES[x_axis][0],
        yaxis_title=_AXES[y_axis][0],
    )
    return figure


def _add_points(
    figure: Any, name: str, items: Sequence[Evaluated], x_axis: Objective, y_axis: Objective, style: dict[str, Any]
) -> None:
    figure.add_scatter(
        name=name,
        x=[item.value(x_axis) * _AXES[x_axis][1] for item in items],
        y=[item.value(y_axis) * _AXES[y_axis][1] for item in items],
        text=[item.design.label for item in items],
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}",
        **style,
    )
