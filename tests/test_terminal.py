"""Tables in terminals of any width: nothing wider than the terminal, no word cut, no row without its label."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kraken_sim.cli import main
from kraken_sim.explore.architectures import side_by_side
from kraken_sim.predict.api import compare
from kraken_sim.predict.api import simulate as predict
from kraken_sim.report.comparison import comparison_report, winner
from kraken_sim.report.page import TextTable
from kraken_sim.report.text import prediction_report
from kraken_sim.scenario.spec import load_scenario

WIDTHS = (40, 60, 80, 200)

COLUMNS = ["architecture", "fastest: probability", "latency", "exposed communication", "90 % interval", "in words"]
ROWS = [
    [f"sync_point_{number}", f"{number} %", "28.84 ms", "67.02 us", "27.5 ms to 31.5 ms", f"{number} saves a lot " * 4]
    for number in range(9)
]
TABLE = TextTable("A title of a table that is longer than forty characters", COLUMNS, ROWS)


def drawn(renderable: object, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_is_no_wider_than_its_terminal_and_cuts_nothing(width: int) -> None:
    text = drawn(TABLE.rich(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    together = " ".join(text.split())
    for row in ROWS:
        for cell in row[:5]:
            assert cell in together
        assert together.count(f"{row[0][-1]} saves a lot") == 4


def test_a_part_of_a_table_leaves_out_rows_that_say_nothing_in_it() -> None:
    columns = ["block", "constant", "what it is now", "on records that no fit saw"]
    rows = [["gemm", "all", "", "5.2 %"], ["", "tile_s", "3.1 us -> 2.9 us", ""], ["", "and 2 more", "", ""],
            ["power", "all", "", ""]]  # fmt: skip
    text = drawn(TextTable("", columns, rows, num_left=2, groups=[0, 3]).rich(), 40)
    assert text.count("tile_s") == text.count("and 2 more") == 1
    assert text.count("gemm") == text.count("power") == 2
    assert "5.2 %" in text
    assert "3.1 us -> 2.9 us" in text


def test_a_table_with_room_is_drawn_whole_in_a_frame() -> None:
    lines = drawn(TABLE.rich(), 240).splitlines()
    assert any("sync_point_3" in line and "67.02 us" in line and "3 saves a lot" in line for line in lines)
    assert any(line.startswith("┏") for line in lines)


def test_prose_that_has_no_room_stands_below_with_its_label() -> None:
    text = drawn(TABLE.rich(), 100)
    assert "  sync_point_4: 4 saves a lot" in text
    assert text.index("in words") > text.index("sync_point_8")


def test_a_table_that_goes_on_below_itself_repeats_what_tells_rows_apart() -> None:
    table = TextTable("", ["machine", "GPUs", *"abcdefgh"], [["h100", str(n), *["12.34 ms"] * 8] for n in range(20)], 2)
    rows = [line.split() for line in drawn(table.rich(), 60).splitlines() if "12.34" in line]
    assert len(rows) == 40
    assert all(row[0] == "h100" and row[1].isdecimal() for row in rows)


def test_a_table_of_few_rows_and_many_columns_is_turned() -> None:
    table = TextTable("", ["kind", *"abcdefghij"], [["x", *["12.34 ms"] * 10], ["y", *["56.78 us"] * 10]])
    lines = [line.split() for line in drawn(table.rich(), 50).splitlines() if line.strip()]
    assert lines[0] == ["kind", "x", "y"]
    assert ["a", "12.34", "ms", "56.78", "us"] in lines


def test_a_table_without_rows_says_so() -> None:
    assert drawn(TextTable("What there is", ["a", "b"], []).rich(), 80).split() == ["What", "there", "is:", "none"]


def test_markup_in_cells_is_text() -> None:
    table = TextTable("[bold]", ["[red]name"], [["[link=x]y[/link]"]])
    assert {"[bold]", "[red]name", "[link=x]y[/link]"} <= set(
        drawn(table.rich(), 80).replace("┃", " ").replace("│", " ").split()
    )


def test_a_collective_in_a_narrow_terminal_has_its_intervals_and_in_a_pipe_the_columns_of_nccl_tests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["collective", "all_reduce", "--hardware", "h100-sxm-x8", "-b", "1M", "-e", "2M"]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # no styles
    assert main(asked) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(asked) == 0
    narrow = capsys.readouterr().out
    assert piped.startswith("# all_reduce on 8 GPUs")
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, piped.splitlines()))
    [first] = [line.split() for line in piped.splitlines() if line.split()[:1] == ["1048576"]]
    assert f"1.049 MB  {float(first[5]):.4g} us" in narrow
    assert f"{float(first[-2]):.3g} us to {float(first[-1]):.3g} us" in narrow


@pytest.fixture(scope="module")
def reports() -> list[object]:
    scenario = load_scenario(Path(__file__).parent.parent / "scenarios" / "kraken-6.7b-on-two-h200.yaml")
    predictions = compare(scenario)
    one = predict(scenario)
    return [prediction_report(one), comparison_report(predictions, side_by_side(predictions))]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_whole_reports_keep_to_the_terminal(reports: list[object], width: int) -> None:
    for report in reports:
        text = drawn(report, width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "…" not in text


def test_a_comparison_says_first_which_wins_how_sure_that_is_and_why() -> None:
    question = {"hardware": "h100-sxm-x8", "model": {"preset": "6.7B"}, "context_length": 512}
    rivals = side_by_side(compare(question, architectures=["kraken"]))
    best = min(rivals, key=lambda rival: rival.prediction.latency_s)
    text = winner(rivals)
    assert best.kind == "kraken"
    assert "kraken is fastest, TTFT" in text
    assert f"wins {100 * best.gain:.1f} % (90 % interval +" in text
    assert "less exposed communication" in text
    # The slower one is not called the winner from where it stands.
    assert "standard is fastest" in winner(rivals[:1])


def test_long_labels_stay_in_the_table_whose_rows_they_tell_apart() -> None:
    labels = [f"a constant with a long dotted path, number {number}" for number in range(3)]
    rows = [
        ("gemm", label, f"{at}.5 us", "kept, because no record of the file tells it") for at, label in enumerate(labels)
    ]
    table = TextTable("changes", ["block", "constant", "new", "fate"], rows, num_left=2)
    said = " ".join(drawn(table.rich(), 80).split())
    for at, label in enumerate(labels):
        assert f"{label} {at}.5 us" in said
        assert f"gemm, {label}: kept, because" in said
