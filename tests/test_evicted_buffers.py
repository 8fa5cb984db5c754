"""Collectives that poll buffers in L2: what it costs them that a program's weights stream through it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from engine_support import (
    FORK,
    JOIN,
    NO_INTERFERENCE,
    US,
    collective,
    collective_cost,
    compute,
    kernel_cost,
    machine,
    op,
    program,
)
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.contention import LL_LAP_BYTES, evicted
from kraken_sim.engine.simulation import run
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Collective, CollectiveKind
from kraken_sim.program.program import COMM_STREAM
from kraken_sim.scenario.spec import Scenario

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost

PAIR = load_profile("h200-sxm-x2")
SLOWDOWN = PAIR.contention.eviction_slowdown


def all_reduce(num_bytes: int, policy: CollectivePolicy) -> CollectiveCost:
    return Pricing(PAIR, policy).collective(Collective(CollectiveKind.ALL_REDUCE, num_bytes, 2))


def test_only_ll_over_nvlink_polls_l2() -> None:
    assert all_reduce(1 << 18, CollectivePolicy(protocol="ll")).polls_l2
    assert not all_reduce(1 << 18, CollectivePolicy(protocol="simple")).polls_l2
    assert not all_reduce(1 << 18, CollectivePolicy(protocol="ll", transport=Transport.SHM)).polls_l2
    assert not all_reduce(1 << 26, CollectivePolicy()).polls_l2


def test_weights_that_stream_cost_the_first_lap_over_the_buffers() -> None:
    for channels in (1, 4):
        lap = channels * LL_LAP_BYTES
        short, long = (all_reduce(size, CollectivePolicy(protocol="ll", channels=channels)) for size in (lap, 4 * lap))
        assert short.link_bytes == lap
        assert evicted(short, True, PAIR.contention).busy_s == pytest.approx((1.0 + SLOWDOWN) * short.busy_s)
        assert evicted(long, True, PAIR.contention).busy_s == pytest.approx((1.0 + SLOWDOWN / 4.0) * long.busy_s)


@given(st.integers(10, 26), st.sampled_from(("ll", "simple")), st.sampled_from((None, 1, 4, 16)))
def test_what_nothing_streams_past_or_does_not_poll_costs_what_it_costs_alone(
    log_bytes: int, protocol: str, channels: int | None
) -> None:
    cost = all_reduce(1 << log_bytes, CollectivePolicy(protocol=protocol, channels=channels))
    assert evicted(cost, False, PAIR.contention) == cost
    streamed = evicted(cost, True, PAIR.contention)
    assert (streamed == cost) is not cost.polls_l2
    assert cost.busy_s <= streamed.busy_s <= (1.0 + SLOWDOWN) * cost.busy_s
    assert streamed.busy_s == pytest.approx(streamed.latency_s + streamed.transfer_s)
    assert streamed.busy_s / streamed.evicted_pace == pytest.approx((1.0 + SLOWDOWN * cost.polls_l2) * cost.busy_s)


def test_a_kernel_beside_it_slows_a_collective_that_polls_to_its_end_and_no_other() -> None:
    """Half its pace, through no channels: a kernel of 10 us beside 100 us of it, of which the rest is slower too."""
    steps = (*FORK, collective(COMM_STREAM), compute(1), *JOIN)
    costs = {op(1): kernel_cost(10 * US)}
    plain = collective_cost(100 * US)
    for pace in (1.0, 0.5):
        polling = replace(plain, evicted_pace=pace)
        beside = run(program(*steps), machine(costs, polling), eager=False)
        alone = run(program(collective()), machine(costs, polling), eager=False)
        assert beside.duration_s == pytest.approx(100 * US / pace)
        assert alone.duration_s == pytest.approx(100 * US)


def test_of_the_traffic_beside_it_a_collective_feels_the_share_that_it_is_told() -> None:
    loaded = replace(NO_INTERFERENCE, collective_memory_slowdown=1.0)
    steps = (*FORK, collective(COMM_STREAM), compute(1), *JOIN)
    costs = {op(1): kernel_cost(1000 * US, memory_fraction=1.0)}
    for share in (1.0, 0.25):
        told = replace(collective_cost(100 * US), memory_share=share)
        timeline = run(program(*steps), machine(costs, told, contention=loaded), eager=False)
        reduce = next(span for span in timeline.spans if span.name == "all_reduce")
        assert reduce.duration_s == pytest.approx((1.0 + share) * 100 * US)


def test_a_pass_whose_weights_stream_waits_longer_for_ll_than_one_whose_weights_l2_holds() -> None:
    """AllReduces of 256 KiB in both; one layer of width 512 has 3 MB of weights on a device, two of 4,096 have 200."""
    kept = Predictor(replace(PAIR, contention=replace(PAIR.contention, eviction_slowdown=0.0)))
    added = []
    for layers, width in ((1, 512), (2, 4096)):
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 128}
        asked = {
            "model": {**sizes, "intermediate_size": 4 * width, "vocab_size": 1000},
            "hardware": "h200-sxm-x2",
            "num_devices": 2,
            "context_length": (1 << 17) // width,
            "runtime": {"collective": {"protocol": "ll"}},
        }
        scenario = Scenario.model_validate(asked)
        added.append(Predictor(PAIR).predict(scenario).latency_s - kept.predict(scenario).latency_s)
    assert added[0] == 0.0
    one = all_reduce(1 << 18, CollectivePolicy(protocol="ll"))
    assert added[1] == pytest.approx(4 * SLOWDOWN * one.busy_s, rel=1e-3)
