"""What is large is answered in bounded time and memory, or refused with the number that limits it."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import Scenario, simulate
from kraken_sim.engine import simulation
from kraken_sim.engine.timeline import Fold, Timeline
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.report import trace
from kraken_sim.report.profiles import topology_tree
from kraken_sim.report.render import render
from kraken_sim.report.topology_html import topology_page
from kraken_sim.report.trace import write_traces

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 256,
}
CLUSTER = """name: large
description: nodes of eight
base: h100-sxm-x8
topology:
  kind: assumed
  source: a test
  nodes:
    gpu: {{kind: gpu, count: {gpus}}}
    nvswitch: {{kind: nvswitch, count: {nodes}}}
    host: {{kind: host, count: {nodes}}}
    nic: {{kind: nic, count: {gpus}}}
    rail: {{kind: network_switch, count: 8}}
  links:
    - {{from: gpu*, to: nvswitch*, match: blocks, kind: nvlink, count: 18, bandwidth: 25 GB/s}}
    - {{from: gpu*, to: host*, match: blocks, kind: pcie, gen: 5}}
    - {{from: nic*, to: host*, match: blocks, kind: pcie, gen: 5}}
    - {{from: nic*, to: rail*, match: turns, kind: network, bandwidth: 400 Gb/s}}
"""


def tiny(num_layers: int, **more: Any) -> Scenario:
    model = {**TINY, "num_hidden_layers": num_layers}
    return Scenario.model_validate(
        {"hardware": "h200-sxm-x2", "model": model, "context_length": 16, "num_devices": 2, **more}
    )


# Many layers ------------------------------------------------------------------------------------------------


def test_what_is_too_much_to_simulate_step_by_step_is_refused_with_the_number_and_the_way_out() -> None:
    with pytest.raises(InfeasibleError, match=r"2 ranks x .*without --exact.*limiting number: 1,000,000 steps"):
        simulate(tiny(100_000), exact=True)


def test_the_limit_counts_the_steps_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    program = simulate(tiny(3)).prepared.program
    steps = 2 * len(list(program.steps()))
    monkeypatch.setattr(simulation, "MOST_STEPS", steps)
    simulate(tiny(3), exact=True)
    monkeypatch.setattr(simulation, "MOST_STEPS", steps - 1)
    with pytest.raises(InfeasibleError):
        simulate(tiny(3), exact=True)


@pytest.mark.parametrize("kind", ["standard", "kraken"])
@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_folded_layers_are_written_out_in_the_order_of_their_start(kind: str, launch: str) -> None:
    question = {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "context_length": 64, "num_devices": 2}
    timeline = simulate({**question, "architecture": {"kind": kind}, "runtime": {"launch": launch}}).timeline
    folds = {(fold.segment, fold.iteration): fold for fold in timeline.folds}
    plain = []
    for span in timeline.simulated:
        plain.append(span)
        fold = folds.get((span.segment, span.iteration), Fold("", 0, 0, 0))
        plain += [span.shifted(copy * fold.period_ps, copy) for copy in range(1, fold.count + 1)]
    assert folds
    assert timeline.spans == tuple(sorted(plain, key=lambda span: (span.start_ps, span.end_ps, span.stream)))


def test_a_trace_streamed_is_the_json_of_the_whole(tmp_path: Path) -> None:
    prediction = simulate(tiny(40))
    file, *_ = write_traces(prediction, tmp_path)
    text = file.read_text(encoding="utf-8")
    document = json.loads(text)
    assert json.dumps(document, indent=1) == text
    events = [event for event in document["traceEvents"] if event.get("cat") in ("kernel", "gpu_memcpy")]
    spans = [span for span in prediction.timeline.spans if span.kind != "wait"]
    assert [event["ts"] for event in events] == [span.start_ps / 1e6 for span in spans]
    assert [event["dur"] for event in events] == [(span.end_ps - span.start_ps) / 1e6 for span in spans]
    assert [event["args"]["iteration"] for event in events] == [span.iteration for span in spans]


def test_the_memory_of_a_trace_does_not_grow_with_its_layers(tmp_path: Path) -> None:
    peaks = []
    for num_layers in (50, 2_000):
        prediction = simulate(tiny(num_layers))
        tracemalloc.start()
        write_traces(prediction, tmp_path / str(num_layers))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + 1_000_000


def test_a_trace_of_too_many_events_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = simulate(tiny(40))
    num_spans = 2 * len(prediction.timeline.spans)
    assert 2 * prediction.timeline.num_spans == num_spans > 2 * len(prediction.timeline.simulated)
    monkeypatch.setattr(trace, "MOST_SPANS", num_spans - 1)
    with pytest.raises(InfeasibleError, match=f"{num_spans:,} kernels and waits .*fewer layers"):
        write_traces(prediction, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(trace, "MOST_SPANS", num_spans)
    assert write_traces(prediction, tmp_path)


def test_a_timeline_without_folds_keeps_every_span() -> None:
    timeline = simulate(tiny(3), exact=True).timeline
    assert isinstance(timeline, Timeline)
    assert sorted(timeline.spans) == sorted(timeline.simulated)


# Many GPUs --------------------------------------------------------------------------------------------------


def machine_file(folder: Path, nodes: int) -> str:
    path = folder / "large.yaml"
    path.write_text(CLUSTER.format(nodes=nodes, gpus=8 * nodes), encoding="utf-8")
    return str(path)


def test_five_hundred_nodes_of_eight_fit_into_a_few_entries(tmp_path: Path) -> None:
    topology = load_profile(machine_file(tmp_path, 512)).topology
    assert len(topology.gpus) == 4096
    assert len(topology.links) == 4 * 4096


def test_a_large_machine_is_shown_by_its_kinds_of_nodes_and_drawn_in_part(tmp_path: Path) -> None:
    profile = load_profile(machine_file(tmp_path, 256))
    labels = [str(branch.label) for branch in topology_tree(profile).children]
    assert "gpu0 ... gpu2047 (2048 alike)" in labels
    assert len(labels) == 5
    page = render(topology_page(profile))
    assert "Drawn are 16 of its 2048 GPUs" in page
    assert len(re.findall("gpu", page)) < 500


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("rail: {", "more: {kind: gpu, count: 4090}\n    rail: {"), "a machine has at most 4096 GPUs"),
        (("nic*, to: rail*, match: turns", "nic*, to: rail*"), "more than 20000 links in one entry"),
    ],
)
def test_more_than_can_be_worked_with_is_named(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(CLUSTER.format(nodes=512, gpus=4096).replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        load_profile(str(file))
