"""What the simulator says of the measured server's traces; nothing is fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from validation.serving.accuracy import TraceAccuracy, accuracies

FILE = Path(__file__).parent.parent / "validation" / "measurements" / "serving" / "h200-sxm-x1-serving.jsonl"

GATES = {
    None: {"ttft.mean": 0.12, "tpot.mean": 0.12, "throughput": 0.12},
    0.3: {"ttft.mean": 0.13, "ttft.p50": 0.10, "ttft.p90": 0.11, "tpot.mean": 0.08, "throughput": 0.01},
    0.6: {"ttft.mean": 0.06, "ttft.p50": 0.05, "ttft.p90": 0.08, "tpot.mean": 0.09, "throughput": 0.01},
    0.85: {"ttft.mean": 0.25, "ttft.p50": 0.18, "tpot.mean": 0.16, "tpot.p50": 0.14, "throughput": 0.01},
}  # fmt: skip
"""Errors by load; close above today's."""


@pytest.fixture(scope="module")
def found() -> dict[float | None, TraceAccuracy]:
    return {accuracy.fraction: accuracy for accuracy in accuracies(FILE)}


@pytest.mark.parametrize("load", list(GATES))
def test_requests_see_what_is_predicted(found: dict[float | None, TraceAccuracy], load: float | None) -> None:
    errors = found[load].errors
    assert {name: abs(errors[name]) < gate for name, gate in GATES[load].items()} == dict.fromkeys(GATES[load], True)


def test_steps_take_what_is_predicted(found: dict[float | None, TraceAccuracy]) -> None:
    decode = np.concatenate([accuracy.decode_errors for accuracy in found.values()])
    mixed = np.concatenate([accuracy.mixed_errors for accuracy in found.values()])
    assert np.abs(decode).mean() < 0.06
    assert np.abs(mixed).mean() < 0.09
