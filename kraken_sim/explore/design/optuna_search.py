"""Sampling a space that is too large to try whole, with Optuna (optional: `pip install kraken_sim[explore]`)."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.explore.design.request import DesignRequest, Objective
    from kraken_sim.explore.design.shape import Design

SEED: Final = 0
"""Seed of the sampler: the same search gives the same answer."""

STARTUP_SHARE: Final = 0.2
"""Share of the evaluations that are random, before the estimator has something to learn from."""


class Judged(Protocol):
    """What is predicted of a design."""

    def minimised(self, objective: Objective) -> float:
        """Its value by an objective, the lower the better."""


class Judge(Protocol):
    """Who predicts a design and says whether it keeps the constraints."""

    request: DesignRequest

    def __call__(self, design: Design) -> Judged | None:
        """What is predicted of a design; None if it breaks a constraint."""

    def breaks_shape(self, design: Design) -> bool:
        """Whether a design breaks a constraint that needs no simulation."""


def sample(space: Sequence[Design], judge: Judge, progress: Callable[[int, int], None] | None = None) -> None:
    """Lets Optuna's tree-structured Parzen estimator pick designs until the request's evaluations are spent.

    The estimator proposes a value for every field; the design evaluated is the one nearest to the proposal among those
    that keep the cheap constraints and were not tried yet, and the estimator learns of that design.

    Raises:
        InputError: Optuna is not installed.
    """
    most = judge.request.max_evaluations
    try:
        import optuna
    except ImportError:
        message = f"the space has {len(space)} designs; install kraken_sim[explore] to sample it, or raise this number"
        raise InputError.single("max_evaluations", message, most, str(len(space))) from None
    left = _Untried([design for design in space if not judge.breaks_shape(design)])
    if not left.designs:
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = judge.request.objectives
    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=max(10, round(STARTUP_SHARE * most)))
    study = optuna.create_study(directions=["minimize"] * len(objectives), sampler=sampler)
    distributions: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(list(range(len(values))))
        for name, values in left.values.items()
    }
    for count in range(1, most + 1):
        if not distributions or left.is_empty:
            return
        proposal = study.ask(distributions)
        design, params = left.take_nearest(proposal.params)
        found = judge(design)
        study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        if found is not None:
            values = [found.minimised(objective) for objective in objectives]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))
        if progress is not None:
            progress(count, most)


class _Untried:
    """Designs as rows of value numbers, one column a field that varies."""

    def __init__(self, designs: Sequence[Design]) -> None:
        self.designs = designs
        self.values: dict[str, list[Any]] = {}
        if designs:
            found = {
                item.name: sorted({getattr(d, item.name) for d in designs}, key=_order) for item in fields(designs[0])
            }
            self.values = {name: values for name, values in found.items() if len(values) > 1}
        columns = []
        for name, values in self.values.items():
            number = {value: index for index, value in enumerate(values)}
            columns.append([number[getattr(design, name)] for design in designs])
        self.rows = np.array(columns, dtype=int).T.reshape(len(designs), len(columns))
        self.scale = np.array([len(values) - 1 for values in self.values.values()])
        self.untried = np.ones(len(designs), dtype=bool)

    @property
    def is_empty(self) -> bool:
        """Whether every design was taken."""
        return not self.untried.any()

    def take_nearest(self, params: dict[str, Any]) -> tuple[Design, dict[str, int]]:
        """The untried design with the fewest other fields, then the nearest values; it counts as tried from now on."""
        wanted = np.array([params[name] for name in self.values])
        away = np.abs(self.rows - wanted)
        distance = (away > 0).sum(axis=1) + (away / self.scale).mean(axis=1)
        index = int(np.argmin(np.where(self.untried, distance, np.inf)))
        self.untried[index] = False
        return self.designs[index], {
            name: int(value) for name, value in zip(self.values, self.rows[index], strict=True)
        }


def _order(value: Any) -> tuple[bool, Any]:
    """None (NCCL's own choice of channels) after all numbers."""
    return (value is None, 0 if value is None else value)
