"""Answers in a notebook: one line, a table, a DataFrame and a figure of each; questions by name, path and mapping."""

from __future__ import annotations

import gzip
import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import pytest

import kraken_sim
from kraken_sim.predict.answer import MOST_ROWS, Answer, cell

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
TRACE = ROOT / "tests" / "data" / "h200-twin-decode.trace.json.gz"
QUESTION: dict[str, Any] = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "125M"},
    "architecture": {"kind": "kraken"},
    "context_length": 128,
}
SIZES = {"mean": 64, "least": 16, "most": 128}
SERVICE: dict[str, Any] = {
    "name": "<a service>",
    "hardware": "h200-sxm-x2",
    "model": {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": 1024,
        "num_attention_heads": 8,
        "intermediate_size": 4096,
    },
    "num_devices": 1,
    "traffic": {"requests_per_s": 20, "num_requests": 60, "prompt_tokens": SIZES, "output_tokens": SIZES},
}
PURCHASE: dict[str, Any] = {
    "currency": "EUR",
    "sla": {"ttft": "60 ms"},
    "load": {"prompts_per_s": 400},
    "workloads": [{"name": "chat", "share": 1.0, "model": {"preset": "1.3B"}, "prompt_tokens": 512}],
    "candidates": [
        {
            "name": "two",
            "hardware": "h200-sxm-x2",
            "num_devices": [2],
            "price": {"per_hour": 8.0, "source": "example price", "date": "2026-01-01"},
        }
    ],
}
DESIGN: dict[str, Any] = {
    "base": {"hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "num_devices": 2, "context_length": 128},
    "search": {"num_hidden_layers": [12], "kind": ["standard", "kraken"]},
}


def traced() -> Answer:
    asked = json.loads(gzip.decompress(TRACE.read_bytes()))["validation"]["question"]
    runtime = {"launch": asked.pop("launch"), "kernels": asked.pop("kernels"), "load": "rested"}
    return kraken_sim.diff_trace({"hardware": "h200-sxm-x2", **asked, "runtime": runtime}, TRACE)


ASKED: dict[str, Callable[[], Answer]] = {
    "simulate": lambda: kraken_sim.simulate(QUESTION),
    "generation": lambda: kraken_sim.simulate({**QUESTION, "phase": "generate", "output_length": 4}),
    "compare": lambda: kraken_sim.compare(QUESTION, architectures=["kraken"]),
    "best_architecture": lambda: kraken_sim.best_architecture(QUESTION, architectures=["parallel"]),
    "best_channels": lambda: kraken_sim.best_channels(QUESTION, (None, 4), perturb=False),
    "best_degree": lambda: kraken_sim.best_degree(QUESTION, perturb=False, architectures=["kraken"]),
    "worthwhile_bandwidth": lambda: kraken_sim.worthwhile_bandwidth(QUESTION, factors=(0.5, 1.0), perturb=False),
    "sweep": lambda: kraken_sim.sweep({**QUESTION, "context_length": [128, 256], "num_devices": [1, 2]}, jobs=1),
    "search_designs": lambda: kraken_sim.search_designs(DESIGN),
    "procure": lambda: kraken_sim.procure(PURCHASE),
    "serve": lambda: kraken_sim.serve(SERVICE),
    "diff_trace": traced,
}


@pytest.fixture(scope="module", params=list(ASKED))
def answer(request: pytest.FixtureRequest) -> Answer:
    return ASKED[request.param]()


def test_an_answer_is_one_line_a_table_a_frame_and_a_figure(answer: Answer) -> None:
    text = repr(answer)
    assert re.fullmatch(r"<\w+: .+>", text)  # in one line
    assert len(text) < 300
    page = answer._repr_html_()
    assert page.count("<tr>") == 1 + min(len(answer.records), MOST_ROWS)
    assert "<a service>" not in page
    for name in answer.shown:
        assert f"<th>{name}</th>" in page
    frame = answer.to_pandas()
    assert len(frame) == len(answer.records)
    assert set(frame.columns) == set(answer.records[0])
    figure = answer.plot()
    assert isinstance(figure, go.Figure)
    assert len(figure.data) > 0


def test_every_function_of_the_api_that_answers_a_question_is_tried_here() -> None:
    loads = {name for name in kraken_sim.__all__ if name.startswith("load_")}
    plain = {"predict_op", "link_traffic", "simulate_concurrent", "dataframe", *loads}
    functions = {name for name in kraken_sim.__all__ if inspect.isfunction(getattr(kraken_sim, name))}
    assert functions - plain <= set(ASKED)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_s", 0.00125, "1.25 ms"),
        ("breakdown_s.gemm", 2e-6, "2 us"),
        ("memory_bytes.weights", 2_000_000, "2 MB"),
        ("goodput_per_s", 12.5, "12.5 /s"),
        ("num_parameters", 125_000_000, "125,000,000"),
        ("probability", 0.123456, "0.1235"),
        ("latency_s", None, ""),
        ("latency_s", float("nan"), "nan"),
        ("on_front", True, "True"),
    ],
)
def test_numbers_of_a_table_have_the_unit_of_their_column(name: str, value: object, text: str) -> None:
    assert cell(name, value) == text


def test_a_question_may_be_a_name_a_path_and_a_mapping() -> None:
    path = ROOT / "scenarios" / "kraken-6.7b-on-two-h200.yaml"
    by_name, by_path = (kraken_sim.simulate(asked) for asked in ("kraken-6.7b-on-two-h200", path))
    assert by_name.latency_s == by_path.latency_s == kraken_sim.simulate(str(path)).latency_s
    assert kraken_sim.load_scenario("kraken-6.7b-on-two-h200") == kraken_sim.load_scenario(path)
    assert kraken_sim.load_scenario(QUESTION).context_length == 128
    assert kraken_sim.load_procure_request(PURCHASE) == kraken_sim.ProcureRequest.model_validate(PURCHASE)
    assert kraken_sim.load_procure_request("assistant_purchase").name == "assistant"
    assert kraken_sim.load_design_request("13b-on-h100_design").base.hardware.startswith("h100")
    assert kraken_sim.load_serve_request(SERVICE).num_devices == 1


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: kraken_sim.simulate("kraken-6.7b-on-two-h20"), "did you mean 'kraken-6.7b-on-two-h200'"),
        (lambda: kraken_sim.load_scenario("none.yaml"), "cannot read 'none.yaml'"),
        (lambda: kraken_sim.procure({**PURCHASE, "sla": 3}), "sla: must be a mapping"),
        (lambda: kraken_sim.serve({**SERVICE, "replica": 2}), "replica: unknown field"),
        (lambda: kraken_sim.search_designs("nothing"), "no scenario of this name ships"),
    ],
)
def test_questions_that_are_nowhere_or_wrong_say_so(ask: Callable[[], object], words: str) -> None:
    with pytest.raises(kraken_sim.InputError, match=words):
        ask()


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run_and_say_something(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(script), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_version_is_that_of_the_package_and_costs_nothing_to_import() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", kraken_sim.__version__)
    code = "import kraken_sim, sys; assert not {'plotly', 'pandas', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_reference_has_every_name_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: kraken_sim\.([\w.]+)\.(\w+)$", page, re.MULTILINE)
    for module, name in named:
        assert hasattr(__import__(f"kraken_sim.{module}", fromlist=[name]), name)
    assert set(kraken_sim.__all__) <= {name for _, name in named}
    assert {kind.__name__ for kind in Answer.__subclasses__()} <= {name for _, name in named}
