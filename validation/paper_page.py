"""The tables of docs/paper.md, from the tool itself: `python -m validation.paper_page` writes them anew."""

from __future__ import annotations

import argparse
import re
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.paper.experiment import geomean_percent, load_grid, run_grid
from kraken_sim.paper.grid import KINDS, KRAKEN, PARALLEL
from kraken_sim.paper.summary import effects, mean_by_degree, speedups_percent
from kraken_sim.report.paper import grid_headline, in_order, what_it_rests_on, where_it_pays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.paper.experiment import GridResult

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "paper.md"
MACHINES: Final = ("paper_grid", "paper_grid_h100", "paper_grid_h200", "paper_grid_l40s")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text and the others numbers."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def bullets(lines: Iterable[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def cells_block(result: GridResult) -> str:
    """The main prediction's cells."""
    header = ("model", "devices", "tokens", "width", "standard, ms", "parallel, ms", "Kraken, ms", "parallel", "Kraken")
    rows = [
        (
            cell.model,
            str(cell.num_devices),
            str(cell.context_length),
            str(cell.predictions[KRAKEN].resolved.layout.block.hidden_size),
            *(f"{1e3 * cell.ttft_s[kind]:.4g}" for kind in KINDS),
            *(f"{cell.speedup_percent(kind):+.1f} %" for kind in (PARALLEL, KRAKEN)),
        )
        for cell in result.cells
    ]
    return table(header, rows) + "\n\n" + bullets(grid_headline(result))


def effects_block(result: GridResult) -> str:
    """What every assumption does to the mean, and what the result rests on."""
    header = ("assumption", "in words", "points", "mean", "cells")
    rows = [
        (
            f"`{effect.name}`" + (f" on `{effect.change_of}`" if effect.change_of else ""),
            effect.description,
            f"{effect.points:+.1f}",
            f"{effect.mean_percent:.1f} %",
            f"{effect.min_percent:.1f} to {effect.max_percent:.1f} %",
        )
        for effect in in_order(effects(result))
    ]
    return table(header, rows, left=2) + "\n\n" + bullets(what_it_rests_on(result))


def machines_block(results: Mapping[str, GridResult]) -> str:
    """The main set-up of every machine side by side."""
    rows = []
    for name, result in results.items():
        each, shares = speedups_percent(result.cells), [cell.all_reduce_share for cell in result.cells]
        rows.append(
            (
                f"`{name}`",
                result.grid.hardware,
                *(f"{mean:.1f} %" for mean in mean_by_degree(result.cells).values()),
                f"{geomean_percent(result.cells):.1f} %",
                f"{min(each):.1f} to {max(each):.1f} %",
                f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %",
            )
        )
    return table(("grid", "machine", "4-way", "8-way", "mean", "cells", "AllReduce of standard"), rows, left=2)


def interconnects_block(result: GridResult) -> str:
    """Kraken's mean speed-up by interconnect, degree and context length, and where it pays."""
    groups = list(product(result.grid.num_devices, result.grid.context_lengths))
    header = ["interconnect", "GB/s a GPU", *(f"{n}-way, {tokens}" for n, tokens in groups), "mean", "cells"]
    rows = []
    for spec, cells in result.interconnects:
        each = speedups_percent(cells)
        chosen = ([cell for cell in cells if (cell.num_devices, cell.context_length) == group] for group in groups)
        means = [f"{geomean_percent(group):+.0f} %" for group in (*chosen, cells)]
        rate = f"{spec.device_bytes_per_s * 1e-9:.4g}"
        rows.append((spec.name, rate, *means, f"{min(each):.0f} to {max(each):.0f} %"))
    return table(header, rows) + "\n\n" + bullets(where_it_pays(result))


def blocks() -> dict[str, str]:
    """Every generated part of the page, by the name in its markers.

    Raises:
        InputError, InfeasibleError: see `run_grid`.
    """
    machines = {name: run_grid(load_grid(name)) for name in MACHINES}
    main = machines[MACHINES[0]]
    return {
        "cells": cells_block(main),
        "effects": effects_block(main),
        "machines": machines_block(machines),
        "interconnects": interconnects_block(run_grid(load_grid("paper_grid_interconnects"))),
    }


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with what stands between its markers replaced.

    Raises:
        InputError: the page has no markers for a part.
    """
    for name, text in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not pattern.search(page):
            raise InputError.single("", f"the page has no <!-- {name} --> ... <!-- end of {name} -->")
        page = pattern.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)  # type: ignore[misc]
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page anew."""
    parser = argparse.ArgumentParser(prog="python -m validation.paper_page", description=__doc__)
    parser.add_argument("--page", metavar="FILE", default=str(PAGE), help="the page (default: docs/paper.md)")
    page = Path(parser.parse_args(argv).page)
    try:
        page.write_text(filled(page.read_text(encoding="utf-8"), blocks()), encoding="utf-8")
    except (KrakenSimError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
