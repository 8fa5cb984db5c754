"""The house has one direction: who imports whom, where imports stand, and that a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

import pytest

from docs import imports as house

OPTIONAL = {"distributed", "optuna", "pandas", "ray"}
"""Extras of the package: imported by the one function that needs them."""


def test_a_package_imports_only_from_the_storeys_below_it() -> None:
    assert not [f"{found.module}:{found.line} imports {found.target}" for found in house.upward()]


def test_every_package_has_a_storey() -> None:
    packages = {house.storey_of(module) for module in house.modules()} - {""}
    assert packages <= set(house.STOREYS)


def test_nothing_is_loose_at_the_top_but_errors_and_units() -> None:
    loose = {path.name for path in (house.ROOT / "kraken_sim").iterdir() if path.is_file()}
    assert loose == {"__init__.py", "errors.py", "units.py", "py.typed"}


def test_no_modules_import_each_other() -> None:
    assert house.loops() == []


def test_nothing_is_imported_inside_a_function_but_by_the_command_line_and_for_extras() -> None:
    inside = [
        found for found in house.imports() if found.function is not None and house.storey_of(found.module) != "cli"
    ]
    assert not [found for found in inside if found.target.partition(".")[0] not in OPTIONAL]


def test_the_package_is_imported_from_its_modules_and_not_from_its_roof() -> None:
    assert not [found for found in house.inner_imports() if found.target == "kraken_sim"]


def test_a_public_name_is_defined_in_one_module() -> None:
    homes = defaultdict(set)
    for module, file in house.modules().items():
        for name in _public_names(ast.parse(file.read_text(encoding="utf-8"))):
            homes[name].add(module)
    # Every verb's module has a function of this name, by which the command line finds it.
    twice = {name: sorted(found) for name, found in homes.items() if len(found) > 1 and name != "add_arguments"}
    assert twice == {}


def _public_names(tree: ast.Module) -> set[str]:
    """Classes, functions and names of types that a module defines."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar":
                continue  # stands for any type, and means nothing by itself
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()}
    return {name for name in names if not name.startswith("_")}


def test_the_drawing_shows_the_imports_that_there_are() -> None:
    assert house.DRAWING.read_text(encoding="utf-8") == house.drawing(), "python docs/imports.py draws it anew"


@pytest.mark.parametrize(("lower", "upper"), [("costs", "profiles"), ("hardware", "costs"), ("predict", "explore")])
def test_an_import_that_points_upwards_would_be_found(lower: str, upper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = house.Import(f"kraken_sim.{lower}", f"kraken_sim.{upper}", 1, None)
    monkeypatch.setattr(house, "imports", lambda: [found])
    assert house.upward() == [found]
