"""Learning curves of runs as one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from kraken_sim.files.whole import write_whole
from kraken_sim.report.figures import DASHES, PALETTE
from kraken_sim.report.page import Headline, Page, Plot, Section, table_section
from kraken_sim.report.render import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kraken_sim.report.page import TextTable

Log = list[dict[str, Any]]

MOST_NAMED: Final = 3
"""Runs that a headline names beside the best; a choice of ours."""


def curves(logs: Mapping[str, Log], key: str, title: str, colours: Mapping[str, str] | None = None) -> go.Figure:
    """One line a run of a logged value over the tokens seen, both axes logarithmic where that helps."""
    figure = go.Figure()
    for index, (name, log) in enumerate(logs.items()):
        lines = [line for line in log if line.get(key) is not None]
        colour = (colours or {}).get(name, PALETTE[index % len(PALETTE)])
        dash = DASHES[index // len(PALETTE) % len(DASHES)]
        x, y = [line["tokens"] for line in lines], [line[key] for line in lines]
        mode = "lines" if len(x) > 1 else "markers"
        figure.add_scatter(x=x, y=y, name=name, mode=mode, line={"color": colour, "dash": dash})
    figure.update_layout(height=420, showlegend=True, xaxis_title="tokens", yaxis_title=title)
    return figure


def write_curves(
    path: Path,
    title: str,
    logs: Mapping[str, Log],
    *,
    sentences: Sequence[str] = (),
    tables: Sequence[TextTable] = (),
    colours: Mapping[str, str] | None = None,
) -> None:
    """A page of tables, and of curves of validation, training, and speed."""
    shown = [
        ("Validation loss", "validation_loss", "nats a token"),
        ("Training loss", "loss", "nats a token"),
        ("Learning rate", "learning_rate", "rate"),
        ("Speed", "tokens_per_s", "tokens a second"),
    ]
    sections = [table_section(table) for table in tables]
    for heading, key, unit in shown:
        sections.append(Section(heading, [Plot(curves(logs, key, unit, colours), f"{heading} over tokens seen")]))
    write_whole(path, render(Page("Training", title, sections, _headline(logs), sentences)).encode())


def _headline(logs: Mapping[str, Log]) -> Headline | None:
    """The lowest of the runs' last validation losses, and the next ones; None where none was logged."""
    last = {name: losses[-1] for name, log in logs.items() if (losses := _logged(log, "validation_loss"))}
    if not last:
        return None
    best, *others = sorted(last, key=last.__getitem__)
    listed = ", ".join(f"{name} {last[name]:.3f}" for name in others[:MOST_NAMED])
    what = f"nats a token: the lowest last validation loss of {len(last)} runs, that of {best}"
    return Headline(f"{last[best]:.3f}", what, why=f"The next: {listed}." if others else "It is the only run.")


def _logged(log: Log, key: str) -> list[float]:
    return [line[key] for line in log if line.get(key) is not None]
