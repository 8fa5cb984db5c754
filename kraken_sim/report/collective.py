"""A collective's table as nccl-tests prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.report.page import TextTable
from kraken_sim.units import format_bandwidth, format_bytes, format_seconds

if TYPE_CHECKING:
    from kraken_sim.standalone.collective_table import CollectiveRow, CollectiveTable

_HEAD = (
    f"#{'size':>11}{'count':>14}{'type':>10}{'redop':>8}{'root':>8}{'time':>9}{'algbw':>8}{'busbw':>8}"
    f"  {'algorithm':<10}{'protocol':<9}{'channels':>8}"
)
_UNITS = f"#{'(B)':>11}{'(elements)':>14}{'':>26}{'(us)':>9}{'(GB/s)':>8}{'(GB/s)':>8}"
_INTERVAL = f"{'from':>10}{'to':>9}"
_INTERVAL_UNITS = f"{'(us)':>10}{'(us)':>9}"
_GB: Final = 1e9
"""Bytes of a gigabyte; a definition."""

NCCL_TESTS_WIDTH: Final = 129
"""Characters of a line of nccl-tests' columns with an interval; one beside measurements is longer."""

_LONGEST = 160
"""Characters of a note; a choice of ours."""


def collective_text(table: CollectiveTable) -> str:
    """The table; every line that is no row starts with #, as nccl-tests' do, so that its readers read this too."""
    measured = bool(table.errors)
    in_place = any(row.measured_in_place_s is not None for row in table.rows)
    lines = [
        f"# {table.op} on {table.num_devices} GPUs of {table.hardware}, {table.library}: predicted (90 %: from, to)",
        "#",
        _HEAD + (f"{'measured':>10}{'error':>9}" if measured else "") + _INTERVAL + (f"{'in-place':>10}" * in_place),
        _UNITS
        + f"{'':>29}"
        + (f"{'(us)':>10}{'(%)':>9}" if measured else "")
        + _INTERVAL_UNITS
        + f"{'(us)':>10}" * in_place,
        *(_line(row) for row in table.rows),
        f"# Avg bus bandwidth    : {table.average_busbw_gb_per_s:.4g}",
    ]
    worst = table.worst
    if table.mean_error is not None and worst is not None and worst.error is not None:
        lines.append(
            f"# Mean error           : {100 * table.mean_error:.1f} % of {len(table.errors)} measurements, "
            f"worst {100 * worst.error:+.1f} % at {worst.size_bytes} B"
        )
    lines += [_note("Never measured", text) for text in table.unmeasured]
    lines += [_note("Warning", text) for text in table.warnings]
    return "\n".join(lines) + "\n"


def collective_grid(table: CollectiveTable) -> TextTable:
    """The same for a terminal that has no room for nccl-tests' columns."""
    measured = bool(table.errors)
    columns = ["size", "time", "90 % interval", "algbw", "busbw", "algorithm, protocol, channels"]
    columns += ["measured", "error"] if measured else []
    rows = []
    for row in table.rows:
        cells = [
            format_bytes(row.size_bytes),
            format_seconds(row.time_s),
            f"{format_seconds(row.low_s, 3)} to {format_seconds(row.high_s, 3)}",
            format_bandwidth(row.algbw_gb_per_s * _GB),
            format_bandwidth(row.busbw_gb_per_s * _GB),
            f"{row.algorithm} {row.protocol} {row.channels}",
        ]
        if measured:
            known = row.measured_s is not None and row.error is not None
            cells += (
                [format_seconds(row.measured_s or 0.0), f"{100.0 * (row.error or 0.0):+.1f} %"] if known else ["", ""]
            )
        rows.append(cells)
    return TextTable(f"{table.op} on {table.num_devices} GPUs of {table.hardware}, {table.library}", columns, rows)


def collective_sentences(table: CollectiveTable) -> list[str]:
    """What stands below the table."""
    lines = [f"Average bus bandwidth: {format_bandwidth(table.average_busbw_gb_per_s * _GB)}."]
    worst = table.worst
    if table.mean_error is not None and worst is not None and worst.error is not None:
        lines.append(
            f"Mean error: {100.0 * table.mean_error:.1f} % of {len(table.errors)} measurements, worst "
            f"{100.0 * worst.error:+.1f} % at {format_bytes(worst.size_bytes)}."
        )
    lines += [f"Never measured: {text}" for text in table.unmeasured]
    return lines + [f"Warning: {text}" for text in table.warnings]


def _line(row: CollectiveRow) -> str:
    text = (
        f"{row.size_bytes:>12}{row.count:>14}{row.type:>10}{row.redop:>8}{row.root:>8}"
        f"{_short(row.time_s * 1e6):>9}{row.algbw_gb_per_s:>8.2f}{row.busbw_gb_per_s:>8.2f}"
        f"  {row.algorithm:<10}{row.protocol:<9}{row.channels:>8}"
    )
    if row.measured_s is not None and row.error is not None:
        text += f"{_short(row.measured_s * 1e6):>10}{100 * row.error:>+9.1f}"
    text += f"{_short(row.low_s * 1e6):>10}{_short(row.high_s * 1e6):>9}"
    if row.measured_in_place_s is not None:
        text += f"{_short(row.measured_in_place_s * 1e6):>10}"
    return text


def _note(title: str, text: str) -> str:
    return f"# {title:<20} : {text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}"


def _short(number: float) -> str:
    """Four digits or more, and no more than the column holds."""
    return f"{number:.2f}" if number < 1000 else f"{number:.1f}" if number < 100_000 else f"{number:.0f}"
