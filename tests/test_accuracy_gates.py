"""No change makes predictions worse unseen: the figures of `tests/accuracy_today.py` hold, each within a tenth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import accuracy_today
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_errors_on_whole_passes_are_those_written_down() -> None:
    assert accuracy_today.moved(accuracy_today.figures_of_passes(), accuracy_today.recorded(tables=False)) == []


def test_errors_on_published_kernels_are_those_written_down(public_table: Callable[[str], Path]) -> None:
    folder = public_table("gemm_bf16_h100sxm_trtllm.csv").parent
    assert accuracy_today.moved(accuracy_today.figures_of_tables(folder), accuracy_today.recorded(tables=True)) == []


@pytest.mark.parametrize(
    ("now", "then", "words"),
    [
        (4.3, 4.0, []),
        (4.5, 4.0, ["x: worse, 4.50 against 4.00"]),
        (3.5, 4.0, ["x: better, 3.50 against 4.00; write it down"]),
        (0.04, 0.0, []),
        (1.0, 0.0, ["x: worse, 1.00 against 0.00"]),
        (None, 4.0, ["x: is None, was 4.0"]),
    ],
)
def test_a_figure_may_move_by_a_tenth(now: float | None, then: float, words: list[str]) -> None:
    assert accuracy_today.moved({} if now is None else {"x": now}, {"x": then}) == words
