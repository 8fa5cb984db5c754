"""Many scenarios at once: those that share a program's structure are answered together, as arrays.

A group's scenario has arrays [num_points] for its lengths and its batch, and goes the way that every scenario goes.
What decides on structure must be the same at all points; where it is not, the group is divided and its parts are
answered apart. What is left over, and what cannot be answered, goes one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kraken_sim.architectures.registry import architecture
from kraken_sim.architectures.workload import Phase
from kraken_sim.files.garbage import collecting_seldom
from kraken_sim.predict.columns import prediction_columns
from kraken_sim.predict.records import Records
from kraken_sim.program.many import DividedError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario

    Predict = Callable[[Scenario], Prediction]

MOST_TOGETHER: Final = 1_000
"""Points that are answered at once, so that what they need stays in a core's caches; a choice of ours."""

LEAST_TOGETHER: Final = 4
"""Fewer are faster one by one; a choice of ours."""

_NUMBERS: Final = ("batch_size", "context_length", "prefix_length")
"""Fields of a scenario on which no structure depends."""

RowOrError = tuple[Any, ...] | Exception


@dataclass(frozen=True, slots=True)
class ManyAnswers:
    """Answers in the order of their scenarios: a row of `prediction_columns` each, or what is wrong with it."""

    answers: list[RowOrError]

    @property
    def records(self) -> Records:
        """One flat row an answered scenario."""
        names = [name for name, _ in prediction_columns()]
        rows = (answer for answer in self.answers if isinstance(answer, tuple))
        return Records(dict(zip(names, row, strict=True)) for row in rows)


def answers_of(predict: Predict, scenarios: Sequence[Scenario]) -> ManyAnswers:
    """See `Predictor.predict_many`, whose `predict` answers one scenario, or one of many points."""
    answers: list[Any] = [None] * len(scenarios)
    with collecting_seldom():
        for group in _alike(scenarios):
            for start in range(0, len(group), MOST_TOGETHER):
                _answer(predict, scenarios, group[start : start + MOST_TOGETHER], answers)
    return ManyAnswers(answers)


def _alike(scenarios: Sequence[Scenario]) -> Iterator[list[int]]:
    """The numbers of scenarios that differ in `_NUMBERS` alone."""
    numbers: dict[int, int] = {}
    kept: dict[Hashable, int] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, scenario in enumerate(scenarios):
        key = []
        for part in (scenario.model, scenario.architecture, scenario.runtime, scenario.sequences):
            # Sweeps share the parts of their scenarios, so that few of them need to be compared.
            number = numbers.get(id(part))
            if number is None:
                number = numbers[id(part)] = kept.setdefault(part, len(kept))
            key.append(number)
        rest = (
            scenario.hardware, scenario.num_devices, scenario.placement, scenario.phase, scenario.dtype,
            scenario.quantization, scenario.activation_scheme, scenario.kv_cache_dtype, scenario.output_length,
        )  # fmt: skip
        groups.setdefault((*key, *rest), []).append(index)
    yield from groups.values()


def _answer(predict: Predict, scenarios: Sequence[Scenario], group: list[int], answers: list[Any]) -> None:
    """Fill in the answers of a group."""
    waiting = [group]
    while waiting:
        some = waiting.pop()
        if len(some) < LEAST_TOGETHER or not _goes_together(scenarios[some[0]]):
            for index in some:
                answers[index] = _alone(predict, scenarios[index])
            continue
        try:
            prediction = predict(_of_many([scenarios[index] for index in some]))
            for index, row in zip(some, _rows(prediction, len(some)), strict=True):
                answers[index] = row
        except DividedError as divided:
            _, part = np.unique(divided.labels, return_inverse=True)
            members = np.array(some)
            waiting += [members[part == number].tolist() for number in range(part.max() + 1)]
        except (MemoryError, OSError):
            raise
        except Exception:  # what is wrong with one of them must not cost the others
            for index in some:
                answers[index] = _alone(predict, scenarios[index])


def _goes_together(scenario: Scenario) -> bool:
    """Whether one program of arrays can stand for such scenarios."""
    single = scenario.phase is not Phase.GENERATE and scenario.sequences is None
    return single and architecture(scenario.architecture.kind).answers_any_step


def _of_many(scenarios: Sequence[Scenario]) -> Scenario:
    """The scenario of many points; what is the same at all of them stays a number, but for the length."""
    changes: dict[str, Any] = {}
    for name in _NUMBERS:
        values = np.array([getattr(scenario, name) for scenario in scenarios], dtype=np.int64)
        if name == "context_length" or (values != values[0]).any():
            changes[name] = values
    return scenarios[0].model_copy(update=changes)


def _rows(prediction: Prediction, num: int) -> Iterator[tuple[Any, ...]]:
    return zip(*(_column(value, num) for value in prediction.row), strict=True)


def _column(value: Any, num: int) -> list[Any]:
    """The value of every point as a plain number."""
    found = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return found if isinstance(found, list) else [found] * num


def _alone(predict: Predict, scenario: Scenario) -> RowOrError:
    try:
        return predict(scenario).row
    except (MemoryError, OSError):
        raise
    except Exception as error:  # of one point, whose answer it is; others go on
        return error
