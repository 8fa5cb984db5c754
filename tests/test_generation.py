"""Whole answers: prefill and decode steps on a growing cache, chunks of a prompt, prefixes, ragged steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kraken_sim import InfeasibleError, InputError, simulate
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.generation import Generation, generation
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.program.ops import Attention, Gemm
from kraken_sim.scenario.spec import scenario_from

BASE: dict[str, Any] = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "1.3B", "max_position_embeddings": 8192},
    "num_devices": 1,
    "context_length": 500,
    "phase": "generate",
    "output_length": 64,
}


def asked(**changes: object) -> dict[str, Any]:
    return {**BASE, **changes}


def answered(**changes: object) -> Generation:
    found = simulate(asked(**changes))
    assert isinstance(found, Generation)
    return found


@pytest.mark.parametrize("architecture", ["standard", "kraken"])
@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_few_simulated_steps_answer_as_all_of_them_do(architecture: str, launch: str) -> None:
    scenario = scenario_from(
        asked(
            num_devices=2,
            batch_size=4,
            output_length=200,
            architecture={"kind": architecture},
            runtime={"launch": launch},
        )
    )
    predictor = Predictor()
    some = predictor.predict(scenario)
    every = generation(predictor.prepare(scenario), every_step=True)
    assert isinstance(some, Generation)
    assert len(some.decode) < 10 < len(every.decode) == 199
    assert some.e2e_s == pytest.approx(every.e2e_s, rel=1e-4)
    assert some.tpot_by_position_s == pytest.approx(every.tpot_by_position_s, rel=1e-3)


def test_steps_jump_where_attention_takes_another_split_and_not_between() -> None:
    answer = answered(context_length=100, output_length=500, model={"preset": "6.7B"})
    every = generation(answer.prepared, every_step=True)
    jumps = np.abs(np.diff(every.tpot_by_position_s))
    assert jumps.max() > 20.0 * np.median(jumps)  # otherwise this tests nothing
    assert answer.tpot_by_position_s == pytest.approx(every.tpot_by_position_s, rel=1e-6)


def test_an_answer_is_its_prefill_and_a_decode_step_for_every_further_token() -> None:
    answer = answered(output_length=3)
    first = simulate(asked(phase="prefill", output_length=None))
    decode = [
        simulate(asked(phase="decode", output_length=None, context_length=cached)).latency_s for cached in (500, 501)
    ]
    assert answer.ttft_s == first.latency_s
    assert answer.tpot_by_position_s == pytest.approx(decode)
    assert answer.e2e_s == pytest.approx(first.latency_s + sum(decode))
    assert answer.tpot_s == pytest.approx(sum(decode) / 2)
    assert answer.tokens_per_s == pytest.approx(3 / answer.e2e_s)


def test_an_answer_of_one_token_is_a_prefill() -> None:
    answer = answered(output_length=1)
    assert answer.tpot_s is None
    assert answer.e2e_s == answer.ttft_s == simulate(asked(phase="prefill", output_length=None)).latency_s


def test_the_breakdown_of_an_answer_adds_up_to_it() -> None:
    answer = answered(num_devices=2, runtime={"launch": "eager"})
    assert sum(answer.breakdown_s.values()) == pytest.approx(answer.e2e_s)
    assert answer.interval.low_s < answer.e2e_s < answer.interval.high_s


def test_the_energy_of_an_answer_is_that_of_its_steps() -> None:
    answer = answered(output_length=5)
    steps = sum(weight * step_energy(step).energy_j for weight, step in answer.steps)
    assert step_energy(answer).energy_j == pytest.approx(steps, rel=1e-6)


def test_a_later_token_takes_longer_than_an_early_one() -> None:
    times = answered(output_length=2000, batch_size=16).tpot_by_position_s
    assert times[-1] > 1.05 * times[0]


def test_a_prompt_in_chunks_takes_a_step_each_and_no_less_time() -> None:
    whole, chunked = answered(), answered(runtime={"max_num_batched_tokens": 128})
    assert len(chunked.prefill) == 4
    assert [step.scenario.context_length for step in chunked.prefill] == [128, 256, 384, 500]
    assert chunked.ttft_s > whole.ttft_s
    assert chunked.tpot_s == whole.tpot_s


def test_the_chunks_of_a_prompt_compute_every_token_once() -> None:
    chunked = answered(runtime={"max_num_batched_tokens": 128})

    def rows(steps: tuple[Any, ...]) -> int:
        ops = [kernel.op for step in steps for kernel in step.prepared.program.kernels() if kernel.name == "gemm_qkv"]
        return sum(op.m for op in ops if isinstance(op, Gemm))

    assert rows(chunked.prefill) == rows((simulate(asked(phase="prefill", output_length=None)),))


def test_a_prefix_in_the_cache_is_attended_to_but_not_computed() -> None:
    question = asked(phase="prefill", output_length=None, context_length=2048)
    warm, cold = simulate({**question, "prefix_length": 1536}), simulate(question)
    assert warm.latency_s < 0.6 * cold.latency_s
    ops = {kernel.op for kernel in warm.prepared.program.kernels() if isinstance(kernel.op, Attention)}
    assert [(op.q_len, op.kv_len) for op in ops] == [(512, 2048)]


def test_sequences_share_the_memory_of_their_prefix() -> None:
    question = asked(phase="decode", output_length=None, batch_size=8, context_length=999)
    alone, shared = simulate(question).memory, simulate({**question, "prefix_length": 500}).memory
    a_token = alone.kv_cache_bytes // 8000
    assert alone.kv_cache_bytes - shared.kv_cache_bytes == 7 * 500 * a_token


def test_a_step_of_sequences_alike_is_a_step_of_the_batch() -> None:
    ragged = {name: value for name, value in BASE.items() if name not in ("context_length", "phase", "output_length")}
    same = simulate({**ragged, "sequences": [{"num_sequences": 4, "num_new_tokens": 300}]})
    assert same.latency_s == simulate({**ragged, "batch_size": 4, "context_length": 300}).latency_s


def test_decode_steps_beside_a_chunk_share_its_gemms() -> None:
    base = {name: value for name, value in BASE.items() if name not in ("context_length", "phase", "output_length")}
    decode = {"num_sequences": 16, "num_new_tokens": 1, "num_cached_tokens": 1000}
    chunk = {"num_new_tokens": 512, "num_cached_tokens": 512}
    both, first, second = (
        simulate({**base, "sequences": list(groups)}) for groups in ((decode, chunk), (decode,), (chunk,))
    )
    assert max(first.latency_s, second.latency_s) < both.latency_s < first.latency_s + second.latency_s
    gemm = next(kernel.op for kernel in both.prepared.program.kernels() if kernel.name == "gemm_qkv")
    assert isinstance(gemm, Gemm)
    assert gemm.m == 528
    assert both.memory.kv_cache_bytes == first.memory.kv_cache_bytes + second.memory.kv_cache_bytes


def test_the_memory_of_an_answer_is_that_of_its_last_token() -> None:
    a_token = answered(output_length=1).memory.kv_cache_bytes // 500
    assert answered(output_length=64).memory.kv_cache_bytes == (500 + 63) * a_token
    with pytest.raises(InfeasibleError, match="KV cache"):
        simulate(asked(batch_size=512, output_length=6000))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"output_length": None}, "output_length"),
        ({"output_length": 0}, "output_length"),
        ({"phase": "decode"}, "output_length"),
        ({"prefix_length": 500}, "prefix_length"),
        ({"prefix_length": -1}, "prefix_length"),
        ({"output_length": 8000}, "output_length"),
        ({"sequences": [{"num_new_tokens": 5}]}, "context_length"),
        ({"sequences": []}, "sequences"),
        ({"sequences": [{"num_new_tokens": 0}]}, "sequences.0.num_new_tokens"),
        (
            {"phase": "prefill", "output_length": None, "runtime": {"max_num_batched_tokens": 5}},
            "runtime.max_num_batched_tokens",
        ),
    ],
)
def test_a_wrong_question_about_an_answer_is_named(changes: dict[str, object], path: str) -> None:
    with pytest.raises(InputError) as raised:
        simulate(asked(**changes))
    assert path in [problem.path for problem in raised.value.problems]
