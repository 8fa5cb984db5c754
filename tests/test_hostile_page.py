"""The page on hostile input says what the code does."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "hostile-input.md").read_text(encoding="utf-8")
LIMIT = re.compile(r"^\| .* \| ([\d,]+) \| `([\w.]+)` \|$", re.MULTILINE)


def constant(path: str) -> Any:
    """What a dotted path below the package holds: a module's name, or an attribute of one."""
    words = path.split(".")
    depth = next(
        count
        for count in range(len(words), 0, -1)
        if (ROOT / "kraken_sim" / ("/".join(words[:count]) + ".py")).exists()
    )
    found: Any = import_module("kraken_sim." + ".".join(words[:depth]))
    for name in words[depth:]:
        found = getattr(found, name)
    return found


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    limits = LIMIT.findall(PAGE)
    assert len(limits) > 15
    assert {path: int(number.replace(",", "")) for number, path in limits} == {
        path: constant(path) for _, path in limits
    }


def test_the_tests_that_the_page_names_exist() -> None:
    for name in re.findall(r"`(tests/\w+\.py)`", PAGE):
        assert (ROOT / name).exists(), name
