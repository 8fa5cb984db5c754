"""A refit against the base: on the same records, which the refit has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kraken_sim.calibration.split import Fit


@dataclass(frozen=True, slots=True)
class Judgement:
    """A block's refit against the base on the same held-out records.

    `before` and `after` are mean |predicted / measured - 1|, None where nothing was held out; `records` is how many the
    fit was given, `adopted` whether its constants went into the profile.
    """

    records: int
    before: float | None
    after: float | None
    adopted: bool


@dataclass(frozen=True, slots=True)
class BaseErrors:
    """What a refit is held against.

    `errors` are the held-out samples of the fit, each with the base's predicted / measured - 1; `records` is how
    many samples the fit was given.
    """

    kernel: str
    class_of: Callable[[Any], tuple[int, str]]
    records: int
    errors: Sequence[tuple[Any, float]]


def base_errors_of(
    kernel: str,
    class_of: Callable[[Any], tuple[int, str]],
    records: int,
    fit: Fit[Any, Any],
    predicted_s: Callable[[Sequence[Any]], Iterable[float]],
) -> BaseErrors:
    """What the base does on samples with a period: `predicted_s` gives the base's."""
    samples = [sample for sample, _ in fit.held_out]
    pairs = zip(samples, predicted_s(samples) if samples else (), strict=True)
    return BaseErrors(kernel, class_of, records, [(sample, float(s) / sample.period_s - 1.0) for sample, s in pairs])
