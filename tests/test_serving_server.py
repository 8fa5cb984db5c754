"""The real server on a CPU: its answers are the model's, its decisions the simulator's, step for step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kraken_sim.serving.arrivals import Lengths, Requests, drawn_requests  # noqa: E402
from kraken_sim.serving.fleet import ReplicaPool, serve_requests  # noqa: E402
from kraken_sim.serving.plan import SchedulerRules  # noqa: E402
from kraken_sim.serving.steps import Stretch  # noqa: E402
from validation.serving.__main__ import TINY, build_engine  # noqa: E402
from validation.serving.engine import Part, ServingEngine  # noqa: E402
from validation.serving.server import Log, replay  # noqa: E402

BUDGET, SEQUENCES, ROW = 48, 4, 192


@pytest.fixture(scope="module")
def engine() -> ServingEngine:
    return build_engine(TINY, "cpu", SEQUENCES, ROW, BUDGET)


@pytest.fixture(scope="module")
def requests() -> Requests:
    return drawn_requests(24, 60.0, Lengths(40, 0.8, 3, 120), Lengths(8, 0.8, 1, 30), 3)


@pytest.fixture(scope="module")
def log(engine: ServingEngine, requests: Requests) -> Log:
    return replay(engine, requests, max_num_batched_tokens=BUDGET)


class Measured:
    """Steps that take as long as those of a log did, in their order."""

    def __init__(self, log: Log) -> None:
        self.seconds = [step["end_s"] - step["start_s"] for step in log.steps]
        self.taken = 0
        self.beside: tuple[int, int] | None = None

    def _next(self) -> float:
        self.taken += 1
        return float(self.seconds[self.taken - 1])

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        # After a step with prompts a replica asks once what it would have been without: no step of the log.
        asked, self.beside = self.beside, None
        return Stretch(0.0 if asked == (batch, cache_tokens) else self._next(), 0.0, 1, 0.0)

    def mixed(self, batch: int, cache_tokens: int, _: object) -> tuple[float, float]:
        self.beside = (batch, cache_tokens) if batch else None
        return self._next(), 0.0


def test_the_simulator_decides_as_the_server_did_step_for_step(log: Log, requests: Requests) -> None:
    rules = SchedulerRules(SEQUENCES * ROW, 1, SEQUENCES, BUDGET)
    served = serve_requests(requests, ReplicaPool(Measured(log), rules), record=True)
    ours = [(step.decoding, step.chunks) for step in served.steps[0]]
    theirs = [(tuple(step["decoding"]), tuple(step["chunks"])) for step in log.steps]
    assert ours == theirs
    assert any(len(decoding) > 1 and chunks for decoding, chunks in ours)  # otherwise this tests little
    assert any(len(chunks) > 1 for _, chunks in ours)
    assert served.first_token_s == pytest.approx([log.first_token_s[index] for index in range(len(requests))])
    assert served.finish_s == pytest.approx([log.finish_s[index] for index in range(len(requests))])


def test_a_step_of_many_answers_as_the_model_alone(engine: ServingEngine) -> None:
    prompts = [[(7 * place + 3 * row) % 1000 for place in range(length)] for row, length in enumerate((9, 30, 5))]
    expected = [_greedy(engine, prompt, 4) for prompt in prompts]
    first = engine.step([], [Part(0, 0, prompts[0]), Part(1, 0, prompts[1][:20])])[0]
    answers = [[first], [], []]
    tokens = engine.step([Part(0, 9, answers[0][-1:])], [Part(1, 20, prompts[1][20:]), Part(2, 0, prompts[2])])
    for answer, token in zip(answers, tokens, strict=True):
        answer.append(token)
    while len(answers[2]) < 3:
        parts = [Part(row, len(prompts[row]) + len(answers[row]) - 1, answers[row][-1:]) for row in range(3)]
        for answer, token in zip(answers, engine.step(parts, []), strict=True):
            answer.append(token)
    assert [answer[:3] for answer in answers] == [answer[:3] for answer in expected]


def _greedy(engine: ServingEngine, prompt: list[int], count: int) -> list[int]:
    model: Any = engine.model
    cache, answer = model.new_cache(1, len(prompt) + count), []
    with torch.inference_mode():
        logits = model(torch.tensor([prompt]), cache)
        for step in range(count):
            answer.append(int(logits.argmax()))
            logits = model(torch.tensor([answer[-1:]]), cache, start=len(prompt) + step)
    return answer


def test_the_server_answers_every_request_and_its_steps_follow_each_other(log: Log, requests: Requests) -> None:
    assert sorted(log.finish_s) == list(range(len(requests)))
    starts, ends = (np.array([step[name] for step in log.steps]) for name in ("start_s", "end_s"))
    assert np.all(starts[1:] >= ends[:-1])
    computed = sum(count for step in log.steps for _, _, count in step["chunks"])
    assert computed == requests.prompt_tokens.sum()
    assert sum(len(step["decoding"]) for step in log.steps) == (requests.output_tokens - 1).sum()
