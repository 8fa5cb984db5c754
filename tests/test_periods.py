"""Layers whose collectives run on into the next: what was left out is what would have happened, to the picosecond."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest

from kraken_sim import simulate

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.predict.prediction import Prediction

KINDS: Final = ("ladder", "domino", "token_weave")
GRAPH, EAGER = {"launch": "graph"}, {"launch": "eager"}


def asked(kind: str, layers: int = 24, **fields: Any) -> dict[str, Any]:
    model = {"preset": "6.7B", "num_hidden_layers": layers}
    base = {"hardware": "h100-sxm-x8", "num_devices": 8, "batch_size": 2, "context_length": 1024}
    return {**base, "model": model, "architecture": {"kind": kind}, **fields}


def by_events(question: dict[str, Any]) -> Prediction:
    """The same with every layer of one rank simulated."""
    with patch("kraken_sim.engine.simulation.simulate_periods", return_value=None):
        return simulate(question)


def spans_of(prediction: Prediction) -> list[tuple[object, ...]]:
    found = prediction.timeline.spans
    return sorted((s.start_ps, s.end_ps, s.stream, s.segment, s.iteration, s.name) for s in found)


@pytest.mark.parametrize("hardware", ["h100-sxm-x8", "l40s-x8"])
@pytest.mark.parametrize(
    "step", [{"phase": "prefill"}, {"phase": "decode", "batch_size": 16}], ids=["prefill", "decode"]
)
@pytest.mark.parametrize("kind", ["ladder", "domino"])
def test_spans_of_a_graph_are_those_of_all_layers(kind: str, step: dict[str, Any], hardware: str) -> None:
    question = asked(kind, hardware=hardware, runtime=GRAPH, **step)
    folded, whole = simulate(question), by_events(question)
    assert spans_of(folded) == spans_of(whole)
    assert folded.timeline.num_events < 0.6 * whole.timeline.num_events
    assert [fold.count for fold in folded.timeline.folds] in ([19], [18], [12], [11])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [{"context_length": 2048}, {"context_length": 512}], ids=["device", "host"])
def test_so_are_those_of_kernels_that_a_host_launches(kind: str, step: dict[str, Any]) -> None:
    question = asked(kind, runtime=EAGER, **step)
    folded, whole = simulate(question), by_events(question)
    assert spans_of(folded) == spans_of(whole)
    assert folded.breakdown_s == pytest.approx(whole.breakdown_s, rel=1e-12)
    assert folded.timeline.folds


@pytest.mark.parametrize("kind", KINDS)
def test_more_layers_cost_no_more_events(kind: str) -> None:
    shallow, deep = (simulate(asked(kind, layers)).timeline for layers in (24, 96))
    assert shallow.num_events == deep.num_events
    assert deep.num_spans == pytest.approx(4 * shallow.num_spans, rel=0.02)


def test_layers_that_differ_by_their_windows_repeat_by_their_period(tmp_path: Path) -> None:
    config = {
        "model_type": "gemma3_text", "num_hidden_layers": 49, "hidden_size": 2048, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192, "vocab_size": 32000,
        "max_position_embeddings": 8192, "sliding_window": 512, "sliding_window_pattern": 6,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    question = asked("ladder", dtype="bfloat16", context_length=4096) | {"model": {"config": str(path)}}
    folded = simulate(question)
    assert folded.timeline.folds
    assert spans_of(folded) == spans_of(by_events(question))
