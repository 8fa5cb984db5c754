"""Pages: text stays text, one file or a shared library, words explained, colours that everybody tells apart."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import pyarrow as pa
import pytest

from docs.pictures import PICTURES
from kraken_sim import compare, simulate
from kraken_sim.cli import main
from kraken_sim.explore.architectures import best_architecture
from kraken_sim.explore.channels import ChannelAnswer, best_channels
from kraken_sim.explore.degree import best_degree
from kraken_sim.explore.interconnect import worthwhile_bandwidth
from kraken_sim.explore.sensitivity import Decision
from kraken_sim.explore.what_changes import answer_changes
from kraken_sim.report.architectures_html import architectures_page
from kraken_sim.report.explore_html import channels_page
from kraken_sim.report.explore_machine_html import degree_page, interconnect_page
from kraken_sim.report.figures import COLOURS, INK, PALETTE, figure_data
from kraken_sim.report.html import prediction_page
from kraken_sim.report.page import (
    Bullets,
    Command,
    Details,
    Explorer,
    Facts,
    Headline,
    Page,
    PageBlock,
    Plot,
    Section,
    TextTable,
)
from kraken_sim.report.render import PlotlySource, library_file, render
from kraken_sim.report.sweep_html import KEPT_FASTEST, MOST_ROWS, drawn_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e<b>x</b>&lt;"
QUESTION = {
    "hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "context_length": 128, "num_devices": 2,
}  # fmt: skip


def hostile_figure() -> go.Figure:
    hover = {"text": [HOSTILE], "customdata": [[HOSTILE]], "hovertemplate": "%{text} %{customdata[0]}"}
    figure = go.Figure(go.Scatter(x=[HOSTILE], y=[1.0], name=HOSTILE, mode="markers", marker_size=40, **hover))
    figure.update_layout(title=HOSTILE, xaxis_title=HOSTILE, yaxis_title=HOSTILE, showlegend=True)
    figure.add_annotation(text=HOSTILE, x=0.5, y=0.5, xref="paper", yref="paper")
    figure.update_xaxes(categoryarray=[HOSTILE])
    figure.update_yaxes(tickvals=[1.0], ticktext=[HOSTILE])
    return figure


def hostile_page() -> Page:
    figure = hostile_figure()
    explorer = Explorer({HOSTILE: [HOSTILE], "b": [1.0]}, [HOSTILE], ["b"], [])
    blocks: list[PageBlock] = [
        HOSTILE, Bullets([HOSTILE]), Facts([(HOSTILE, HOSTILE)]), Command(HOSTILE), Plot(figure, HOSTILE),
        TextTable(HOSTILE, [HOSTILE], [[HOSTILE]]), Details(HOSTILE, [HOSTILE]), explorer,
    ]  # fmt: skip
    head = Headline(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    return Page(HOSTILE, HOSTILE, [Section(HOSTILE, blocks)], head, [HOSTILE], [HOSTILE])


def test_no_text_of_a_page_is_markup_wherever_it_stands() -> None:
    text = render(hostile_page(), command=HOSTILE, library=PlotlySource.SHARED)
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\\u202e" not in text
    assert text.count("</script>") == text.count("<script")
    rows = re.findall(r'<script type="application/json" class="rows">(.*?)</script>', text, re.DOTALL)
    assert [next(iter(json.loads(script)["columns"])) for script in rows] == [HOSTILE.replace("\u202e", "")]


def test_a_figure_shows_every_name_as_it_is_and_breaks_lines_where_it_means_to() -> None:
    figure = hostile_figure()
    figure.add_bar(x=["a\nb"], y=[1.0])
    data = json.dumps(figure_data(figure))
    assert data.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") == 10
    assert data.count("&lt;b&gt;x&lt;/b&gt;&amp;lt;") == 10
    assert "<img" not in data
    assert data.count("<") == data.count("<br>") == 1


def test_a_page_alone_holds_the_library_and_one_of_a_folder_asks_for_its_neighbour() -> None:
    page, (name, script) = hostile_page(), library_file()
    assert script in render(page)
    shared = render(page, library=PlotlySource.SHARED)
    assert f'<script src="{name}"></script>' in shared
    assert len(shared) < 100_000
    without = Page("a", "b", [Section("c", ["No figure."])])
    assert "<script" not in render(without)


def test_pages_of_a_folder_share_one_library_file(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text(json.dumps(QUESTION), encoding="utf-8")
    out = tmp_path / "out"
    for name in ("a.html", "b.html"):
        assert main(["run", str(scenario), "--html", str(out / name), "--plotly", "shared"]) == 0
    name, script = library_file()
    assert sorted(file.name for file in out.iterdir()) == ["a.html", "b.html", name]
    (out / name).write_text("somebody's", encoding="utf-8")
    assert main(["run", str(scenario), "--html", str(out / "a.html"), "--plotly", "shared"]) == 2
    assert (out / name).read_text(encoding="utf-8") == "somebody's"
    assert main(["run", str(scenario), "--html", str(out / "a.html"), "--plotly", "shared", "--force"]) == 0
    assert (out / name).read_text(encoding="utf-8") == script


def test_the_command_on_a_page_is_the_one_that_wrote_it(tmp_path: Path) -> None:
    scenario, page = tmp_path / "a b.yaml", tmp_path / "page.html"
    scenario.write_text(json.dumps(QUESTION), encoding="utf-8")
    assert main(["run", str(scenario), "--html", str(page)]) == 0
    assert f"kraken-sim run &#39;{scenario}&#39; --html {page}" in page.read_text(encoding="utf-8")


def test_a_page_explains_the_words_that_it_uses_and_no_others() -> None:
    text = render(Page("a", "b", [Section("c", ["The TPOT is low.", Details("more", ["NVLink"])])]))
    terms = re.findall(r"<dt>(.*?)</dt>", text)
    assert terms == ["NVLink", "TPOT"]


def test_a_comparison_is_about_what_was_asked_and_names_the_fastest() -> None:
    predictions = compare(QUESTION, architectures=["kraken", "parallel"])
    asked = prediction_page(predictions, asked="kraken").headline
    assert asked is not None
    assert "speed-up of kraken over standard" in asked.what
    rivals = {prediction.resolved.kind: prediction for prediction in predictions}
    gain = 100.0 * (rivals["standard"].latency_s / rivals["parallel"].latency_s - 1.0)
    page = prediction_page(predictions, asked="parallel")
    assert [sentence.partition(":")[0] for sentence in page.sentences] == ["Parallel", "Standard"]
    other = page.headline
    assert other is not None
    assert other.figure == f"{gain:+.1f} %"


def test_a_page_of_several_questions_says_in_how_many_of_them_its_headline_holds() -> None:
    questions = [{**QUESTION, "context_length": tokens, "architecture": {"kind": "kraken"}} for tokens in (64, 128)]
    channels = [best_channels(question, [1, 4], perturb=False) for question in questions]
    degrees = [best_degree(question, architectures=["kraken"], perturb=False) for question in questions]
    links = [worthwhile_bandwidth(question, factors=[0.5, 1.0], perturb=False) for question in questions]
    kinds = [best_architecture(question, architectures=["kraken"]) for question in questions]
    gains = [100.0 * answer.own.speedup for answer in links]
    figures = [page.headline.figure for page in (
        channels_page(channels), interconnect_page(links), degree_page(degrees), architectures_page(kinds),
    ) if page.headline is not None]  # fmt: skip
    sure = sum(answer.advice != "default" for answer in channels)
    assert figures == [
        f"{sure} of 2",
        f"{min(gains):+.1f} to {max(gains):+.1f} %",
        degrees[0].best,
        kinds[0].rivals[0].kind,
    ]
    assert {answer.best for answer in degrees} == {degrees[0].best}


@pytest.mark.parametrize(("times", "figure", "words"), [
    ({"default": 1.0, "8": 1.004}, "leave it", "own choice of channels is the best"),
    ({"default": 1.0, "8": 0.999}, "leave it", "that at most 8 channels gain 0.1 % is not sure"),
    ({"default": 1.0, "8": 0.5}, "+100.0 %", "NCCL_MAX_NCHANNELS=8"),
])  # fmt: skip
def test_the_headline_on_channels_is_the_advice(
    times: dict[str, float], figure: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = best_channels({**QUESTION, "architecture": {"kind": "kraken"}}, [8], perturb=False)
    gain = times["default"] / times["8"] - 1.0
    monkeypatch.setattr(Decision, "latencies_s", property(lambda _: times))
    monkeypatch.setattr(ChannelAnswer, "gain_interval", property(lambda _: (gain - 0.01, gain + 0.01)))
    headline = channels_page([answer]).headline
    assert headline is not None
    assert headline.figure == figure
    assert words in headline.what


def test_what_changes_an_answer_is_asked_on_the_machine_of_the_answer() -> None:
    placed = {**QUESTION, "hardware": "h200-sxm-x8", "placement": "3,5", "architecture": {"kind": "kraken"}}
    changes = {change.what: change for change in answer_changes([simulate(placed)])}
    doubts = [change for change in changes.values() if change.is_doubt]
    assert len(doubts) >= 4
    assert all(1.0 <= change.factors[0] < 1.3 for change in doubts)
    eager = simulate({**placed, "runtime": {"launch": "eager"}}).latency_s / simulate(placed).latency_s
    assert changes["launch: kernel by kernel (eager)"].factors == pytest.approx((eager,))


def test_of_a_long_sweep_a_page_has_the_fastest_and_an_even_draw_of_the_others() -> None:
    count = 3 * MOST_ROWS
    times = [float((7919 * row) % count) for row in range(count)]
    table = pa.table({"point": list(range(count)), "latency_s": times})
    shown = drawn_rows(table)
    assert shown.num_rows == MOST_ROWS
    assert shown["point"].to_pylist() == sorted(set(shown["point"].to_pylist()))
    assert set(range(KEPT_FASTEST)) <= set(shown["latency_s"].to_pylist())
    assert drawn_rows(table.slice(0, 10)).num_rows == 10


def test_the_pictures_of_the_guides_are_made_by_the_product() -> None:
    docs = Path(__file__).parent.parent / "docs"
    shown = {
        match for page in docs.glob("*.md") for match in re.findall(r"\]\(([\w-]+)\.png\)", page.read_text("utf-8"))
    }
    assert len(shown) >= 8
    assert shown <= PICTURES.keys()
    assert {path.stem for path in docs.glob("*.png")} == PICTURES.keys()


# Colours -----------------------------------------------------------------------------------------------------

SIGHT = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What people see of a linear RGB colour (Machado, Oliveira and Fernandes 2009, severity 1)."""

TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(rgb: Sequence[float]) -> tuple[float, float, float]:
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        (value / full) ** (1 / 3) if value / full > 0.008856 else 7.787 * value / full + 16 / 116
        for value, full in zip(times(TO_XYZ, rgb), white, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [[c for c in PALETTE if c != INK], list(COLOURS.values())], ids=["series", "parts"])
def test_everybody_tells_two_colours_of_a_figure_apart(sight: str, colours: list[str]) -> None:
    seen = {colour: lab([min(1.0, max(0.0, x)) for x in times(SIGHT[sight], linear(colour))]) for colour in colours}
    assert len(seen) == len(colours)
    for one, other in itertools.combinations(colours, 2):
        distance = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        assert distance > 12.0, (one, other)
