"""A service of steps of known length: queues with known answers, and what no schedule may lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from serving_support import LinearSteps, OneByOne

from kraken_sim.explore.procure.queueing import ServiceClass, mean_wait_s, wait_probability
from kraken_sim.serving.arrivals import Bursts, Lengths, Requests, drawn_requests, poisson_arrivals
from kraken_sim.serving.fleet import Handover, ReplicaPool, Routing, Served, serve_requests
from kraken_sim.serving.plan import Preemption, Priority, SchedulerRules, Sequence, StepPlan
from kraken_sim.serving.scheduler import Scheduler

STEPS = LinearSteps(0.005, 5e-5, 1e-8, 2e-5)
ROOMY = SchedulerRules(100_000)


def test_prompts_served_one_at_a_time_wait_as_in_an_m_d_1_queue() -> None:
    requests = drawn_requests(60_000, 7.0, Lengths(100), Lengths(1), seed=1)
    rules = SchedulerRules(1000, max_num_seqs=1)
    waits = serve_requests(requests, ReplicaPool(LinearSteps(step_s=0.1), rules)).ttft_s - 0.1
    classes = [ServiceClass(1.0, 0.1)]
    assert waits.mean() == pytest.approx(mean_wait_s(classes, 7.0), rel=0.04)
    for time_s in (0.05, 0.2, 0.4):
        assert np.mean(waits <= time_s) == pytest.approx(wait_probability(classes, 7.0, [time_s])[0], abs=0.02)


def test_prompts_of_two_lengths_wait_as_in_an_m_g_1_queue() -> None:
    drawn = drawn_requests(80_000, 6.0, Lengths(100), Lengths(1), seed=2)
    long = np.random.default_rng(0).random(len(drawn)) < 0.2
    requests = Requests(drawn.arrival_s, np.where(long, 400, 50), drawn.output_tokens)
    served = serve_requests(
        requests, ReplicaPool(LinearSteps(prompt_token_s=1e-3), SchedulerRules(1000, max_num_seqs=1))
    )
    waits = served.ttft_s - np.where(long, 0.4, 0.05)
    classes = [ServiceClass(0.8, 0.05), ServiceClass(0.2, 0.4)]
    assert waits.mean() == pytest.approx(mean_wait_s(classes, 6.0), rel=0.06)


def test_as_many_are_in_the_service_as_arrive_while_one_is_in_it() -> None:
    served = serve_requests(_chat(4000, 10.0), ReplicaPool(STEPS, ROOMY))
    arrivals, ends = served.requests.arrival_s, np.sort(served.finish_s)
    times = np.linspace(arrivals[400], arrivals[-400], 20_000)
    inside = np.searchsorted(arrivals, times) - np.searchsorted(ends, times)
    middle = slice(400, -400)
    rate = served.requests.rate_per_s
    assert inside.mean() == pytest.approx(rate * served.e2e_s[middle].mean(), rel=0.03)


def test_steps_taken_at_once_end_as_one_by_one() -> None:
    requests = _chat(600, 12.0)
    for rules in (ROOMY, SchedulerRules(1500, max_num_seqs=32), SchedulerRules(400, preemption=Preemption.SWAP)):
        at_once = serve_requests(requests, ReplicaPool(STEPS, rules))
        singly = serve_requests(requests, ReplicaPool(OneByOne(STEPS), rules))
        assert at_once.finish_s == pytest.approx(singly.finish_s, rel=1e-9)
        assert at_once.first_token_s == pytest.approx(singly.first_token_s, rel=1e-9)
        assert at_once.accounts[0].steps == singly.accounts[0].steps
        assert at_once.preemptions == singly.preemptions


def _chat(count: int, rate_per_s: float, seed: int = 0) -> Requests:
    return drawn_requests(count, rate_per_s, Lengths(300, 0.7, 16, 2000), Lengths(100, 0.7, 1, 1000), seed)


def _computed_and_generated(served: Served) -> tuple[int, int]:
    return (
        sum(account.computed_tokens for account in served.accounts),
        sum(account.generated_tokens for account in served.accounts),
    )


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize("chunked", [True, False])
def test_every_token_is_computed_and_generated_once(priority: Priority, chunked: bool) -> None:
    requests = _chat(300, 15.0)
    rules = SchedulerRules(4000, max_num_batched_tokens=2048, priority=priority, chunked=chunked)
    served = serve_requests(requests, ReplicaPool(STEPS, rules))
    assert served.preemptions == 0
    assert _computed_and_generated(served) == (requests.prompt_tokens.sum(), requests.output_tokens.sum())
    assert np.all(served.first_token_s > requests.arrival_s)
    assert np.all(served.finish_s >= served.first_token_s)


def test_a_full_cache_makes_sequences_compute_again_or_swap() -> None:
    requests = _chat(400, 50.0)
    tight = SchedulerRules(300)
    again = serve_requests(requests, ReplicaPool(STEPS, tight))
    swapped = serve_requests(
        requests, ReplicaPool(STEPS, SchedulerRules(300, preemption=Preemption.SWAP), swap_s_per_token=1e-6)
    )
    assert again.preemptions > 0 < swapped.preemptions
    computed, generated = _computed_and_generated(again)
    assert generated == requests.output_tokens.sum()
    assert computed > requests.prompt_tokens.sum()
    assert _computed_and_generated(swapped) == (requests.prompt_tokens.sum(), requests.output_tokens.sum())
    assert swapped.accounts[0].swap_s > 0.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    blocks=st.integers(12, 80),
    block_size=st.sampled_from([1, 4, 16]),
    sequences=st.integers(1, 12),
    budget=st.integers(12, 200),
    priority=st.sampled_from(list(Priority)),
    preemption=st.sampled_from(list(Preemption)),
    prefix=st.sampled_from([0, 5, 16]),
)
def test_no_block_is_lost_or_held_twice_whatever_the_schedule(
    seed: int, blocks: int, block_size: int, sequences: int, budget: int, priority: Priority, preemption: Preemption,
    prefix: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    room = blocks * block_size
    assume(room > 3 * prefix)
    rules = SchedulerRules(blocks, block_size, sequences, budget, True, priority, preemption, prefix)
    scheduler = Scheduler(rules)
    todo = []
    for index in range(12):
        prompt = int(random.integers(1, max(2, room // 3))) + prefix
        output = int(random.integers(1, max(2, room // 3)))
        if prompt + output <= room:
            todo.append(Sequence(index, prompt, output))
    pending, tokens, finished = list(todo), dict.fromkeys(range(12), 0), []
    for _ in range(20_000):
        if pending and random.random() < 0.3:
            scheduler.submit(pending.pop(0))
        plan = scheduler.plan()
        assert 0 <= scheduler.used_blocks <= rules.free_blocks
        if plan is None:
            if not pending:
                break
            continue
        count = 1 if plan.chunks or not plan.batch else int(random.integers(1, scheduler.stretch() + 1))
        decoding = list(scheduler.decoding)[: plan.batch]
        first, done = scheduler.complete(plan, count)
        for index in decoding:
            tokens[index] += count
        for chunk in plan.chunks:
            tokens[chunk.sequence.index] += chunk.sequence.computed >= chunk.sequence.to_compute
        finished += done
        _check_blocks(scheduler, rules, plan)
        assert all(sequence.generated == 1 for sequence in first)
    assert {sequence.index for sequence in finished} == {sequence.index for sequence in todo}
    assert scheduler.used_blocks == 0 == scheduler.cache_tokens
    assert all(tokens[sequence.index] == sequence.output for sequence in todo)


def _check_blocks(scheduler: Scheduler, rules: SchedulerRules, plan: StepPlan) -> None:
    held = sum(rules.blocks_of(sequence.offset + scheduler.steps) for sequence in scheduler.decoding.values())
    held += sum(rules.blocks_of(sequence.to_compute) for sequence in scheduler.prefilling)
    assert scheduler.used_blocks == held, plan
    cached = sum(sequence.offset + scheduler.steps for sequence in scheduler.decoding.values())
    assert scheduler.cache_tokens == cached
    assert scheduler.num_running <= rules.max_num_seqs


def test_two_replicas_halve_the_load_and_least_load_waits_no_longer() -> None:
    requests = _chat(2000, 24.0)
    pool = SchedulerRules(4000, max_num_seqs=16)
    one, two, least = (
        serve_requests(requests, ReplicaPool(STEPS, pool, count), routing)
        for count, routing in ((1, Routing.ROUND_ROBIN), (2, Routing.ROUND_ROBIN), (2, Routing.LEAST_LOAD))
    )
    assert two.ttft_s.mean() < 0.5 * one.ttft_s.mean()
    assert least.ttft_s.mean() < 1.05 * two.ttft_s.mean()
    assert _computed_and_generated(least) == (requests.prompt_tokens.sum(), requests.output_tokens.sum())


def test_prefill_apart_keeps_the_pace_of_answers_and_sends_every_cache() -> None:
    requests, steps = _chat(600, 12.0), LinearSteps(0.005, 5e-5, 1e-8, 1e-4)
    together = serve_requests(requests, ReplicaPool(steps, ROOMY, 2))
    before = ReplicaPool(steps, SchedulerRules(100_000, prefill_only=True))
    apart = serve_requests(requests, ReplicaPool(steps, ROOMY), prefill=before, handover=Handover(0.02, 0.0))
    assert apart.num_prefill == 1
    prefill, decode = apart.accounts
    assert prefill.computed_tokens == requests.prompt_tokens.sum()
    assert decode.computed_tokens == 0
    assert prefill.generated_tokens + decode.generated_tokens == requests.output_tokens.sum()
    several = requests.output_tokens > 50
    assert np.percentile(apart.tpot_s[several], 99) < np.percentile(together.tpot_s[several], 99)


def test_a_shared_prefix_is_not_computed_and_takes_no_blocks_twice() -> None:
    requests = Requests(np.zeros(4), np.full(4, 160), np.full(4, 10))
    served = serve_requests(requests, ReplicaPool(STEPS, SchedulerRules(40, prefix_length=96)))
    assert _computed_and_generated(served) == (4 * 64, 40)
    assert SchedulerRules(40, prefix_length=96).blocks_of(160) == 4


def test_bursts_keep_the_mean_rate_and_come_when_they_should() -> None:
    arrivals = poisson_arrivals(200_000, 10.0, np.random.default_rng(0), Bursts(5.0, 6.0, 60.0))
    assert len(arrivals) / arrivals[-1] == pytest.approx(10.0, rel=0.02)
    busy = np.mean(arrivals % 60.0 < 6.0)
    assert busy == pytest.approx(5.0 * 6.0 / (5.0 * 6.0 + 54.0), rel=0.02)


def test_lengths_have_the_mean_and_spread_that_they_say() -> None:
    drawn = Lengths(500.0, 0.5).draw(200_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(500.0, rel=0.01)
    assert drawn.std() == pytest.approx(250.0, rel=0.03)
    assert set(Lengths(7.0).draw(5, np.random.default_rng(0))) == {7}
