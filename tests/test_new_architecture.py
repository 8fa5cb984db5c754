"""A new architecture is one record: registered from this file alone, it works wherever the shipped ones do."""

from __future__ import annotations

import ast
import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import Field

import kraken_sim
from kraken_sim import Scenario, best_degree, compare, search_designs, simulate, sweep
from kraken_sim.architectures.architecture import Architecture, ArchitectureFields, Question, Size, split_problems
from kraken_sim.architectures.builder import ProgramBuilder
from kraken_sim.architectures.registry import architecture, kinds, register, unregister
from kraken_sim.cli import main
from kraken_sim.errors import InputError, Problem
from kraken_sim.explore.design.request import DesignRequest
from kraken_sim.explore.sweep.plan import plan_of
from kraken_sim.explore.sweep.runners import recipe_of, run_chunk
from kraken_sim.explore.sweep.store import decode
from kraken_sim.models.counts import device_parameter_counts, parameter_counts
from kraken_sim.models.layout import Layout, whole_layer
from kraken_sim.program.ops import DType
from kraken_sim.program.program import Category, Program, Segment
from kraken_sim.scenario.resolve import resolve_model
from kraken_sim.scenario.spec import scenario_from, scenario_json_schema, with_architecture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig

SHIPPED: Final = kinds()
ANSWERING: Final = [kind for kind in SHIPPED if kind not in ("domino", "file", "sub_layer_file")]
"""Those that run a single prompt."""
LAYERS, WIDTH, TOKENS, DEVICES = 24, 2048, 512, 4
QUESTION: dict[str, Any] = {
    "name": "rarely",
    "hardware": "h100-sxm-x8",
    "model": {"preset": "1.3B"},
    "architecture": {"kind": "rarely"},
    "num_devices": DEVICES,
    "context_length": TOKENS,
}


class RarelyFields(ArchitectureFields):
    every: Size | None = Field(default=None, description="Layers from one AllReduce to the next.", examples=[2])


@dataclass(frozen=True, slots=True)
class RarelyLayout(Layout):
    every: int = 2


def _layout(question: Question[RarelyFields]) -> RarelyLayout:
    # A device keeps what it has not sent yet beside the stream.
    block = whole_layer(question.config)
    every = question.fields.every or 2
    return RarelyLayout(block, question.num_devices, norms_per_block=1, extra_streams=1, every=every)


def _check(question: Question[RarelyFields], layout: RarelyLayout) -> Iterator[Problem]:
    layers = question.config.num_hidden_layers
    if layers % layout.every:
        yield Problem("architecture.every", f"{layers} layers do not divide by it", layout.every, "2")
    yield from split_problems(layout)


def _program(layout: RarelyLayout, config: TransformerConfig, work: Workload) -> Program:
    build = ProgramBuilder(config, layout, work)
    build.embedding()
    start = build.take()
    for index in range(layout.every):
        build.norm(f"norm.{index}")
        build.attention(suffix=f".{index}")
        build.ffn(f".{index}", accumulate=True)
        if index == 0:
            build.all_reduce("all_reduce", layout.num_devices)
        build.add(f"residual.{index}")
    layers = build.take()
    build.lm_head()
    segments = (
        Segment("embedding", start),
        Segment("layer", layers, config.num_hidden_layers // layout.every),
        Segment("head", build.take()),
    )
    return Program("rarely", layout.num_devices, segments)


def _report(layout: RarelyLayout) -> dict[str, int]:
    return {"every": layout.every}


RARELY: Final[Architecture[RarelyFields, RarelyLayout]] = Architecture(
    kind="rarely",
    description="parallel attention and FFN, one AllReduce every second layer",
    layout=_layout,
    program=_program,
    fields=RarelyFields,
    check=_check,
    report=_report,
    columns=("every",),
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(RARELY)
    yield
    unregister("rarely")


def asked(**changes: Any) -> dict[str, Any]:
    return {**QUESTION, **changes}


def rarely(every: int) -> dict[str, Any]:
    return asked(architecture={"kind": "rarely", "every": every})


def file_of(tmp_path: Path, data: dict[str, Any]) -> str:
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(path)


def problems_of(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InputError) as raised:
        resolve_model(scenario_from(data))
    found: dict[str, str] = {}
    for problem in raised.value.problems:
        found[problem.path] = f"{found.get(problem.path, '')}{problem}\n"
    return found


def test_a_rarer_all_reduce_saves_the_time_of_those_left_out() -> None:
    parallel = simulate(asked(architecture={"kind": "parallel"}))
    often, second, fourth = (simulate(rarely(every)) for every in (1, 2, 4))
    assert often.latency_s == parallel.latency_s
    assert second.breakdown_s[Category.ALL_REDUCE] == pytest.approx(often.breakdown_s[Category.ALL_REDUCE] / 2)
    assert fourth.latency_s < second.latency_s < often.latency_s
    assert simulate(QUESTION).latency_s == second.latency_s
    assert simulate(QUESTION, exact=True).latency_s == second.latency_s


def test_counts_are_those_of_its_layout() -> None:
    rare, parallel = (
        resolve_model(scenario_from(asked(architecture={"kind": kind}))) for kind in ("rarely", "parallel")
    )
    assert parameter_counts(rare.config, rare.layout) == parameter_counts(rare.config, parallel.layout)
    assert device_parameter_counts(rare.config, rare.layout) == device_parameter_counts(rare.config, parallel.layout)
    two_norms = replace(rare.layout, norms_per_block=2)
    more = parameter_counts(rare.config, two_norms).norms - parameter_counts(rare.config, rare.layout).norms
    assert more == LAYERS * 2 * WIDTH


def test_memory_holds_the_stream_that_was_not_sent_yet() -> None:
    rare, parallel = (simulate(asked(architecture={"kind": kind})).memory for kind in ("rarely", "parallel"))
    assert rare.weights_bytes == parallel.weights_bytes
    assert rare.kv_cache_bytes == parallel.kv_cache_bytes
    assert rare.activation_bytes - parallel.activation_bytes == TOKENS * WIDTH * DType.FLOAT16.num_bytes


def test_run_answers_under_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["run", file_of(tmp_path, rarely(4)), "--json", "-", "--html", str(page)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["architecture"] == "rarely"
    assert result["rarely"] == {"every": 4}
    assert result["kraken"] is None
    assert result["ttft_s"] == simulate(rarely(4)).ttft_s
    assert "One layer: rarely" in page.read_text(encoding="utf-8")
    assert main(["run", file_of(tmp_path, rarely(4))]) == 0
    text = capsys.readouterr().out
    assert "rarely, 1.32 B parameters, 4 x h100-sxm-x8" in text
    assert "Rarely: every 4\n" in text


def test_compare_puts_it_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    path = file_of(tmp_path, asked(architecture={"kind": "standard"}))
    assert main(["compare", path, "--json", "-", "--html", str(page)]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["architecture"] for result in results] == [*ANSWERING, "rarely"]
    assert [result["rarely"] for result in results] == [*[None] * len(ANSWERING), {"every": 2}]
    assert "One layer: rarely" in page.read_text(encoding="utf-8")


def test_compare_leaves_it_out_where_the_question_does_not_fit_it() -> None:
    odd = {"preset": "1.3B", "num_hidden_layers": 23}
    standard = Scenario.model_validate(asked(model=odd, architecture={"kind": "standard"}))
    assert [prediction.resolved.kind for prediction in compare(standard)] == ANSWERING
    with pytest.raises(InputError, match=r"architecture\.every: 23 layers do not divide by it \(got 2\)"):
        compare(with_architecture(standard, "rarely"))


def test_a_sweep_varies_its_own_field_and_writes_its_column(tmp_path: Path) -> None:
    alternatives = [{"kind": "parallel"}, {"kind": "rarely", "every": [1, 4]}, {"kind": "kraken", "ways": 4}]
    out = tmp_path / "points.parquet"
    sweep(asked(architecture=alternatives), out=out, jobs=1)
    rows = pq.read_table(out).to_pylist()
    assert [row["architecture.every"] for row in rows] == [None, 1, 4, None]
    assert [row["rarely.every"] for row in rows] == [None, 1, 4, None]
    assert [row["kraken.ways"] for row in rows] == [None, None, None, 4]
    assert [row["error"] for row in rows] == [None] * 4
    assert rows[0]["ttft_s"] == rows[1]["ttft_s"]
    assert rows[2]["ttft_s"] == simulate(rarely(4)).ttft_s


def test_a_sweeps_recipe_brings_it_to_workers_that_do_not_know_it() -> None:
    plan = plan_of(asked(batch_size=[1, 2]))
    sent = pickle.dumps(recipe_of(plan))
    unregister("rarely")
    assert "rarely" not in kinds()
    _, failed, encoded = run_chunk(pickle.loads(sent), 0, 0, plan.chunk(0))
    assert failed == 0
    assert decode(encoded).to_pylist()[0]["ttft_s"] == simulate(QUESTION).ttft_s


def test_explorations_try_it_too() -> None:
    answer = best_degree(Scenario.model_validate(QUESTION), perturb=False)
    assert {row.name for row in answer.rows if row.kind == "rarely"} == {"rarely x2", "rarely x4"}
    assert answer.as_dict()["best_by_architecture"]["rarely"] == "rarely x4"
    base = {**asked(architecture={"kind": "standard"}), "name": "base"}
    request = DesignRequest.model_validate({"base": base, "search": {"kind": ["rarely", "parallel"]}})
    designs = [item.design for item in search_designs(request).evaluated]
    assert {design.kind for design in designs} == {"rarely", "parallel"}
    widths = {
        kind: {design.hidden_size for design in designs if design.kind == kind} for kind in ("rarely", "parallel")
    }
    assert widths["rarely"] == widths["parallel"]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"kind": "rarely", "evry": 2}, "architecture.evry", "unknown field.*did you mean 'every'"),
        ({"kind": "rarely", "every": "2"}, "architecture.every", "must be a whole number"),
        ({"kind": "rarely", "every": 0}, "architecture.every", "must be at least 1"),
        ({"kind": "rarely", "every": 5}, "architecture.every", "24 layers do not divide by it"),
        (
            {"kind": "rarely", "ways": 2},
            "architecture.ways",
            "kind kraken or sub_layer_file only, not for rarely",
        ),
        ({"kind": "kraken", "every": 2}, "architecture.every", "is for kind rarely only, not for kraken"),
        ({"kind": "rarly"}, "architecture.kind", "did you mean 'rarely'"),
    ],
)
def test_its_fields_are_checked_as_any_others(fields: dict[str, Any], path: str, words: str) -> None:
    assert path in problems_of(asked(architecture=fields))
    with pytest.raises(InputError, match=words):
        resolve_model(scenario_from(asked(architecture=fields)))


def test_devices_that_cannot_share_a_block_are_refused_without_a_word_of_its_own() -> None:
    assert "16 attention heads do not divide by the 3 devices" in problems_of(asked(num_devices=3))["num_devices"]


def test_the_schema_describes_its_field() -> None:
    assert "Layers from one AllReduce to the next." in json.dumps(scenario_json_schema())


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register(RARELY)


def test_what_is_not_registered_is_unknown() -> None:
    unregister("rarely")
    try:
        assert "rarely" not in kinds()
        assert "must be one of standard" in problems_of(QUESTION)["architecture.kind"]
        with pytest.raises(ValueError, match="no architecture 'rarely'"):
            architecture("rarely")
    finally:
        register(RARELY)


def test_no_other_part_of_the_package_asks_which_architecture_it_is() -> None:
    package = Path(kraken_sim.__file__).parent
    asking = []
    for path in sorted(package.rglob("*.py")):
        # The paper compares three architectures by name, and so does validation with Kraken's speed-up.
        if path.parent.name in ("architectures", "paper"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            own = isinstance(node, ast.ImportFrom) and node.module in {f"kraken_sim.architectures.{k}" for k in SHIPPED}
            words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if own or (isinstance(node, ast.Compare) and not set(SHIPPED).isdisjoint(map(str, words))):
                asking.append(f"{path.relative_to(package)}:{getattr(node, 'lineno', 0)}")
    assert asking == []
