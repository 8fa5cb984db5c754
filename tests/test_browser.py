"""Every kind of page in a real browser: three widths, light and dark, drawn, hovered, zoomed, filtered, printed."""

from __future__ import annotations

import base64
import gc
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_support import launched
from measurement_support import write
from test_report_page import hostile_page
from test_validate import three_passes
from trace_support import DATA, FIRST

from kraken_sim.cli import main
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.report.render import render
from validation.quality.curves import write_curves

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make browser")

ROOT = Path(__file__).parent.parent
SCREENS = ((1400, "light"), (1400, "dark"), (900, "dark"), (900, "light"), (360, "light"), (360, "dark"))
"""Every width in light and dark, in the order that changes one at a time."""
SMALL: dict[str, Any] = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "125M"},
    "context_length": 128,
    "num_devices": 2,
}
KRAKEN = {**SMALL, "name": "<b>small</b> & \u202ekraken", "architecture": {"kind": "kraken"}}
SWEEP = {**SMALL, "context_length": [64, 128, 256, 512], "batch_size": [1, 2, 4],
         "architecture": {"kind": ["standard", "kraken"]}}  # fmt: skip
SERVICE = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "125M", "max_position_embeddings": 8192},
    "num_devices": 1,
    "traffic": {
        "requests_per_s": 20,
        "num_requests": 60,
        "prompt_tokens": {"mean": 100, "variation": 0.5, "least": 16, "most": 400},
        "output_tokens": {"mean": 20, "variation": 0.5, "least": 2, "most": 60},
    },
    "sla": {"ttft": "1 s", "tpot": "50 ms", "percentile": 99},
}
GRID = {
    "name": "small", "hardware": "a100-sxm4-40gb-x8", "models": [{"preset": "1.3B"}], "context_lengths": [128],
    "num_devices": [4], "batch_size": 1, "dtype": "float16",
    "assumptions": [{"name": "eager", "description": "launched kernel by kernel", "runtime": {"launch": "eager"}}],
}  # fmt: skip
_ASSISTANT: Any = read_yaml(ROOT / "scenarios" / "assistant_purchase.yaml").data
PURCHASE = {**_ASSISTANT, "candidates": _ASSISTANT["candidates"][1:2], "what_if": _ASSISTANT["what_if"][:1]}
FILES = {"kraken": KRAKEN, "small": SMALL, "sweep": SWEEP, "service": SERVICE, "grid": GRID, "purchase": PURCHASE}
"""Questions so small that all pages take seconds."""


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with sync_api.sync_playwright() as playwright:
        found = launched(playwright)
        if found is None:
            pytest.skip("needs Chromium: make browser")
        yield Reader(found)
        found.close()
    with warnings.catch_warnings():
        # Playwright leaves the pipes of its driver to the garbage collector, which otherwise fails a later test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


COMMANDS = {
    "run": ["run", "kraken.yaml"],
    "compare": ["compare", "kraken.yaml", "--architectures", "standard,kraken,ladder"],
    "kernel-sets": ["compare", "kraken.yaml", "--architectures", "kraken", "--kernels", "pytorch,serving"],
    "sweep": ["sweep", "sweep.yaml", "--out", "sweep.parquet", "--jobs", "1"],
    "channels": ["explore", "channels", "kraken.yaml"],
    "degree": ["explore", "degree", "small.yaml", "--architectures", "standard,kraken"],
    "architecture": ["explore", "architecture", "small.yaml", "--architectures", "standard,kraken"],
    "interconnect": ["explore", "interconnect", "small.yaml"],
    "design": ["explore", "design", "13b-on-h100_design", "--max-evaluations", "30"],
    "collective": ["collective", "all_reduce", "--hardware", "h200-sxm-x2", "-e", "1M"],
    "machine": ["profiles", "show", "h100-sxm-2x8"],
    "nvl72": ["profiles", "show", "gb200-nvl72"],
    "procure": ["procure", "purchase.yaml"],
    "serve": ["serve", "service.yaml"],
    "paper": ["paper", "--grid", "grid.yaml"],
    "validate": ["validate", "passes.jsonl"],
    "diff-trace": ["diff-trace", f"{FIRST}#2", str(DATA / "h200-llama-8b-decode.trace.json")],
}
"""What writes each kind of page."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, data in FILES.items():
        (folder / f"{name}.yaml").write_text(json.dumps(data), encoding="utf-8")
    write(folder / "passes.jsonl", three_passes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, command in COMMANDS.items():
            assert main([*command, "--html", f"{name}.html", "--plotly", "shared"]) == 0
    values = ("loss", "validation_loss", "learning_rate", "tokens_per_s")
    log = [{"tokens": tokens, **dict.fromkeys(values, 1.0 / tokens)} for tokens in (1, 4, 9)]
    logs = dict.fromkeys(("first", "second"), log)
    write_curves(folder / "curves.html", "Curves", logs)
    return folder


class Reader:
    """One tab that reads page after page, so that the library is compiled once; `wrong` is what went wrong in it."""

    def __init__(self, browser: Any) -> None:
        self.tab, self.wrong, self.own = browser.new_page(), list[str](), set[str]()
        self.tab.on("console", self._said)
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", self._asked)

    def open(self, file: Path, width: int = 900, scheme: str = "light") -> Any:
        """The tab with the page drawn."""
        self.wrong.clear()
        self.own = {file.as_uri(), *(found.as_uri() for found in file.parent.glob("plotly-*.js"))}
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.tab.emulate_media(color_scheme=scheme)
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("html[data-drawn]", state="attached")
        if 'class="explorer"' in file.read_text(encoding="utf-8"):
            self.tab.wait_for_selector("html[data-explores]", state="attached")
        return self.tab

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        if request.url not in self.own and not request.url.startswith(("data:", "blob:")):
            self.wrong.append(request.url[:200])


SEEN = """() => {
  const styles = getComputedStyle(document.body);
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    charts: [...document.querySelectorAll('.chart')].map((chart) => ({
      marks: chart.querySelectorAll('.trace path, .points path, .heatmaplayer image, .js-line').length,
      wide: chart.clientWidth - chart.querySelector('.main-svg').clientWidth,
      colour: chart._fullLayout.font.color, cut: chart.closest('figure').querySelector('.legend').scrollWidth
        - chart.closest('figure').querySelector('.legend').clientWidth,
      named: chart.data.filter((trace) => trace.showlegend !== false && trace.name && trace.type !== 'heatmap').length,
      buttons: chart.closest('figure').querySelectorAll('.legend button').length,
    })),
    text: styles.color, back: styles.backgroundColor,
    variable: getComputedStyle(document.documentElement).getPropertyValue('--text').trim(),
  };
}"""
"""What of a page is measured at each width."""

SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60))))"


@pytest.mark.parametrize("name", [*COMMANDS, "curves"])
def test_a_page_is_whole_at_every_width_in_light_and_dark(reader: Reader, pages: Path, name: str) -> None:
    tab = reader.open(pages / f"{name}.html", SCREENS[0][0])
    for width, scheme in SCREENS:
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.evaluate(SETTLED)
        seen = tab.evaluate(SEEN)
        where = (name, width, scheme)
        assert seen["overflow"] <= 0, where
        assert contrast(seen["text"], seen["back"]) >= 7.0, where
        assert seen["charts"], where
        for chart in seen["charts"]:
            assert chart["marks"] > 0, where
            assert abs(chart["wide"]) <= 1, where
            assert chart["cut"] <= 0, where
            assert chart["buttons"] > 0 or chart["named"] <= 1, where
            assert chart["colour"] == seen["variable"], where
    assert reader.wrong == []


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours as a browser writes them, `rgb(1, 2, 3)`."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


WITHOUT_INTERVAL = ("machine", "nvl72", "channels", "curves")
"""Pages of what is no prediction, and the advice to leave a choice to NCCL."""


@pytest.mark.parametrize("name", [*COMMANDS, "curves"])
def test_a_page_opens_with_the_answer_how_sure_it_is_and_why(pages: Path, name: str) -> None:
    said = re.findall(r'<p class="(figure|what|interval|why)">(.+?)</p>', (pages / f"{name}.html").read_text("utf-8"))
    wanted = {"figure", "what", "why"} | ({"interval"} if name not in WITHOUT_INTERVAL else set())
    assert wanted <= {part for part, _ in said}
    assert dict(said)["figure"][0] in "+-0123456789" or name in ("architecture", "channels")


PIXELS = """async (data) => {
  const picture = await createImageBitmap(await (await fetch(data)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height), pen = canvas.getContext('2d');
  pen.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, picture.width, picture.height).data.buffer), counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const sorted = [...counts.values()].sort((a, b) => b - a);
  return { total: pixels.length, rest: pixels.length - sorted[0], large: sorted.filter((count) => count > 200).length };
}"""
"""Of a picture: its pixels, those that are not of the most frequent colour, and how many colours have 200 and more."""


@pytest.mark.parametrize(("name", "scheme"), [("compare", "light"), ("compare", "dark"), ("nvl72", "dark")])
def test_the_pixels_of_a_figure_are_of_several_colours(reader: Reader, pages: Path, name: str, scheme: str) -> None:
    tab = reader.open(pages / f"{name}.html", scheme=scheme)
    picture = base64.b64encode(tab.locator(".chart").first.screenshot()).decode()
    found = tab.evaluate(PIXELS, f"data:image/png;base64,{picture}")
    assert found["rest"] > 0.02 * found["total"]
    assert found["large"] >= 3


BAR = "() => document.querySelector('.chart .bars path').getBoundingClientRect().toJSON()"
RANGE = "() => document.querySelector('.chart')._fullLayout.xaxis.range"


def test_pointing_at_a_bar_says_its_number_and_dragging_zooms(reader: Reader, pages: Path) -> None:
    tab = reader.open(pages / "architecture.html")
    tab.locator(".chart").first.scroll_into_view_if_needed()
    bar = tab.evaluate(BAR)
    x, y = bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2
    tab.mouse.move(x, y)
    tab.wait_for_selector(".hoverlayer .hovertext", state="attached")
    assert "%" in tab.locator(".hoverlayer .hovertext").first.text_content()
    before = tab.evaluate(RANGE)
    tab.mouse.down()
    tab.mouse.move(x + 120, y, steps=5)
    tab.mouse.up()
    tab.evaluate(SETTLED)
    after = tab.evaluate(RANGE)
    assert after[1] - after[0] < 0.9 * (before[1] - before[0])
    assert reader.wrong == []


def test_a_keyboard_zooms_a_figure_and_hides_a_series(reader: Reader, pages: Path) -> None:
    tab = reader.open(pages / "architecture.html")
    chart = tab.locator(".chart").first
    chart.focus()
    before = tab.evaluate(RANGE)
    tab.keyboard.press("+")
    tab.evaluate(SETTLED)
    after = tab.evaluate(RANGE)
    assert after[1] - after[0] == pytest.approx(0.7 * (before[1] - before[0]))
    tab.keyboard.press("0")
    tab.evaluate(SETTLED)
    assert tab.evaluate(RANGE) == pytest.approx(before)
    button = tab.locator(".legend button").first
    bars = tab.locator(".chart").first.locator(".bars path")
    assert bars.count() > 0
    button.focus()
    tab.keyboard.press("Enter")
    tab.evaluate(SETTLED)
    assert (bars.count(), button.get_attribute("aria-pressed")) == (0, "false")
    assert reader.wrong == []


TICKS = """() => { const chart = document.querySelector('.chart'), axis = chart._fullLayout.yaxis;
  const said = [...chart.querySelectorAll('.ytick text')].map((tick) => tick.textContent);
  return { type: axis.type, range: axis.range, said };
}"""


def test_a_logarithmic_axis_within_a_decade_says_whole_numbers(reader: Reader, pages: Path) -> None:
    axis = reader.open(pages / "procure.html").evaluate(TICKS)
    assert axis["type"] == "log"
    low, high = (10.0**end for end in axis["range"])
    assert len(axis["said"]) >= 3
    assert all(low <= float(tick) <= high for tick in axis["said"])


def test_a_hostile_name_is_text_on_the_page(reader: Reader, pages: Path) -> None:
    tab = reader.open(pages / "run.html")
    assert tab.locator("h1").text_content() == "<b>small</b> & kraken"


DRAWN = """() => [...document.querySelectorAll('.chart')].map((chart) => [...chart.querySelectorAll('text')].map(
  (text) => text.textContent).join(' '))"""


def test_hostile_names_are_text_in_figures_and_in_what_is_drawn_of_a_sweep(reader: Reader, tmp_path: Path) -> None:
    page, shown = tmp_path / "hostile.html", "</script><img src=x onerror=alert(1)><b>x</b>&lt;"
    page.write_text(render(hostile_page()), encoding="utf-8")
    tab = reader.open(page)
    figure, explorer = ("".join(text.split()) for text in tab.evaluate(DRAWN))
    assert figure.count("".join(shown.split())) == 6  # title, both axes, a tick of each, an annotation
    assert explorer.count("".join(shown.split())) >= 2
    assert tab.locator(".legend button").first.text_content() == shown
    tab.locator(".chart").first.locator(".points path").hover(force=True)
    tab.wait_for_selector(".hoverlayer .hovertext", state="attached")
    assert shown in tab.locator(".hoverlayer").first.text_content()
    assert tab.locator("img").count() == tab.locator("tspan[style*=bold]").count() == 0
    assert reader.wrong == []


def test_a_page_prints_in_light_with_its_folds_open(reader: Reader, pages: Path) -> None:
    tab = reader.open(pages / "run.html", scheme="dark")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    tab.evaluate(SETTLED)
    assert tab.locator("details:not([open])").count() == 0
    assert tab.evaluate("() => document.querySelector('.chart')._fullLayout.font.color") == "#1b1f24"
    tab.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open])").count() > 0
    assert len(tab.pdf()) > 20_000
    assert reader.wrong == []


def test_a_sweep_is_filtered_drawn_mapped_and_sorted(reader: Reader, pages: Path) -> None:
    tab = reader.open(pages / "sweep.html")
    count, rows = tab.locator(".explorer .count"), tab.locator(".explorer tbody tr")
    assert count.text_content() == "24 of 24 rows"
    tab.locator("fieldset", has_text="architecture.kind").get_by_label("standard").uncheck()
    assert (count.text_content(), rows.count()) == ("12 of 24 rows", 12)
    tab.locator("fieldset", has_text="batch_size").get_by_label("4", exact=True).uncheck()
    assert count.text_content() == "8 of 24 rows"
    points = tab.locator(".explorer .chart .points path")
    assert points.count() == 8
    tab.locator("select[name=Draw]").select_option("front")
    assert points.count() > 8
    tab.locator("select[name=Draw]").select_option("map")
    tab.wait_for_selector(".heatmaplayer image", state="attached")
    times = rows.locator(f"td:nth-child({1 + column(tab, 'latency_s')})").all_text_contents()
    assert [float(time) for time in times] == sorted(float(time) for time in times)
    tab.get_by_role("button", name="latency_s").click()
    times = rows.locator(f"td:nth-child({1 + column(tab, 'latency_s')})").all_text_contents()
    assert [float(time) for time in times] == sorted((float(time) for time in times), reverse=True)
    assert reader.wrong == []


def column(tab: Any, name: str) -> int:
    """The place of a column of the table, counted from 0."""
    heads = tab.locator(".explorer thead th").all_text_contents()
    return next(index for index, head in enumerate(heads) if head.startswith(name))


def test_a_page_by_itself_needs_no_other_file(reader: Reader, tmp_path: Path) -> None:
    scenario, page = tmp_path / "small.yaml", tmp_path / "alone" / "page.html"
    scenario.write_text(json.dumps(SMALL), encoding="utf-8")
    assert main(["run", str(scenario), "--html", str(page)]) == 0
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]
    tab = reader.open(page)
    assert tab.evaluate("() => document.querySelectorAll('.chart .main-svg').length") > 0
    assert reader.wrong == []
