"""Named parameters of a constants dataclass as one vector of logarithms, and a robust fit over it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from scipy.optimize import least_squares

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class DataclassInstance(Protocol):
    """Any dataclass; `dataclasses.replace` works on it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=DataclassInstance)

_LOSS_SCALE = 0.05
"""Relative error from which a sample counts less; a choice of ours, that of a good fit."""

_PRIOR_WEIGHT = 0.2
"""A factor of e away from the start costs as much as this squared many samples with an error of `_LOSS_SCALE`; a choice
of ours."""

_INSIDE = 1e-6
"""Distance from its bounds at which a parameter starts at least, in logarithms; a limit of ours, since the solver
starts inside."""


class Parameters(Generic[C]):
    """Positive parameters of a constants dataclass that a fit may change, each with bounds and a start."""

    def __init__(self, initial: C) -> None:
        self.initial = initial
        self._paths: list[tuple[str, ...]] = []
        self._bounds: list[tuple[float, float]] = []
        self._start: list[float] = []

    def add_field(self, name: str, bounds: tuple[float, float]) -> None:
        """A plain field; starts at its value in `initial`."""
        self._add((name,), bounds, getattr(self.initial, name))

    def add_entry(self, name: str, key: str, bounds: tuple[float, float], start: float) -> None:
        """One value of a mapping field."""
        self._add((name, key), bounds, start)

    def add_nested(self, name: str, key: str, inner: str, bounds: tuple[float, float], start: float) -> None:
        """One value of a mapping of mappings."""
        self._add((name, key, inner), bounds, start)

    def _add(self, path: tuple[str, ...], bounds: tuple[float, float], start: float) -> None:
        self._paths.append(path)
        self._bounds.append(bounds)
        self._start.append(start)

    @property
    def log_bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the vector."""
        low, high = np.log(np.array(self._bounds)).T
        return low, high

    @property
    def start(self) -> Floats:
        """The vector at the start, inside its bounds."""
        low, high = self.log_bounds
        return np.asarray(np.clip(np.log(np.array(self._start)), low + _INSIDE, high - _INSIDE))

    def constants(self, vector: Floats) -> C:
        """The constants that a vector stands for."""
        changes: dict[str, Any] = {}
        for path, value in zip(self._paths, np.exp(vector).tolist(), strict=True):
            if len(path) == 1:
                changes[path[0]] = value
                continue
            mapping = changes.setdefault(path[0], dict(getattr(self.initial, path[0])))
            if len(path) == 2:
                mapping[path[1]] = value
            else:
                mapping[path[1]] = dict(mapping.get(path[1], {})) | {path[2]: value}
        return replace(self.initial, **changes)


def robust_fit(
    parameters: Parameters[C],
    predict: Callable[[C], Floats],
    measured: Floats,
    max_evaluations: int = 150,
) -> C:
    """Constants that bring `predict` near `measured`, both in seconds: soft-L1 loss on log ratios, a weak prior."""
    start = parameters.start
    low, high = parameters.log_bounds
    prior = _PRIOR_WEIGHT * _LOSS_SCALE

    def residuals(vector: Floats) -> Floats:
        ratio = np.log(predict(parameters.constants(vector)) / measured)
        return np.concatenate([ratio, prior * (vector - start)])

    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=_LOSS_SCALE, max_nfev=max_evaluations
    )
    return parameters.constants(found.x)
