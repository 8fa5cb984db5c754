"""What a collective finds free beside running compute: SMs without a single CTA, but for those it cannot reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_support import (
    NO_INTERFERENCE,
    NUM_SMS,
    US,
    collective,
    collective_cost,
    compute,
    kernel_cost,
    machine,
    op,
    program,
)

from kraken_sim.engine.simulation import run
from kraken_sim.program.program import COMM_STREAM

LATE = replace(NO_INTERFERENCE, collective_dispatch_s=1 * US)
"""The kernel is on the device before the collective."""


def collective_end_us(channels: int, *, ctas: int, ctas_per_sm: int = 2, stranded_sms: int = 0) -> float:
    """When a collective of 10 us ends that is dispatched at 1 us beside a kernel of 30 us."""
    kernel = kernel_cost(30 * US, ctas=ctas, ctas_per_sm=ctas_per_sm)
    contention = replace(LATE, stranded_sms=stranded_sms)
    steps = (compute(1), collective(COMM_STREAM))
    given = machine({op(1): kernel}, collective_cost(10 * US, channels), contention=contention)
    timeline = run(program(*steps), given, eager=False)
    return next(span for span in timeline.spans if span.stream == COMM_STREAM).end_s / US


def test_a_grid_is_spread_over_the_sms_before_it_is_stacked() -> None:
    # 60 CTAs of which an SM takes two lie on 60 SMs and not on 30: 40 are free, a 41st only when the kernel ends.
    assert collective_end_us(NUM_SMS - 60, ctas=60) == pytest.approx(10.0)
    assert collective_end_us(NUM_SMS - 59, ctas=60) == pytest.approx(30.0 + 9.0)


@pytest.mark.parametrize("ctas", [NUM_SMS, NUM_SMS + 40, 2 * NUM_SMS])
def test_a_kernel_on_every_sm_leaves_a_collective_none_until_it_ends(ctas: int) -> None:
    assert collective_end_us(1, ctas=ctas) == pytest.approx(30.0 + 9.0)


def test_sms_that_running_compute_strands_are_out_of_reach_until_it_ends() -> None:
    assert collective_end_us(NUM_SMS - 60 - 6, ctas=60, stranded_sms=6) == pytest.approx(10.0)
    assert collective_end_us(NUM_SMS - 60 - 5, ctas=60, stranded_sms=6) == pytest.approx(30.0 + 9.0)


def test_a_device_without_compute_strands_none() -> None:
    given = machine({}, collective_cost(10 * US, NUM_SMS), contention=replace(LATE, stranded_sms=6))
    assert run(program(collective()), given, eager=False).duration_s == pytest.approx(10 * US)
