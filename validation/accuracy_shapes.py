"""Shapes that no fit has seen, and errors on them; for the tables of single kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kraken_sim.calibration.split import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kraken_sim.calibration.attention import AttentionSample
    from kraken_sim.calibration.gemm import GemmSample
    from kraken_sim.calibration.split import Key
    from validation.accuracy_table import Line

Sample = TypeVar("Sample")


def held_out(samples: list[Sample], shape: Callable[[Sample], Key]) -> list[Sample]:
    """The samples whose shapes no fit has seen."""
    return split(samples, shape)[1]


def by_name(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Lines in the order of the profiles' names."""
    return tuple(sorted(lines, key=lambda item: item.labels[0]))


def relative_errors(samples: Sequence[GemmSample | AttentionSample], periods_s: Iterable[float]) -> list[float]:
    """Predicted over measured period of each sample, minus one."""
    return [float(period) / sample.period_s - 1.0 for period, sample in zip(periods_s, samples, strict=True)]
