"""Draws which package imports which, from the ground up: `python docs/imports.py` writes docs/imports.svg.

`python docs/imports.py --check` says, with exit code 1, that an import points upwards or that the drawing is old.
A test asks the same of every module.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parent.parent
DRAWING: Final = ROOT / "docs" / "imports.svg"

STOREYS: Final = (
    "errors",
    "units",
    "files",
    "program",
    "models",
    "architectures",
    "hardware",
    "costs",
    "profiles",
    "engine",
    "scenario",
    "measurements",
    "predict",
    "standalone",
    "serving",
    "calibration",
    "validate",
    "traces",
    "explore",
    "paper",
    "report",
    "cli",
)
"""From the ground up: a package imports only from those before it. The package's own `__init__` is the roof."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement of one module: by full names, and where it stands."""

    module: str
    target: str
    line: int
    function: str | None
    """The function that it stands in; None at the top of the module."""


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package by its full name."""
    files = sorted((ROOT / "kraken_sim").rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def storey_of(module: str) -> str:
    """The package, or the loose module, that a module belongs to; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


@cache
def imports() -> Sequence[Import]:
    """Every import statement of the package, type-checking ones included."""
    return tuple(found for module, file in modules().items() for found in _imports_of(module, file))


def inner_imports() -> Iterator[Import]:
    """Those of one module of the package by another; what a module imports of its parents does not count."""
    for found in imports():
        if found.target in modules() and found.target != found.module:
            yield found


def _imports_of(module: str, file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.update(dict.fromkeys(ast.walk(node), node.name))
    for node in ast.walk(tree):
        for target in _targets(node):
            yield Import(module, target, getattr(node, "lineno", 0), functions.get(node))


def _targets(node: ast.AST) -> Iterator[str]:
    """Full names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            message = f"relative import in line {node.lineno}"
            raise ValueError(message)
        base = str(node.module)
        names = {f"{base}.{alias.name}" for alias in node.names}
        submodules = sorted(names & modules().keys())
        yield from submodules
        if len(submodules) < len(names):
            yield base


def upward() -> list[Import]:
    """Imports of a package by one that stands below it, and packages without a storey."""
    height = {name: index for index, name in enumerate(STOREYS)}
    return [
        found
        for found in inner_imports()
        if (own := storey_of(found.module)) and own != (other := storey_of(found.target))
        if own not in height or other not in height or height[own] < height[other]
    ]


def loops() -> list[list[str]]:
    """Modules that import each other, directly or through others: every group of them once."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in inner_imports():
        graph[found.module].add(found.target)
    reach = {module: _reachable(graph, module) for module in graph}
    groups = {tuple(sorted(other for other in reach[module] if module in reach[other])) for module in graph}
    return sorted(list(group) for group in groups if group)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What a node leads to, itself only if it is on a loop."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


# The drawing ------------------------------------------------------------------------------------------------

FLOOR_PX: Final = 46
WIDTH_PX, LEFT_PX, RIGHT_PX = 620, 300, 480
"""Width of the drawing, and where its column of boxes begins and ends."""

BOX_HEIGHT_PX: Final = 28
LEGEND: Final = ("Right: imports that no others imply.", "Left: imports that others imply.")
DARK, LIGHT, RED = "#33415c", "#b9c4d6", "#c0392b"


def package_imports() -> dict[str, set[str]]:
    """By package, the others that it imports."""
    graph: dict[str, set[str]] = {name: set() for name in STOREYS if any(storey_of(m) == name for m in modules())}
    for found in inner_imports():
        own, other = storey_of(found.module), storey_of(found.target)
        if own and other and own != other:
            graph[own].add(other)
    return graph


def drawing() -> str:
    """The storeys as a column of boxes, and an arrow from each package to those it imports: all point down.

    On the right, dark, are the arrows that no others imply; on the left, light, those that do (A imports B, B imports
    C, and A imports C). One that points up would be red.
    """
    graph = package_imports()
    rows = {name: index for index, name in enumerate(reversed(graph))}
    height = FLOOR_PX * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}" '
        f'viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for name, others in graph.items():
        implied = set().union(*(_reachable(graph, other) for other in others))
        ordered = sorted(others, key=lambda other: (other not in implied, other))
        parts += [_arrow(rows[name], rows[other], implied=other in implied) for other in ordered]
    parts += [_box(name, row) for name, row in rows.items()]
    parts += [
        f'<text x="{x}" y="{height - 14}" font-size="11" text-anchor="{anchor}" fill="#5b6577">{text}</text>'
        for x, anchor, text in zip((WIDTH_PX - 20, 20), ("end", "start"), LEGEND, strict=True)
    ]
    return "\n".join([*parts, "</svg>", ""])


def _arrow(start: int, end: int, *, implied: bool) -> str:
    """From one row to another, along the right side, or the left where others imply it."""
    side, x = (-1, LEFT_PX) if implied else (1, RIGHT_PX)
    colour = RED if end < start else LIGHT if implied else DARK
    # Arrows leave a box below its middle and arrive above it, so that both can be told apart.
    y0, y1 = _middle(start) + 5, _middle(end) - 5
    bent, tip = x + side * (18 + 17 * abs(end - start)), x + side * 8
    return (
        f'<path d="M {x} {y0} C {bent} {y0} {bent} {y1} {tip} {y1}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
        f'<polygon points="{x},{y1} {tip},{y1 - 4} {tip},{y1 + 4}" fill="{colour}"/>'
    )


def _middle(row: int) -> int:
    return 10 + FLOOR_PX * row + FLOOR_PX // 2


def _box(name: str, row: int) -> str:
    y = _middle(row)
    return (
        f'<rect x="{LEFT_PX}" y="{y - BOX_HEIGHT_PX // 2}" width="{RIGHT_PX - LEFT_PX}" height="{BOX_HEIGHT_PX}" '
        f'rx="5" fill="#eef2f8" stroke="{DARK}"/>'
        f'<text x="{(LEFT_PX + RIGHT_PX) // 2}" y="{y + 5}" font-size="14" font-weight="bold" text-anchor="middle" '
        f'fill="#1d2433">{name}</text>'
    )


def main(arguments: Sequence[str]) -> int:
    """Draw, or check what is drawn."""
    problems = [f"{found.module}:{found.line} imports {found.target}, which stands above it" for found in upward()]
    problems += [f"these import each other: {', '.join(group)}" for group in loops()]
    if "--check" not in arguments:
        DRAWING.write_text(drawing(), encoding="utf-8")
    elif not DRAWING.is_file() or DRAWING.read_text(encoding="utf-8") != drawing():
        problems.append(f"{DRAWING.relative_to(ROOT)} is old: run python docs/imports.py")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
