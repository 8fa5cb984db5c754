"""Whatever a caller from Python passes: an answer that can be one, or an error in our words; see `test_fuzz`."""

from __future__ import annotations

import inspect
from typing import Any, Final

from fuzz_files import RICH, SIZED, SMALL, SWEEP, check_prediction
from fuzz_promise import check_json, check_time, kept
from fuzz_settings import examples
from fuzz_trees import BEYOND_JSON, HOSTILE, mutated, plain
from hypothesis import given
from hypothesis import strategies as st

import kraken_sim

JOBS: Final = [
    {"op": "all_reduce", "bytes": 16777216, "ranks": [0, 4]},
    {"op": "transfer", "bytes": 1024, "ranks": [2, 6], "start_s": 0.001},
]
OPS: Final[list[dict[str, Any]]] = [
    {"op": "gemm", "m": 128, "n": 256, "k": 512, "dtype": "float16", "weights": "cold"},
    {"op": "attention", "q_len": 128, "kv_len": 256, "num_heads": 8, "num_kv_heads": 2, "causal": True},
    {"op": "all_reduce", "bytes": 65536, "num_devices": 4, "library": "nccl", "channels": 4},
    {"op": "send_recv", "bytes": 65536, "num_devices": 2},
    {"op": "norm", "num_tokens": 8, "hidden_size": 128},
    {"op": "elementwise", "function": "add", "num_elements": 1024, "num_inputs": 2},
    {"op": "copy", "bytes": 4096},
    {"op": "embedding", "num_tokens": 8, "hidden_size": 128},
]
FROM_PYTHON: Final = (*HOSTILE, *BEYOND_JSON)


def question(data: st.DataObject, right: Any, most: int = 2) -> Any:
    """A right argument, a wrong one, or one with mistakes inside."""
    sort = data.draw(st.sampled_from(("right", "wrong", "mistaken", "mistaken", "mistaken")))
    if sort == "right":
        return right
    if sort == "wrong":
        return data.draw(st.sampled_from(FROM_PYTHON))
    return plain(data.draw(mutated(right, FROM_PYTHON, most)))


@given(data=st.data())
@examples(60)
def test_predict_op_answers_or_explains(data: st.DataObject) -> None:
    spec = question(data, data.draw(st.sampled_from(OPS)))
    hardware = data.draw(st.sampled_from(("h100-sxm-x8",) * 8 + FROM_PYTHON))
    seconds = kept(lambda: kraken_sim.predict_op(hardware, spec))
    assert seconds is None or isinstance(seconds, float)
    if seconds:
        check_time(seconds)


@given(data=st.data())
@examples(60)
def test_collectives_at_once_answer_or_explain(data: st.DataObject) -> None:
    jobs = question(data, JOBS)

    def ask_api() -> None:
        for result in kraken_sim.simulate_concurrent("l40s-x8", jobs):
            check_json(result.as_dict())

    kept(ask_api)
    kept(lambda: kraken_sim.link_traffic("l40s-x8", question(data, OPS[2])))


@given(data=st.data())
@examples(60)
def test_simulate_answers_or_explains(data: st.DataObject) -> None:
    scenario = question(data, data.draw(st.sampled_from((SMALL, RICH, SIZED))))
    prediction = kept(lambda: kraken_sim.simulate(scenario))
    if isinstance(prediction, kraken_sim.Prediction):
        check_prediction(prediction)


@given(data=st.data())
@examples(30)
def test_a_sweep_from_python_answers_or_explains(data: st.DataObject) -> None:
    scenario = question(data, SWEEP)
    jobs: Any = data.draw(st.sampled_from((1, 1, 1, 0, -1, "x", 1.5, 10**400)))
    kept(lambda: kraken_sim.sweep(scenario, jobs=jobs))


@given(data=st.data())
@examples(40)
def test_the_questions_of_the_api_answer_or_explain(data: st.DataObject) -> None:
    scenario = question(data, kraken_sim.Scenario.model_validate(RICH), 1) if data.draw(st.booleans()) else None
    scenario = scenario or question(data, SMALL)
    asked = getattr(kraken_sim, data.draw(st.sampled_from(questions())))
    right = {"perturb": False, "choices": [None, 4], "factors": [0.5, 1.0]}
    parameters = inspect.signature(asked).parameters
    options = {name: right.get(name, one.default) for name, one in parameters.items() if one.default is not one.empty}
    extra = {
        name: value if name == "perturb" or data.draw(st.booleans()) else question(data, value)
        for name, value in options.items()
    }
    others = [scenario] * (len(parameters) - len(options))
    kept(lambda: asked(*others, **extra))


def questions() -> list[str]:
    """Every function of the package that has no test of its own here."""
    own = ("predict_op", "simulate_concurrent", "link_traffic", "sweep")
    functions = (name for name in kraken_sim.__all__ if inspect.isfunction(getattr(kraken_sim, name)))
    return [name for name in functions if name not in own]
