"""Searches for designs: shapes that meet a budget, constraints that are kept, fronts that are right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.design.pareto import dominates
from kraken_sim.explore.design.request import (
    DesignRequest,
    Objective,
    SearchMethod,
    base_config,
    designs,
    load_design_request,
)
from kraken_sim.explore.design.search import search_designs
from kraken_sim.explore.design.shape import Design, divides, widths_for_budget
from kraken_sim.models.presets import preset

EXAMPLE = Path(__file__).parent.parent / "scenarios" / "13b-on-h100_design.yaml"
BASE = {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
VARIED: dict[str, Any] = {"num_hidden_layers": [16, 24], "head_dim": [64, 128], "channels": [None, 8]}


def request(**changes: Any) -> DesignRequest:
    return DesignRequest.model_validate({"base": BASE, "search": VARIED, **changes})


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["standard", "parallel", "kraken"]),
    budget=st.integers(200_000_000, 100_000_000_000),
    layers=st.integers(8, 96),
    devices=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([64, 96, 128]),
    groups=st.sampled_from([1, 4]),
)
def test_widths_divide_and_no_other_is_nearer_to_the_budget(
    kind: str, budget: int, layers: int, devices: int, head_dim: int, groups: int
) -> None:
    config = preset("6.7B")
    shape = Design(
        "any", devices, kind, devices if kind == "kraken" else 1, layers, head_dim, head_dim, groups, 2.0, None
    )

    def away(width: int) -> int:
        return int(abs(Design(*_fields(shape, width)).num_parameters(config) - budget))

    widths = widths_for_budget(shape, config, budget)
    assert widths
    for width in widths:
        assert width % 64 == 0
        assert divides(Design(*_fields(shape, width)))
    best = min(widths, key=away)
    neighbours = [width for width in (best - 64, best + 64) if width > 0 and divides(Design(*_fields(shape, width)))]
    assert all(away(best) <= away(width) for width in neighbours)


def _fields(design: Design, width: int) -> list[Any]:
    values = {name: getattr(design, name) for name in Design.__slots__}
    return list({**values, "hidden_size": width}.values())


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
def test_a_design_counts_the_parameters_that_are_simulated(kind: str) -> None:
    asked = request(search={"kind": [kind], "ffn_expansion": [3], "num_key_value_groups": [4]})
    for design in designs(asked):
        prediction = simulate(design.scenario(asked.base))
        assert prediction.num_parameters == design.num_parameters(base_config(asked))
        shape = prediction.resolved.layout.block
        assert shape.intermediate_size == 3 * shape.hidden_size
        assert shape.num_attention_heads == 4 * shape.num_key_value_heads


def test_the_base_model_is_its_own_design() -> None:
    asked = request(search={"kind": ["standard"], "hidden_size": [2048]})
    (design,) = designs(asked)
    assert simulate(design.scenario(asked.base)).latency_s == simulate(asked.base).latency_s


def test_every_design_is_named_once_and_keeps_the_constraints() -> None:
    limits = {"budget_tolerance": 0.04, "min_hidden_size": 1500, "min_num_hidden_layers": 20, "max_memory": "3 GB"}
    asked = request(constraints=limits)
    space = list(designs(asked))
    assert len(space) == len(set(space))
    result = search_designs(asked)
    budget = 1_315_000_000
    for item in result.evaluated:
        assert abs(item.num_parameters / budget - 1.0) < 0.05
        assert item.design.hidden_size >= 1500
        assert item.design.num_hidden_layers >= 20
        assert item.memory_bytes <= 3e9
    assert result.num_designs == len(result.evaluated) + sum(result.rejections.counts.values())


def test_the_front_is_undominated_and_its_first_the_fastest() -> None:
    result = search_designs(request(objectives=["ttft", "depth"]))

    def point(item: Any) -> list[float]:
        return [item.minimised(Objective.TTFT), item.minimised(Objective.DEPTH)]

    assert not any(dominates(point(a), point(b)) for a in result.evaluated for b in result.front)
    assert result.best.latency_s == min(item.latency_s for item in result.evaluated)
    assert {item.design.num_hidden_layers for item in result.front} == {16, 24}
    assert sum(row["on_front"] for row in result.records()) == len(result.front)
    assert result.decision is not None
    assert result.decision.best == result.best.design.label


def test_cost_is_rent_over_tokens_on_the_designs_share_of_the_machine() -> None:
    prices = {"h200-sxm-x2": {"per_hour": 8.0, "source": "example price", "date": "2026-01-01"}}
    result = search_designs(request(objectives=["cost"], prices=prices, currency="EUR", search={"num_devices": [1, 2]}))
    best = result.best
    expected = 8.0 * best.design.num_devices / 2 / 3600.0 * best.latency_s / 128 * 1e6
    assert best.cost == pytest.approx(expected)
    assert best.design.num_devices == 1


def test_optuna_finds_nearly_the_best_of_a_space_it_does_not_try_whole() -> None:
    # 15 % of the space; exhaustive search says what the best is.
    asked = request(search={**VARIED, "ffn_expansion": [2, 3, 4], "num_key_value_groups": [1, 2, 4]})
    space = len(list(designs(asked)))
    assert space > 200
    whole = search_designs(asked.model_copy(update={"objectives": (Objective.TTFT,)}))
    some = {"objectives": (Objective.TTFT,), "method": SearchMethod.OPTUNA, "max_evaluations": space * 15 // 100}
    sampled = search_designs(asked.model_copy(update=some))
    assert sampled.method.startswith("Optuna")
    assert len(sampled.evaluated) == space * 15 // 100
    assert sampled.best.latency_s <= 1.05 * whole.best.latency_s


def test_a_space_too_large_says_how_to_go_on_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"install kraken_sim\[explore\]"):
        search_designs(request(max_evaluations=3, method="optuna"))


def test_a_space_that_cannot_be_listed_is_refused() -> None:
    many = {"num_hidden_layers": list(range(1, 101)), "hidden_size": list(range(64, 6400, 64)), "ways": [2, 4, 8, 16]}
    many["head_dim"] = [64, 80, 96, 112, 128, 160]
    with pytest.raises(InputError, match="200,000 are the most"):
        search_designs(request(search=many, method="optuna"))
    groups = {"num_key_value_groups": list(range(1, 101))}
    with pytest.raises(InputError, match="20,000,000 are the most"):
        search_designs(request(search={**many, **groups}))


def test_an_interrupted_search_keeps_what_it_has() -> None:
    def interrupt(count: int) -> None:
        if count == 10:
            raise KeyboardInterrupt

    result = search_designs(request(), interrupt)
    assert not result.complete
    assert 0 < len(result.evaluated) <= 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"constraints": {"max_latency": "1 us"}}, "max_latency 1 us; the fastest takes"),
        ({"constraints": {"max_memory": "1 MB"}}, "max_memory 1 MB; the least is"),
        ({"constraints": {"min_hidden_size": 100_000}}, "min_hidden_size 100000; the most is"),
        ({"search": {"hidden_size": [256]}}, "the nearest design has"),
        ({"search": {"hidden_size": [100]}}, "0 designs"),
        ({"budget": 400e9, "search": {}}, "device memory"),
    ],
)
def test_constraints_that_nothing_keeps_name_the_number_in_the_way(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        search_designs(request(**changes))
    assert words in str(caught.value)


def test_every_problem_of_a_search_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {
        "base": {**BASE, "model": {"preset": "1.4B"}, "hardware": "h200-sxm-x2"},
        "budget": 1e9,
        "objectives": ["tpot", "cost"],
        "search": {"hardware": ["h200-sxm-x2", "l4s-x8"], "kind": ["laddr"], "head_dim": [100], "hidden_size": [1024]},
        "constraints": {"min_parameters": 3e9, "max_parameters": 2e9, "min_hidden_size": 2048},
    }
    path = tmp_path / "design.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert main(["explore", "design", str(path)]) == 2
    error = capsys.readouterr().err
    for words in (
        "did you mean 'l40s-x8'",
        "did you mean '1.3B'",
        "search.head_dim.0",
        "search.kind.0",
        "constraints.min_parameters",
        "budget: line",
        "constraints.min_hidden_size",
        "objectives.0",
        "prices.h200-sxm-x2",
        "currency",
    ):
        assert words in error, words


def test_the_command_answers_as_text_json_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "front.html"
    assert main(["explore", "design", "13b-on-h100_design", "--html", str(page)]) == 0
    assert "nothing else is better in all of ttft, energy" in capsys.readouterr().out
    assert "front" in page.read_text(encoding="utf-8")
    assert main(["explore", "design", str(EXAMPLE), "--max-evaluations", "30", "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["num_evaluated"] <= 30
    assert answer["best"] == answer["front"][0]
    assert main(["explore", "design", str(EXAMPLE), "--max-evaluations", "0"]) == 2
    assert load_design_request(EXAMPLE).name == "13b-on-h100"
