"""The gains of architectures over the first one, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.report.figures import BAR_WIDTH, INK, row_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.explore.architectures import Rival


def gains_figure(rivals: Sequence[Rival]) -> Any:
    """Bars of the gains with their intervals; points where parameters are equal."""
    shown = [rival for rival in rivals if rival.prediction is not rival.base]
    gains = [100.0 * rival.gain for rival in shown]
    base = shown[0].base.resolved.kind if shown else "standard"
    names = [
        f"{rival.kind}: {100.0 * rival.gain_at_equal_parameters:+.1f} %"
        + ("" if rival.equal is None else " at equal parameters")
        for rival in shown
    ]
    figure = row_figure(names, xaxis={"title": {"text": f"faster than {base}, %"}})
    figure.add_bar(
        name="as built, with its 90 % interval",
        y=list(range(len(shown))),
        x=gains,
        orientation="h",
        width=BAR_WIDTH,
        marker_color=["#0072b2"] * len(shown),
        hovertemplate="%{x:+.1f} %<extra>as built</extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100.0 * rival.interval[1] - gain for rival, gain in zip(shown, gains, strict=True)],
            "arrayminus": [gain - 100.0 * rival.interval[0] for rival, gain in zip(shown, gains, strict=True)],
            "color": INK,
            "thickness": 1.5,
        },
    )
    equal = [(row, rival) for row, rival in enumerate(shown) if rival.equal is not None]
    if equal:
        figure.add_scatter(
            name="at equal parameters",
            y=[row for row, _ in equal],
            x=[100.0 * rival.gain_at_equal_parameters for _, rival in equal],
            mode="markers",
            marker={"color": "#d55e00", "size": 12, "symbol": "diamond", "line": {"color": INK, "width": 1}},
            hovertemplate="%{x:+.1f} %<extra>at equal parameters</extra>",
        )
    return figure
