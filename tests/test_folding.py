"""What is skipped is what would have happened: folded timelines against the simulation of everything by events."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from engine_support import (
    FORK,
    JOIN,
    LAUNCH,
    NO_GAPS,
    NO_INTERFERENCE,
    NUM_SMS,
    US,
    any_cost,
    collective,
    collective_cost,
    collectives,
    compute,
    contentions,
    kernel_cost,
    machine,
    op,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.engine.device import DeviceState
from kraken_sim.engine.pieces import Window, pieces_of
from kraken_sim.engine.simulation import run
from kraken_sim.engine.windows import SimulatedWindows
from kraken_sim.predict.what_if import with_host_times
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Program, Segment, WaitEvent

if TYPE_CHECKING:
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.ranks import Machine
    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.hardware.device import LaunchCosts
    from kraken_sim.program.program import Step


@st.composite
def segments(draw: st.DrawFn, name: str) -> Segment:
    """Kernels and blocking collectives of the main stream, and windows with work on both streams, repeated."""
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 3))):
        main = st.one_of(st.integers(0, 5).map(compute), st.just(collective()))
        if draw(st.booleans()):
            side = st.one_of(st.integers(0, 5).map(lambda n: compute(n, COMM_STREAM)), ALL_REDUCE_BESIDE)
            inside = draw(st.lists(st.one_of(main, side), max_size=5))
            steps += [*FORK, draw(ALL_REDUCE_BESIDE), *inside, *JOIN]
        else:
            steps.append(draw(main))
    return Segment(name, tuple(steps), draw(st.integers(1, 25)))


ALL_REDUCE_BESIDE = st.just(collective(COMM_STREAM))
programs = st.tuples(segments("first"), segments("second")).map(lambda both: Program("test", 2, both))
launches = st.one_of(
    st.sampled_from([LAUNCH, NO_GAPS]),
    st.builds(
        lambda kernel_us, event_us, gap_us, edge_us: replace(
            LAUNCH,
            eager_kernel_s=kernel_us * US,
            eager_event_s=event_us * US,
            eager_kernel_gap_s=gap_us * US,
            graph_node_gap_s=gap_us * US,
            graph_edge_s=edge_us * US,
        ),
        st.integers(0, 60), st.integers(0, 10), st.integers(0, 3), st.integers(0, 3),
    ),
)  # fmt: skip


def spans_of(timeline: Timeline) -> list[tuple[object, ...]]:
    return [
        (span.name, span.segment, span.iteration, span.stream, span.start_ps, span.end_ps)
        for span in timeline.spans
        if span.rank == 0
    ]


def both(program: Program, given_machine: Machine, *, eager: bool) -> tuple[Timeline, Timeline]:
    return run(program, given_machine, eager=eager), run(program, given_machine, eager=eager, exact=True)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.lists(any_cost, min_size=6, max_size=6), collectives, contentions, launches, st.booleans())
def test_any_program_folds_to_the_timeline_of_the_full_simulation(
    program: Program,
    costs: list[KernelCost],
    all_reduce: CollectiveCost,
    contention: ContentionConstants,
    launch: LaunchCosts,
    eager: bool,
) -> None:
    prices = {op(number): cost for number, cost in enumerate(costs)}
    folded, exact = both(program, machine(prices, all_reduce, launch, contention), eager=eager)
    assert folded.end_ps == exact.end_ps
    assert sorted(spans_of(folded)) == sorted(spans_of(exact))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(segments("layer"), st.lists(any_cost, min_size=6, max_size=6), collectives, contentions, st.booleans())
def test_waves_that_follow_each_other_end_when_they_would_one_by_one(
    segment: Segment, costs: list[KernelCost], all_reduce: CollectiveCost, contention: ContentionConstants, eager: bool
) -> None:
    prices = {op(number): cost for number, cost in enumerate(costs)}
    program = Program("test", 2, (replace(segment, repeat=2),))
    given_machine = machine(prices, all_reduce, LAUNCH, contention)
    together = run(program, given_machine, eager=eager)
    with patch.object(DeviceState, "_cycle_of", lambda *_: None):
        one_by_one = run(program, given_machine, eager=eager)
    assert spans_of(together) == spans_of(one_by_one)


def test_waves_beside_a_collective_are_few_events() -> None:
    """24 SMs are a collective's while a grid of 40 waves runs on the others, which it then takes up as well."""
    steps = (*FORK, collective(COMM_STREAM), compute(0), compute(1), *JOIN)
    program = Program("test", 2, (Segment("layer", steps),))
    costs = {op(0): kernel_cost(20 * US, ctas=8), op(1): kernel_cost(400 * US, ctas=40 * NUM_SMS + 7)}
    timelines = []
    for cycles in (True, False):
        given_machine = machine(costs, collective_cost(150 * US, channels=24), LAUNCH)
        with nullcontext() if cycles else patch.object(DeviceState, "_cycle_of", lambda *_: None):
            timelines.append(run(program, given_machine, eager=False))
    few, many = timelines
    assert spans_of(few) == spans_of(many)
    assert many.num_events > 60
    assert few.num_events < many.num_events / 2


def test_a_program_is_cut_where_the_device_is_idle() -> None:
    inside = (*FORK, collective(COMM_STREAM), compute(1), compute(2), *JOIN)
    assert pieces_of((compute(0), collective(), compute(3))) == (compute(0), collective(), compute(3))
    first, window, last = pieces_of((compute(0), *inside, compute(3))) or ()
    assert (first, last) == (compute(0), compute(3))
    assert isinstance(window, Window)
    assert window.steps == inside


@pytest.mark.parametrize(
    ("steps", "left_out"),
    [
        ((collective(COMM_STREAM), compute(1), *JOIN), 0),  # nothing says when the side stream starts
        ((*FORK, collective(COMM_STREAM), compute(1)), 0),  # nobody waits for it: it falls behind layer by layer
        # Joined a layer later.
        ((WaitEvent("join", MAIN_STREAM), compute(1), *FORK, collective(COMM_STREAM), *JOIN[:1]), 10),
    ],
)
def test_a_program_that_is_never_idle_in_between_is_simulated_until_it_repeats(
    steps: tuple[Any, ...], left_out: int
) -> None:
    program = Program("test", 2, (Segment("layer", steps, 15),))
    assert pieces_of(steps) is None
    given_machine = machine(kernel_cost(30 * US, ctas=300), collective_cost(50 * US, channels=24), LAUNCH)
    folded, exact = both(program, given_machine, eager=False)
    assert sum(fold.count for fold in folded.folds) == left_out
    assert spans_of(folded) == spans_of(exact)


def test_a_persistent_grid_of_more_ctas_than_fit_takes_as_long_by_events_as_in_closed_form() -> None:
    cost = kernel_cost(30 * US, ctas=3 * NUM_SMS + 7, tiles=5 * NUM_SMS, persistent=True)
    program = Program("test", 2, (Segment("layer", (compute(1), compute(2)), 9),))
    folded, exact = both(program, machine(cost, launch=LAUNCH, contention=NO_INTERFERENCE), eager=False)
    assert folded.end_ps == exact.end_ps
    assert folded.folds


def test_a_lead_of_the_host_is_skipped_at_once_and_its_end_is_simulated() -> None:
    # 1 ms of lead, 4 us lost in each of 1000 layers: some 250 equal layers, some at the turn, equal ones again.
    program = Program("test", 1, (Segment("first", (compute(0),)), Segment("layer", (compute(1), compute(2)), 1000)))
    costs = {op(0): kernel_cost(1000 * US), op(1): kernel_cost(2 * US), op(2): kernel_cost(1 * US)}
    folded, exact = both(program, machine(costs, launch=LAUNCH), eager=True)
    assert spans_of(folded) == spans_of(exact)
    assert len(folded.simulated) < 20


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.lists(any_cost, min_size=6, max_size=6), collectives, st.floats(0.05, 8.0))
def test_runs_on_other_hosts_share_windows_and_take_as_long_as_by_themselves(
    program: Program, costs: list[KernelCost], all_reduce: CollectiveCost, factor: float
) -> None:
    own = machine({op(number): cost for number, cost in enumerate(costs)}, all_reduce, launch=LAUNCH)
    windows = SimulatedWindows()
    run(program, own, eager=True, windows=windows)
    shared = run(program, with_host_times(own, factor), eager=True, windows=windows)
    assert shared.end_ps == run(program, with_host_times(own, factor), eager=True, exact=True).end_ps


@pytest.mark.parametrize(("layers", "lasts"), [(60, True), (400, False)])
def test_layers_that_run_into_each_other_repeat_while_the_lead_of_the_host_lasts(layers: int, lasts: bool) -> None:
    # 200 us of lead, of which every layer takes 1 us: 33 us of the host, 32 us of the device.
    steps = (WaitEvent("join", MAIN_STREAM), compute(1), *FORK, collective(COMM_STREAM), JOIN[0], compute(2))
    program = Program("test", 2, (Segment("first", (compute(0),)), Segment("layer", steps, layers)))
    costs = {op(0): kernel_cost(200 * US), op(1): kernel_cost(15 * US), op(2): kernel_cost(14 * US)}
    given_machine = machine(costs, collective_cost(5 * US, channels=0), LAUNCH, NO_INTERFERENCE)
    folded, exact = both(program, given_machine, eager=True)
    assert spans_of(folded) == spans_of(exact)
    assert bool(folded.folds) == lasts


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
def test_only_what_is_distinct_is_simulated(kind: str) -> None:
    asked = {
        "hardware": "h200-sxm-x8",
        "model": {"preset": "175B"},
        "architecture": {"kind": kind},
        "num_devices": 8,
        "context_length": 512,
    }
    assert len(simulate(asked).timeline.simulated) < 50
    assert simulate(asked).timeline.num_events < 120
