"""The Python API and addresses of clusters, misused: errors of our three families in our words, at once."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest

import kraken_sim
from kraken_sim import (
    InfeasibleError,
    InputError,
    KrakenSimError,
    compare,
    dataframe,
    load_design_request,
    load_scenario,
    predict_op,
    simulate,
    sweep,
)
from kraken_sim.cli import main
from kraken_sim.errors import SHOWN, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUESTION: dict[str, Any] = {
    "hardware": "h200-sxm-x8",
    "model": {"preset": "125M"},
    "context_length": 128,
    "num_devices": 2,
}
MACHINE = "h200-sxm-x2"
FUNCTIONS = (
    *("simulate", "compare", "sweep", "best_channels", "best_degree", "worthwhile_bandwidth", "procure"),
    *("search_designs", "load_scenario", "load_design_request", "load_procure_request", "dataframe"),
)
OPS: dict[str, dict[str, Any]] = {
    "gemm": {"m": 8, "n": 8, "k": 8},
    "attention": {"q_len": 8, "kv_len": 8, "num_heads": 2, "head_dim": 64},
    "norm": {"num_tokens": 4, "hidden_size": 8},
    "elementwise": {"num_elements": 8, "num_inputs": 2},
    "copy": {"bytes": 8},
    "embedding": {"num_tokens": 3, "hidden_size": 8},
    "all_reduce": {"bytes": 8, "num_devices": 2},
}


def words(error: KrakenSimError) -> str:
    text = str(error)
    assert "pydantic" not in text
    assert "Input should" not in text
    assert len(text) < 5_000
    return text


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("argument", [None, 3, [], {1: 2}, object()])
def test_every_function_says_what_it_was_not_given(function: str, argument: object) -> None:
    with pytest.raises(InputError) as caught:
        getattr(kraken_sim, function)(argument)
    words(caught.value)


@pytest.mark.parametrize("argument", [None, 3, "x", {1: 2}])
def test_ops_and_machines_are_what_they_must_be(argument: Any) -> None:
    for call in (
        lambda: predict_op(MACHINE, argument),
        lambda: predict_op(argument, {"op": "copy", "bytes": 1}),
        lambda: kraken_sim.simulate_concurrent(MACHINE, argument),
        lambda: kraken_sim.link_traffic(MACHINE, argument),
        lambda: simulate(QUESTION, profile=argument) if argument is not None else simulate({}),
    ):
        with pytest.raises(InputError) as caught:
            call()
        words(caught.value)


@pytest.mark.parametrize("op", OPS)
def test_sizes_that_no_op_has_are_refused_and_the_largest_are_answered(op: str) -> None:
    for field in OPS[op]:
        wrong: object
        for wrong in (10**400, (1 << 53) + 1, 0, -1, 1.5, float("nan"), [], "1"):
            with pytest.raises(KrakenSimError) as caught:
                predict_op(MACHINE, {"op": op, **OPS[op], field: wrong})
            assert field in words(caught.value)
    if op != "all_reduce":
        largest = {"op": op, **dict.fromkeys(OPS[op], 1 << 53)}
        assert 0.0 < predict_op(MACHINE, largest) < float("inf")


@pytest.mark.parametrize("field", [*QUESTION, "batch_size", "dtype", "architecture", "runtime", "name"])
@pytest.mark.parametrize("value", [10**400, float("nan"), "\0", "x" * 400, b"x", object(), [], True])
def test_values_that_no_field_has_are_refused(field: str, value: object) -> None:
    # Of a name all text is right.
    try:
        simulate({**QUESTION, field: value})
    except (InputError, InfeasibleError) as error:
        words(error)
    else:
        assert field == "name"


@pytest.mark.parametrize("jobs", [0, -1, 10**400, 1.5, "2", True])
def test_a_number_of_processes_that_is_none_is_refused(jobs: Any, tmp_path: Path) -> None:
    for out in (None, tmp_path / "r.parquet"):
        with pytest.raises(InputError, match="jobs: must be a whole number from 1"):
            sweep({**QUESTION, "context_length": [16, 32]}, jobs=jobs, out=out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kernels", [None, 5, "pytorch", object(), {"pytorch"}])
def test_kernel_sets_are_a_list(kernels: Any) -> None:
    with pytest.raises(InputError, match="kernels: must be a list of kernel sets"):
        compare(QUESTION, kernels=kernels)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: load_scenario(object()), "cannot read a object"),  # type: ignore[arg-type]
        (lambda: load_design_request(None), "cannot read null"),  # type: ignore[arg-type]
        (
            lambda: sweep({**QUESTION, "context_length": {"start": 1, "stop": 9, "step": None}}),
            "finite number, not null",
        ),
        (lambda: sweep({1: 2}), "1: unknown field"),  # type: ignore[dict-item]
        (lambda: dataframe(None), "has records"),  # type: ignore[arg-type]
    ],
)
def test_what_only_python_has_is_said_in_words(asked: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        asked()
    assert "NoneType" not in str(caught.value)
    assert "0x" not in str(caught.value)
    assert all(isinstance(problem.path, str) for problem in caught.value.problems)


def test_a_pointwise_kernel_that_nobody_has_is_refused() -> None:
    for function in ("nonsense", "", None, 10**400):
        with pytest.raises(InputError, match=r"function: must be .*(one of|add)"):
            predict_op(MACHINE, {"op": "elementwise", "num_elements": 8, "function": function})
    for function in ("add", "gelu", "silu_mul", "rope"):
        assert predict_op(MACHINE, {"op": "elementwise", "num_elements": 8, "function": function}) > 0.0


def test_causal_attention_has_a_key_for_every_query() -> None:
    op = {"op": "attention", "q_len": 16, "kv_len": 8, "num_heads": 2}
    with pytest.raises(InputError, match="kv_len: is less than q_len"):
        predict_op(MACHINE, op)
    assert predict_op(MACHINE, {**op, "causal": False}) > 0.0
    assert predict_op(MACHINE, {**op, "kv_len": 16}) > 0.0
    with pytest.raises(InputError, match="num_kv_heads: must divide num_heads"):
        predict_op(MACHINE, {**op, "causal": False, "num_kv_heads": 3})


@pytest.mark.parametrize(
    "address", ["dask://::::", "dask://", "ray://a", "dask://x:99999999", "dask://[::", "dask://a b:1", "x://y:1", "\0"]
)
def test_an_address_that_is_none_is_refused_at_once(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "question.yaml"
    file.write_text("{hardware: h200-sxm-x8, model: {preset: 125M}, num_devices: 2, context_length: [16, 32]}")
    began = time.monotonic()
    assert main(["sweep", str(file), "--out", str(tmp_path / "r.parquet"), "--cluster", address]) == 2
    assert time.monotonic() - began < 5.0  # a moment on an idle machine
    said = capfd.readouterr().err
    assert "--cluster: must be dask://host:port or ray://host:port" in said
    assert said.count("\n") == 2


def test_errors_come_back_from_other_processes_as_they_were() -> None:
    error = InputError([Problem(f"field{number}", "is wrong", number) for number in range(30)], "some.yaml", omitted=7)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems, again.source) == (str(error), error.problems, error.source)
    assert str(error).splitlines()[0] == "37 problems in some.yaml:"
    assert str(error).splitlines()[-1] == f"  - and {37 - SHOWN} more"
    limited = InfeasibleError("too large", "80 GB")
    assert str(pickle.loads(pickle.dumps(limited))) == str(limited)
