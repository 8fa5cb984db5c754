from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from engine_support import (
    FORK,
    JOIN,
    LAUNCH,
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
    program,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kraken_sim.engine.resident import launch_shape
from kraken_sim.engine.simulation import run
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.errors import SimulationError
from kraken_sim.program.program import COMM_STREAM

if TYPE_CHECKING:
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost

SHORT = kernel_cost(1 * US, ctas=1)
AFTER = (compute(9),)
"""A short kernel before the one under test, so that the collective is dispatched first."""


def test_a_chain_of_kernels_lasts_the_launch_plus_kernels_plus_gaps() -> None:
    timeline = run(
        program(compute(1), compute(2), compute(3)),
        machine({op(i): kernel_cost(i * 10 * US) for i in (1, 2, 3)}, launch=LAUNCH),
        eager=False,
    )
    assert timeline.duration_s == pytest.approx((8 + 10 + 20 + 30 + 2 * 1) * US, rel=1e-12)


def test_short_kernels_in_eager_mode_are_bound_by_their_host() -> None:
    count = 50
    timeline = run(program(compute(1), repeat=count), machine(kernel_cost(1 * US), launch=LAUNCH), eager=True)
    assert timeline.duration_s == pytest.approx((5 * count + 1) * US, rel=1e-12)


def test_long_kernels_in_eager_mode_hide_their_launches() -> None:
    count = 50
    timeline = run(program(compute(1), repeat=count), machine(kernel_cost(20 * US), launch=LAUNCH), eager=True)
    assert timeline.duration_s == pytest.approx((5 + 20 * count + 1.5 * (count - 1)) * US, rel=1e-12)


def test_a_lead_of_the_host_that_runs_out_is_not_mistaken_for_a_steady_state() -> None:
    # A first kernel of 1 ms lets the host run ahead; each layer costs it more than the device, so after
    # some 60 layers the pass becomes host-bound. Folding must not extrapolate the layers before.
    from kraken_sim.program.program import Program, Segment

    long_pass = Program("test", 1, (Segment("first", (compute(1),)), Segment("layer", (compute(2), compute(3)), 200)))
    costs = {op(1): kernel_cost(1000 * US), op(2): kernel_cost(1 * US), op(3): kernel_cost(1 * US)}
    folded = run(long_pass, machine(costs, launch=LAUNCH), eager=True)
    exact = run(long_pass, machine(costs, launch=LAUNCH), eager=True, exact=True)
    assert folded.end_ps == exact.end_ps


@given(any_cost)
@example(kernel_cost(30 * US, ctas=3 * NUM_SMS + 7, ctas_per_sm=2, fixed_s=0.4 * US, memory_fraction=1.0))
def test_a_lone_kernel_takes_by_events_what_the_closed_form_says(cost: KernelCost) -> None:
    timeline = run(program(compute(1)), machine(cost), eager=False, exact=True)
    assert timeline.end_ps == launch_shape(cost, NUM_SMS).alone_ps
    assert timeline.duration_s == pytest.approx(max(cost.busy_s, cost.fixed_s), abs=2e-12)


def test_streams_wait_for_recorded_events() -> None:
    steps = (compute(1), *FORK, compute(2, COMM_STREAM), compute(3), *JOIN, compute(4))
    costs = {op(1): kernel_cost(5 * US), op(2): kernel_cost(30 * US, ctas=50), op(4): kernel_cost(7 * US)}
    costs[op(3)] = kernel_cost(10 * US, ctas=50)
    spans = {span.name: span for span in run(program(*steps), machine(costs), eager=False).spans}
    assert spans["kernel_2"].start_s == spans["kernel_1"].end_s
    assert spans["kernel_3"].start_s == spans["kernel_1"].end_s
    assert spans["kernel_4"].start_s == spans["kernel_2"].end_s
    assert spans["join"].kind is SpanKind.WAIT
    assert spans["join"].duration_s == pytest.approx(20 * US)


def test_kernels_that_fit_side_by_side_do_not_disturb_each_other() -> None:
    steps = (*FORK, compute(1, COMM_STREAM), compute(2))
    costs = {op(1): kernel_cost(10 * US, ctas=50), op(2): kernel_cost(10 * US, ctas=50)}
    assert run(program(*steps), machine(costs), eager=False).duration_s == pytest.approx(10 * US)


def test_a_plain_grid_beside_a_collective_has_more_waves() -> None:
    # 300 tiles on 100 SMs are 3 waves of 10 us; on the 76 SMs that 24 channels leave they are 4.
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    costs = {op(9): SHORT, op(1): kernel_cost(30 * US, ctas=300)}
    timeline = run(program(*steps), machine(costs, collective_cost(100 * US, channels=24)), eager=False)
    gemm = next(span for span in timeline.spans if span.name == "kernel_1")
    assert gemm.duration_s == pytest.approx(-(-300 // (NUM_SMS - 24)) * 10 * US)


def test_a_persistent_grid_serialises_behind_a_collective_that_outlasts_its_first_ctas() -> None:
    # 100 CTAs with 3 tiles each: 76 start at once and end after 30 us, the 24 displaced ones only then.
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    costs = {op(9): SHORT, op(1): kernel_cost(30 * US, ctas=100, tiles=300, persistent=True)}
    timeline = run(program(*steps), machine(costs, collective_cost(100 * US, channels=24)), eager=False)
    gemm = next(span for span in timeline.spans if span.name == "kernel_1")
    assert gemm.duration_s == pytest.approx(60 * US)


def test_displaced_ctas_of_a_persistent_grid_start_when_the_collective_ends() -> None:
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    costs = {op(9): SHORT, op(1): kernel_cost(30 * US, ctas=100, tiles=300, persistent=True)}
    timeline = run(program(*steps), machine(costs, collective_cost(12 * US, channels=24)), eager=False)
    gemm = next(span for span in timeline.spans if span.name == "kernel_1")
    assert gemm.end_s == pytest.approx((12 + 30) * US)


def test_a_grid_smaller_than_the_free_sms_is_not_hurt() -> None:
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    costs = {op(9): SHORT, op(1): kernel_cost(30 * US, ctas=76, tiles=76, persistent=True)}
    timeline = run(program(*steps), machine(costs, collective_cost(100 * US, channels=24)), eager=False)
    gemm = next(span for span in timeline.spans if span.name == "kernel_1")
    assert gemm.duration_s == pytest.approx(30 * US)


@given(
    ctas=st.integers(1, 450), memory=st.floats(0.0, 1.0), channels=st.integers(1, 60), beside_us=st.floats(1.0, 300.0)
)
def test_a_kernel_beside_a_collective_never_ends_before_it_would_alone(
    ctas: int, memory: float, channels: int, beside_us: float
) -> None:
    """Also where the last wave is nearly empty and has the bandwidth to itself."""
    kernel = kernel_cost(100 * US, ctas=ctas, ctas_per_sm=2, memory_fraction=memory)
    steps = [collective(stream=1), compute(1)]
    contention = replace(NO_INTERFERENCE, memory_saturation_fraction=0.5)
    beside = collective_cost(beside_us * US, channels)
    timeline = run(program(*steps), machine(kernel, beside, contention=contention), eager=False)
    (span,) = [span for span in timeline.spans if span.name == "kernel_1"]
    assert span.duration_s >= 100 * US * (1 - 1e-7)


def test_two_memory_bound_kernels_share_hbm_evenly() -> None:
    steps = (*FORK, compute(1, COMM_STREAM), compute(2))
    cost = kernel_cost(10 * US, ctas=50, memory_fraction=1.0)
    timeline = run(program(*steps), machine({op(1): cost, op(2): cost}), eager=False)
    assert timeline.duration_s == pytest.approx(20 * US)


def test_kernels_that_together_ask_for_more_than_hbm_gives_are_slowed_alike() -> None:
    # 20 % and 100 % of the bandwidth: 120 % of the time for both.
    steps = (*FORK, compute(1, COMM_STREAM), compute(2), *JOIN)
    small = kernel_cost(10 * US, ctas=50, memory_fraction=0.2)
    large = kernel_cost(10 * US, ctas=50, memory_fraction=1.0)
    spans = {s.name: s for s in run(program(*steps), machine({op(1): small, op(2): large}), eager=False).spans}
    assert spans["kernel_1"].duration_s == pytest.approx(12 * US)
    assert spans["kernel_2"].duration_s == pytest.approx(12 * US)


def test_waves_spread_over_the_sms_that_a_collective_sets_free() -> None:
    # 276 CTAs of 10 us: 76 start at 0, 10 and 20 us, and 24 more at 12 us, when the collective ends, and at 22 us.
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    costs = {op(9): kernel_cost(1e-3 * US, ctas=1), op(1): kernel_cost(30 * US, ctas=276)}
    timeline = run(program(*steps), machine(costs, collective_cost(12 * US, channels=24)), eager=False)
    assert timeline.duration_s == pytest.approx(32 * US, rel=1e-3)


def test_memory_traffic_slows_a_collective_only_while_both_run() -> None:
    steps = (*FORK, collective(COMM_STREAM), compute(1), *JOIN)
    contention = replace(NO_INTERFERENCE, collective_memory_slowdown=0.5)
    costs = {op(1): kernel_cost(30 * US, ctas=100, memory_fraction=1.0)}
    timeline = run(program(*steps), machine(costs, collective_cost(60 * US), contention=contention), eager=False)
    # 30 us beside the kernel at 1/1.5 of the speed do 20 us of the work; 40 us follow at full speed.
    assert timeline.duration_s == pytest.approx(70 * US)


def test_a_collective_starts_when_its_last_rank_arrives_and_a_missing_rank_is_named() -> None:
    with pytest.raises(SimulationError, match=r"rank 0 stream 0: layer\[0\] all_reduce"):
        run(program(collective(num_devices=4), num_devices=2), machine({}), eager=False, exact=True)


def test_the_same_program_gives_the_same_timeline() -> None:
    steps = (*FORK, collective(COMM_STREAM), compute(1), *JOIN)
    given_machine = machine(kernel_cost(30 * US, ctas=300), collective_cost(50 * US, channels=24))
    first = run(program(*steps), given_machine, eager=False, exact=True)
    assert first == run(program(*steps), given_machine, eager=False, exact=True)


def test_a_narrow_memory_bound_kernel_ends_though_its_last_work_takes_less_than_half_a_picosecond() -> None:
    # The 24 displaced CTAs may run at 1/0.3 of their usual speed; rounding once left work that rounds to 0 ps.
    steps = (*FORK, collective(COMM_STREAM), *AFTER, compute(1), *JOIN)
    contention = replace(NO_INTERFERENCE, memory_saturation_fraction=0.3)
    for number in range(200):
        busy_s = (20 + number / 7.0) * US
        gemm = kernel_cost(busy_s, tiles=1000, persistent=True, memory_fraction=1.0)
        given_machine = machine({op(9): SHORT, op(1): gemm}, collective_cost(busy_s / 3.0, 24), contention=contention)
        assert busy_s <= run(program(*steps), given_machine, eager=False).duration_s < 3.0 * busy_s


def test_a_clock_that_stands_still_is_an_error_that_names_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a kernel's end would look like if rounding never let it be reached.
    monkeypatch.setattr("kraken_sim.engine.resident.ComputeKernel.wave_is_over", property(lambda _: False))
    monkeypatch.setattr("kraken_sim.engine.device.DeviceState._set_timer", _fire_at_once)
    with pytest.raises(SimulationError, match=r"stands still at 0 ps .* rank 0 stream 0: layer\[0\] kernel_1"):
        run(program(compute(1)), machine(kernel_cost(1 * US)), eager=False, exact=True)


def _fire_at_once(device: Any, _: Any) -> Any:
    device.env.timeout(0).callbacks.append(lambda _: device._settle())


@settings(max_examples=60, deadline=None)
@given(any_cost, any_cost, any_cost, collectives, contentions, st.booleans(), st.integers(2, 30))
def test_folding_equals_the_full_simulation(
    first: KernelCost,
    second: KernelCost,
    third: KernelCost,
    all_reduce: CollectiveCost,
    contention: ContentionConstants,
    eager: bool,
    repeat: int,
) -> None:
    steps = (compute(1), *FORK, collective(COMM_STREAM), compute(2), *JOIN, compute(3))
    given_machine = machine(
        {op(1): first, op(2): second, op(3): third}, all_reduce, launch=LAUNCH, contention=contention
    )
    layered = program(*steps, repeat=repeat)
    folded = run(layered, given_machine, eager=eager)
    exact = run(layered, given_machine, eager=eager, exact=True)
    assert folded.end_ps == exact.end_ps
    own = [span for span in exact.spans if span.rank == 0]
    assert [(s.name, s.stream, s.start_ps, s.end_ps) for s in folded.spans] == [
        (s.name, s.stream, s.start_ps, s.end_ps) for s in own
    ]


@settings(max_examples=60, deadline=None)
@example(
    kernel_cost(150e-6, ctas=1),
    kernel_cost(272e-6, ctas=301, fixed_s=0.46e-6),
    collective_cost(150e-6, channels=1),
)  # an SM that is freed the moment a kernel starts must not let its CTAs skip the start
@given(any_cost, any_cost, collectives)
def test_makespan_lies_between_the_critical_path_and_the_serial_sum(
    first: KernelCost, second: KernelCost, all_reduce: CollectiveCost
) -> None:
    steps = (*FORK, collective(COMM_STREAM), compute(1), compute(2), *JOIN)
    costs = {op(1): first, op(2): second}
    timeline = run(program(*steps), machine(costs, all_reduce), eager=False)
    critical = max(first.busy_s + second.busy_s, all_reduce.busy_s)
    assert timeline.duration_s >= critical * (1 - 1e-6) - 1e-11
    # Displaced CTAs may need a wave of their own for each kernel, never more than the kernel again.
    serial = 2 * (first.busy_s + second.busy_s) + all_reduce.busy_s
    assert timeline.duration_s <= serial * (1 + 1e-6) + 1e-11
