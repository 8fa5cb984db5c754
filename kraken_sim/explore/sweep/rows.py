"""One design point in, one row of results out; what points share is validated and built once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InfeasibleError, InputError, KrakenSimError
from kraken_sim.predict.columns import TEXT, prediction_columns
from kraken_sim.predict.memo import Memo
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import Scenario, scenario_from, with_absolute_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kraken_sim.explore.sweep.axis_rows import Row
    from kraken_sim.predict.many import RowOrError

_ERROR_COLUMNS = (("error_kind", TEXT), ("error", TEXT))
_ANY = {"hardware": "any", "model": {"preset": "1.3B"}, "context_length": 1}
"""A valid scenario to check one field in: fields of the scenario itself do not depend on one another."""


def result_columns() -> tuple[tuple[str, str], ...]:
    """Columns of a result and their types: a prediction's, then what went wrong.

    Of a point without an answer all are null but the last two; `error_kind` is input, infeasible or internal.
    """
    return (*prediction_columns(), *_ERROR_COLUMNS)


@dataclass(slots=True)
class Evaluator:
    """Answers points of one sweep: `fixed` fields, and the values of `paths`."""

    fixed: Mapping[str, Any]
    paths: Sequence[str]
    folder: str | None = None
    predictor: Predictor = field(default_factory=Predictor)
    swept: dict[str, list[int]] = field(default_factory=dict)
    """By field of the scenario: the positions in a row of the swept fields inside it."""
    constant: dict[str, Any] = field(default_factory=dict)
    """The other fields of the scenario, checked."""
    no_result: tuple[None, ...] = ()
    """All columns of a point without an answer but the last two."""
    _template: Scenario = field(init=False)
    """A scenario of the constant fields alone."""
    _parts: dict[str, Memo[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fixed fields.

        Raises:
            InputError: all that is wrong with them.
        """
        for index, path in enumerate(self.paths):
            self.swept.setdefault(path.partition(".")[0], []).append(index)
        self._parts = {name: Memo() for name in self.swept}
        self.no_result = (None,) * (len(result_columns()) - 2)
        data = with_absolute_paths({k: v for k, v in self.fixed.items() if k not in self.swept}, self.folder)
        given = {**{name: _ANY[name] for name in self.swept if name in _ANY}, **data}
        scenario = scenario_from(given, known_machine="hardware" in self.swept)
        self.constant = {name: getattr(scenario, name) for name in Scenario.model_fields if name not in self.swept}
        self._template = Scenario.model_construct(**self.constant)

    def scenario(self, row: Row) -> Scenario:
        """The scenario of a point.

        Raises:
            InputError: what is wrong with its fields.
        """
        parts: dict[str, Any] = {}
        problems: list[Any] = []
        for name, columns in self.swept.items():
            values = tuple([row[index] for index in columns])
            try:
                parts[name] = self._parts[name].get(values, partial(self.part, name, values))
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        return self._template.model_copy(update=parts)

    def part(self, name: str, values: Row) -> Any:
        """A swept field of the scenario, checked, for the values of the swept fields inside it.

        Raises:
            InputError: what is wrong with it.
        """
        data = {name: self.fixed[name]} if name in self.fixed else {}
        for index, value in zip(self.swept[name], values, strict=True):
            if value is not None:
                data = _with(data, self.paths[index].split("."), value)
        others = {key: value for key, value in _ANY.items() if key != name}
        found = scenario_from({**others, **with_absolute_paths(data, self.folder)}, known_machine=True)
        return getattr(found, name)

    def rows(self, points: Iterable[Row]) -> list[tuple[Any, ...]]:
        """Values and results of several points, these in the order of `result_columns`; an error is a result too.

        Raises:
            MemoryError, OSError: what is short on this machine now says nothing of the point.
        """
        values = list(points)
        asked = [self._asked(row) for row in values]
        answers = iter(self.predictor.predict_many([item for item in asked if isinstance(item, Scenario)]).answers)
        results = (next(answers) if isinstance(item, Scenario) else item for item in asked)
        return [(*row, *self._result(result)) for row, result in zip(values, results, strict=True)]

    def _asked(self, row: Row) -> Scenario | Exception:
        try:
            return self.scenario(row)
        except (MemoryError, OSError):
            raise
        except Exception as error:
            return error

    def _result(self, answer: RowOrError) -> tuple[Any, ...]:
        if isinstance(answer, tuple):
            return (*answer, None, None)
        if isinstance(answer, InputError):
            return (*self.no_result, "input", "; ".join(str(problem) for problem in answer.problems))
        if isinstance(answer, InfeasibleError):
            return (*self.no_result, "infeasible", str(answer))
        # A bug of ours in one point must not cost the others.
        kind = "" if isinstance(answer, KrakenSimError) else f"{type(answer).__name__}: "
        return (*self.no_result, "internal", f"{kind}{answer}")


def _with(data: Mapping[str, Any], path: Sequence[str], value: object) -> dict[str, Any]:
    """A copy of nested mappings with one more value."""
    name, *rest = path
    if not rest:
        return {**data, name: value}
    inner = data.get(name)
    return {**data, name: _with(inner if isinstance(inner, dict) else {}, rest, value)}
