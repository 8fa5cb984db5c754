"""What kernels on one device take from each other, in cases that can be worked out by hand: SMs, HBM, time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from engine_support import (
    LAUNCH,
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
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.timeline import Span

LATE = replace(NO_INTERFERENCE, collective_dispatch_s=1 * US)
"""The kernel is on the device before the collective."""


def collective_end_us(channels: int, *, ctas: int, ctas_per_sm: int = 2) -> float:
    """When a collective of 10 us ends that is dispatched at 1 us beside a kernel of 30 us."""
    kernel = kernel_cost(30 * US, ctas=ctas, ctas_per_sm=ctas_per_sm)
    steps = (compute(1), collective(COMM_STREAM))
    given = machine({op(1): kernel}, collective_cost(10 * US, channels), contention=LATE)
    timeline = run(program(*steps), given, eager=False)
    return next(span for span in timeline.spans if span.stream == COMM_STREAM).end_s / US


def test_a_grid_is_spread_over_the_sms_before_it_is_stacked() -> None:
    # 60 CTAs of which an SM takes two lie on 60 SMs and not on 30: 40 are free, a 41st only when the kernel ends.
    assert collective_end_us(NUM_SMS - 60, ctas=60) == pytest.approx(10.0)
    assert collective_end_us(NUM_SMS - 59, ctas=60) == pytest.approx(30.0 + 9.0)


@pytest.mark.parametrize("ctas", [NUM_SMS, NUM_SMS + 40, 2 * NUM_SMS])
def test_a_kernel_on_every_sm_leaves_a_collective_none_until_it_ends(ctas: int) -> None:
    assert collective_end_us(1, ctas=ctas) == pytest.approx(30.0 + 9.0)


def beside(kernel: KernelCost, other: CollectiveCost, **changes: Any) -> tuple[Span, Span]:
    """A kernel and a collective that is dispatched 1 us after it, or at once where `collective_dispatch_s` is 0."""
    contention = replace(LATE, **changes)
    given = machine({op(1): kernel}, other, contention=contention)
    spans = run(program(compute(1), collective(COMM_STREAM)), given, eager=False).spans
    return next(s for s in spans if s.stream != COMM_STREAM), next(s for s in spans if s.stream == COMM_STREAM)


def test_a_collective_that_comes_during_a_wave_takes_what_the_last_one_leaves() -> None:
    # 250 CTAs on 100 SMs are waves of 100, 100 and 50, and running kernels give nothing up: 50 SMs are free at 20 us.
    kernel, other = beside(kernel_cost(30 * US, ctas=250), collective_cost(10 * US, 50))
    assert kernel.end_s == pytest.approx(30 * US)
    assert other.end_s == pytest.approx((20 + 9) * US)


def test_ctas_with_one_tile_less_end_a_tile_sooner() -> None:
    # 150 tiles dealt to 100 persistent CTAs: 50 have two of 10 us each, and 50 leave their SMs after one.
    kernel = kernel_cost(20 * US, ctas=NUM_SMS, tiles=150, persistent=True)
    span, other = beside(kernel, collective_cost(10 * US, 50))
    assert span.end_s == pytest.approx(20 * US)
    assert other.end_s == pytest.approx((10 + 9) * US)


@pytest.mark.parametrize(("saturation", "waves_us"), [(0.5, 10.0), (0.8, 16.0), (1.0, 20.0)])
def test_half_of_the_sms_saturate_hbm_or_do_not(saturation: float, waves_us: float) -> None:
    # A memory-bound kernel that finds 50 SMs taken runs in two waves of 50 CTAs, each as fast as its SMs can ask.
    contention = replace(NO_INTERFERENCE, memory_saturation_fraction=saturation)
    kernel = kernel_cost(10 * US, memory_fraction=1.0)
    first = kernel_cost(1e-9, ctas=1)
    given = machine({op(1): kernel, op(2): first}, collective_cost(100 * US, 50), contention=contention)
    spans = run(program(collective(COMM_STREAM), compute(2), compute(1)), given, eager=False).spans
    found = next(span for span in spans if span.name == "kernel_1")
    assert found.duration_s == pytest.approx(waves_us * US, rel=1e-3)


def test_of_two_grids_that_wait_the_one_launched_first_goes_first() -> None:
    # The side stream's 297 CTAs begin on 99 SMs and take the one that a short kernel leaves at 1 us; the main stream's
    # next kernel starts with the SMs that they leave over after 20 us.
    costs = {op(1): kernel_cost(1 * US, ctas=1), op(2): kernel_cost(30 * US, ctas=297), op(3): kernel_cost(10 * US)}
    steps = (compute(1), compute(2, COMM_STREAM), compute(3))
    spans = {span.name: span for span in run(program(*steps), machine(costs), eager=False).spans}
    assert spans["kernel_2"].end_s == pytest.approx(30 * US)
    assert spans["kernel_3"].end_s > 30 * US


@pytest.mark.parametrize(("fraction", "end_us"), [(1.0, 70.0), (0.5, 66.0), (0.0, 60.0)])
def test_a_collective_is_slowed_by_the_share_of_hbm_that_compute_takes(fraction: float, end_us: float) -> None:
    # Slower by half where compute takes all of it: 30 us beside the kernel do 20 us of the work.
    kernel = kernel_cost(30 * US, memory_fraction=fraction)
    _, other = beside(kernel, collective_cost(60 * US), collective_dispatch_s=0.0, collective_memory_slowdown=0.5)
    assert other.end_s == pytest.approx(end_us * US)


def test_compute_is_slowed_by_what_a_collective_moves() -> None:
    # Half of what HBM gives, so by half with a slowdown of 1.
    other = collective_cost(60 * US, hbm_bytes=0.5 * 1e12 * 60 * US)
    kernel, _ = beside(kernel_cost(20 * US), other, collective_dispatch_s=0.0, compute_slowdown=1.0)
    assert kernel.end_s == pytest.approx(30 * US)


def test_hbm_that_a_collective_takes_is_missing_to_a_kernel_that_wants_all() -> None:
    # Demands of 1 and of 0.6 are both met to 1 / 1.6.
    other = collective_cost(60 * US, hbm_bytes=0.6 * 1e12 * 60 * US)
    kernel, _ = beside(kernel_cost(10 * US, memory_fraction=1.0), other, collective_dispatch_s=0.0)
    assert kernel.end_s == pytest.approx(16 * US)


def test_the_start_of_a_kernel_passes_at_its_own_pace_whatever_runs_beside_it() -> None:
    # Half as fast from 1 us on, when a collective comes that takes all of HBM; but its CTAs work only after 4 us.
    other = collective_cost(60 * US, hbm_bytes=1e12 * 60 * US)
    kernel, _ = beside(kernel_cost(10 * US, fixed_s=4 * US), other, compute_slowdown=1.0)
    assert kernel.end_s == pytest.approx((4 + 2 * 6) * US)


def test_an_edge_between_streams_takes_its_time_after_the_recording() -> None:
    steps = (compute(1), RecordEvent("fork", MAIN_STREAM), WaitEvent("fork", COMM_STREAM), compute(2, COMM_STREAM))
    timeline = run(program(*steps), machine(kernel_cost(5 * US), launch=LAUNCH), eager=False)
    first, second = timeline.spans
    assert second.start_s - first.end_s == pytest.approx(LAUNCH.graph_edge_s)


@pytest.mark.parametrize(("beside_us", "queued_us"), [(0.0, 15.0), (40.0, 40.0)])
def test_an_eager_collective_on_a_stream_of_its_own_costs_the_host_more(beside_us: float, queued_us: float) -> None:
    launch = replace(LAUNCH, eager_side_collective_s=beside_us * US)
    given = machine({op(1): kernel_cost(1 * US)}, collective_cost(1 * US), launch=launch)
    spans = run(program(collective(COMM_STREAM), compute(1)), given, eager=True).spans
    kernel = next(span for span in spans if span.stream == MAIN_STREAM)
    assert kernel.start_s == pytest.approx(queued_us * US + LAUNCH.eager_kernel_s)
    blocking = run(program(collective(MAIN_STREAM), compute(1)), given, eager=True).spans
    assert blocking[0].start_s == pytest.approx(LAUNCH.eager_collective_s)
