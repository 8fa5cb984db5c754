"""The contract's scenario, changed at will, and the problems of a wrong one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kraken_sim.errors import InputError
from kraken_sim.scenario.resolve import ResolvedModel, resolve_model
from kraken_sim.scenario.spec import scenario_from

CONTRACT: dict[str, Any] = {
    "name": "kraken-6.7b-on-two-h200",
    "hardware": "h200-sxm-x2",
    "model": {"preset": "6.7B", "num_hidden_layers": 32},
    "architecture": {"kind": "kraken", "ways": 2, "hidden_size": 3584, "num_attention_heads": 28},
    "num_devices": 2,
    "phase": "prefill",
    "batch_size": 1,
    "context_length": 2048,
    "dtype": "float16",
    "runtime": {
        "launch": "graph",
        "overlap": True,
        "collective": {"library": "nccl", "channels": None, "transport": "auto"},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The contract's scenario with some top-level keys replaced; None removes one."""
    data = copy.deepcopy(CONTRACT) | changes
    return {key: value for key, value in data.items() if value is not None}


def resolved(**changes: Any) -> ResolvedModel:
    return resolve_model(scenario_from(changed(**changes)))


def problems(data: object, machine_devices: int | None = None) -> dict[str, str]:
    """The text of every problem of a scenario, by path."""
    with pytest.raises(InputError) as raised:
        resolve_model(scenario_from(data), machine_devices)
    found: dict[str, str] = {}
    for problem in raised.value.problems:
        found[problem.path] = f"{found.get(problem.path, '')}{problem}\n"
    return found
