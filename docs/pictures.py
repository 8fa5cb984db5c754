"""Makes the pictures of the guides out of the pages of the commands beside them: `python docs/pictures.py [NAME ...]`.

Needs the extra `browser` and a Chromium (`make browser`).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.cli import main as command_line
from validation import accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DOCS: Final = Path(__file__).parent
PASSES: Final = "validation/measurements/h200-sxm-x2-passes.jsonl"


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of the page that a command writes: the first of `selector`, or its `index`-th, `width` pixels wide."""

    command: str
    selector: str = "figure.plot"
    index: int = 0
    width: int = 900
    height: int | None = None
    maker: Callable[[Sequence[str]], int] = command_line


PICTURES: Final[Mapping[str, Picture]] = {
    "report": Picture("compare kraken-13b-decode-on-eight-h100", "body", height=1150),
    "exploring-channels": Picture(f"explore channels --measured {PASSES}"),
    "exploring-interconnect": Picture("explore interconnect --hardware h100-sxm-x8 --model 13B --context-length 2048"),
    "exploring-front": Picture("explore design 13b-on-h100_design"),
    "exploring-purchase": Picture("procure assistant_purchase"),
    "machines-two-nodes": Picture("profiles show h100-sxm-2x8"),
    "accuracy-parity": Picture("", maker=accuracy.main),
    "accuracy-speedup": Picture("", index=1, maker=accuracy.main),
    "sweep": Picture("sweep architectures-sweep --out {folder}/sweep.parquet --yes", ".explorer", height=900),
}
"""By file name, what each shows."""


def main(names: Sequence[str]) -> int:
    """Makes all pictures, or those named."""
    from playwright.sync_api import sync_playwright

    from tests.browser_support import launched

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = launched(playwright)
        if browser is None:
            sys.stderr.write("no Chromium: make browser\n")
            return 1
        pages: dict[str, Path] = {}
        for name in names or PICTURES:
            picture = PICTURES[name]
            page = pages.setdefault(picture.command, Path(folder, f"{name}.html"))
            asked = [*picture.command.format(folder=folder).split(), "--html", str(page)]
            if not page.exists() and picture.maker(asked) != 0:
                return 1
            taken(browser, page, picture, DOCS / f"{name}.png")
        browser.close()
    return 0


def taken(browser: Any, page: Path, picture: Picture, target: Path) -> None:
    """The picture as a file."""
    tab = browser.new_page(viewport={"width": picture.width, "height": 1000}, color_scheme="light")
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn]", state="attached")
    box = tab.locator(picture.selector).nth(picture.index).bounding_box()
    if picture.height is not None:
        box["height"] = min(box["height"], picture.height)
    tab.screenshot(path=target, full_page=True, clip=box)
    tab.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
