"""Numbers in code have a source: every constant of a module says what it is, its kind, and where it is from."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import kraken_sim

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(kraken_sim.__file__).parent

SOURCED = ("calibration", "costs", "engine", "hardware", "models", "predict", "profiles")
"""Packages whose numbers enter a prediction: what stands beside them names a kind or a source."""

KIND = re.compile(r"\b(datasheet|measured|fitted|assum(ed|ption)|definition|(limit|choice) of ours)\b", re.IGNORECASE)
SOURCE = re.compile(
    r"\w\.(cc|cpp|cu|cuh|h|hpp|py)\b|arXiv \d|\bissues? \d|/\w+#\d|\bProgramming Guide\b|\bPTX ISA\b|\bSpecification\b"
)
DESCRIBING = ("Meaning", "Table", "exactly", "holds", "means")
"""Calls that say in words what their numbers are: the plausible range of a profile's constant."""

LEAST_WORDS = 5
"""Fewer do not say what a number is and where it is from."""


class Constant(NamedTuple):
    """A number with a name at the top of a module, and the words beside it."""

    where: str
    name: str
    words: str


def constants_of(source: str, where: str) -> Iterator[Constant]:
    """The constants of a module that hold a number: upper-case names, assigned outside of functions and classes."""
    body = ast.parse(source).body
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("# fmt:", "# noqa", "# type:"))
    }
    for index, statement in enumerate(body):
        if isinstance(statement, ast.Assign):
            targets: list[ast.expr] = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        else:
            continue
        names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        if not all(name.lstrip("_").isupper() for name in names) or not holds_a_number(statement.value):
            continue
        words = docstring_of(body[index + 1 : index + 2])
        if not words:
            above = statement.lineno - 1
            while above in comments and source.splitlines()[above - 1].startswith("#"):
                words = f"{comments[above]} {words}"
                above -= 1
            beside = range(statement.lineno, statement.end_lineno + 1)  # type: ignore[operator]
            words = " ".join([words, *(comments[line] for line in beside if line in comments)])
        yield Constant(f"{where}:{statement.lineno}", ", ".join(names), " ".join(words.split()))


def holds_a_number(value: ast.AST | None) -> bool:
    """Whether a number without words of its own is written in the expression; True and False are none."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, int | float) and not isinstance(value.value, bool)
    if isinstance(value, ast.Call) and ast.unparse(value.func) in DESCRIBING:
        return False
    return value is not None and any(holds_a_number(child) for child in ast.iter_child_nodes(value))


def docstring_of(following: list[ast.stmt]) -> str:
    """The string that stands below a constant."""
    for statement in following:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return str(statement.value.value)
    return ""


def says_where_from(words: str) -> bool:
    """Whether words name a kind (datasheet, measured, ...) or a source (a file, a paper, a guide), and say enough."""
    return len(words.split()) >= LEAST_WORDS and bool(KIND.search(words) or SOURCE.search(words))


@cache
def shipped() -> list[Constant]:
    """The constants of the package."""
    paths = sorted(ROOT.rglob("*.py"))
    return [one for path in paths for one in constants_of(path.read_text(), path.relative_to(ROOT).as_posix())]


def test_every_number_at_the_top_of_a_module_has_a_word_beside_it() -> None:
    found = shipped()
    bare = [f"{one.where} {one.name}" for one in found if not one.words]
    assert len(found) > 200
    assert not bare, "say below each what it is, its unit, its kind and its source:\n" + "\n".join(bare)


@pytest.mark.parametrize("package", SOURCED)
def test_numbers_that_enter_a_prediction_name_a_kind_or_a_source(package: str) -> None:
    found = [one for one in shipped() if one.where.startswith(f"{package}/")]
    unsourced, known = [], False
    for one in found:
        known = says_where_from(one.words) or (known and one.words.startswith("The same "))
        if not known:
            unsourced.append(f"{one.where} {one.name}: {one.words}")
    message = "name a kind (datasheet, measured, fitted, assumed, definition, limit or choice of ours) or a source:\n"
    assert not unsourced, message + "\n".join(unsourced)


@pytest.mark.parametrize(
    "words", ["", "Assumed.", "The tolerance of the search.", "Taken as it is for now, see below."]
)
def test_lazy_words_are_no_source(words: str) -> None:
    assert not says_where_from(words)


@pytest.mark.parametrize(
    "words",
    [
        "Start-up of a ring, us: baseLat of NCCL's src/graph/tuning.cc.",
        "Share of L2 that a replay finds; assumed, as in the fit of L40S.",
        "FFN width over sub-layer width (arXiv 2408.07802, section 3.2).",
    ],
)
def test_a_kind_or_a_file_is_a_source(words: str) -> None:
    assert says_where_from(words)


MADE_UP = """
# Far
# above.
A = 1
B: int = 2
'Below.'
C, D = 3, (
    4,  # beside
)
E = 5
f = 6
G = "six"
H = True
I = {"launch_s": Meaning("Before the first CTA.", 0.0, 1e-6, 1e-3)}
"""


def test_words_are_found_below_above_and_beside_a_constant() -> None:
    found = {one.name: one.words for one in constants_of(MADE_UP, "made_up.py")}
    assert found == {"A": "Far above.", "B": "Below.", "C, D": "beside", "E": ""}
