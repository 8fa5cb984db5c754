"""What an H200 ran beside what is predicted: recorded kernels and traces of torch.profiler."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from diff_support import checked, question
from trace_support import COMMITTED, DATA, FIRST, SECOND, committed_text

import kraken_sim
from kraken_sim import simulate
from kraken_sim.errors import InputError
from kraken_sim.traces.comparison import TraceComparison, compare_traces, predicted
from kraken_sim.traces.device_trace import read_trace
from kraken_sim.traces.kernel_names import KernelClass
from kraken_sim.traces.measured import measured_question, measured_trace

if TYPE_CHECKING:
    from pathlib import Path


class TestMeasured:
    @pytest.mark.parametrize("name", COMMITTED)
    def test_the_committed_traces_are_what_was_measured(self, name: str) -> None:
        assert (DATA / f"{name}.trace.json").read_text(encoding="utf-8") == committed_text(name)

    @pytest.mark.parametrize(("path", "count"), [(FIRST, 27), (SECOND, 9)])
    def test_every_kernel_that_an_h200_ran_is_one_that_is_predicted(self, path: Path, count: int) -> None:
        """The op lists of all kernel sets, in their order: only a fill at the end of a recording has no partner."""
        for number in range(1, count + 1, 4):
            text = f"{path}#{number}"
            ours = predicted(simulate(measured_question(text, "OURS")))
            diff = checked(compare_traces(ours, [measured_trace(text, "THEIRS")]).diff)
            assert diff.missing == ()
            assert all(pair.kernel_class is KernelClass.MEMSET for pair in diff.surplus)
            assert len(diff.matched) >= 35

    def test_a_record_and_its_trace_are_the_same_step(self) -> None:
        record = compare_traces(question(), [measured_trace(f"{FIRST}#2", "THEIRS")]).diff
        trace = compare_traces(question(), [read_trace(DATA / "h200-llama-8b-decode.trace.json")]).diff
        assert trace.theirs_s == pytest.approx(record.theirs_s, abs=2e-9)
        assert len(trace.matched) == len(record.matched) == 39

    @pytest.mark.parametrize("key", ["28", "0", "decode/b16", "nothing like it"])
    def test_a_pass_that_is_not_there_or_not_one_is_named(self, key: str) -> None:
        with pytest.raises(InputError, match="profiled passes") as caught:
            measured_trace(f"{FIRST}#{key}", "THEIRS")
        assert caught.value.exit_code == 2


def real(name: str) -> tuple[TraceComparison, dict[str, Any]]:
    """A committed trace of torch.profiler beside the prediction of the question that it answers."""
    path = DATA / f"h200-{name}.trace.json.gz"
    asked = json.loads(gzip.decompress(path.read_bytes()))["validation"]["question"]
    runtime = {"launch": asked.pop("launch"), "kernels": asked.pop("kernels"), "load": "rested"}
    ours = predicted(simulate({"hardware": "h200-sxm-x2", **asked, "runtime": runtime}))
    found = compare_traces(ours, [read_trace(path)])
    checked(found.diff)
    return found, {row.name: row for row in found.diff.by_node()}


class TestTorchProfiler:
    """Traces of torch 2.11 on an H200, taken by `python -m validation.traces`."""

    @pytest.mark.parametrize("name", ["twin-decode", "twin-prefill", "twin-prefill-eager"])
    def test_a_model_of_ours_runs_the_kernels_that_are_predicted_and_no_others(self, name: str) -> None:
        found, rows = real(name)
        assert (len(found.diff.matched), found.diff.missing, found.diff.surplus) == (51, (), ())
        assert found.warnings == ()
        assert len(found.picked.alike) == 3
        assert found.picked.how == "the profiler's steps"
        assert rows["layer: attention"].num_theirs == 8  # with a fill or a sum of parts each
        assert found.period_s is not None
        assert found.diff.theirs_s > 0.95 * found.period_s

    def test_a_graph_never_waits_for_the_host_and_single_launches_do(self) -> None:
        eager, graph = ({term.name: term.seconds for term in real(name)[0].diff.terms()} for name in (
            "twin-prefill-eager", "twin-decode",
        ))  # fmt: skip
        assert "host" not in graph
        assert eager["host"] > 2e-3

    def test_hugging_faces_projections_are_pieces_and_its_masks_are_surplus(self) -> None:
        found, rows = real("hf-prefill-eager")
        assert rows["layer: gemm_qkv"].num_theirs == 9
        assert rows["layer: gemm_up"].num_theirs == 6
        gemms = [pair for pair in found.diff.surplus if pair.kernel_class is KernelClass.GEMM]
        assert len(gemms) == 1  # the angles of the rotary positions
        missing = {pair.ours.node.name for pair in found.diff.missing if pair.ours}
        # Its rotary kernels come in another order, so some have no place in line.
        assert {"k_cache", "v_cache"} <= missing
        assert all(name.startswith("rope_") for name in missing - {"k_cache", "v_cache"})
        assert len(found.diff.matched) > 0.85 * len(found.ours.nodes)


def test_the_api_compares_a_question_or_its_prediction() -> None:
    path = DATA / "h200-twin-decode.trace.json.gz"
    asked = json.loads(gzip.decompress(path.read_bytes()))["validation"]["question"]
    runtime = {"launch": asked.pop("launch"), "kernels": asked.pop("kernels"), "load": "rested"}
    scenario = {"hardware": "h200-sxm-x2", **asked, "runtime": runtime}
    found = kraken_sim.diff_trace(scenario, path)
    assert found.as_dict() == real("twin-decode")[0].as_dict() | {"ours": "scenario"}
    assert kraken_sim.diff_trace(simulate(scenario), str(path), rank=0, step=3).picked.step.number == 3
    for wrong in ({"rank": "0"}, {"step": 1.5}, {"rank": True}):
        with pytest.raises(InputError, match="whole number"):
            kraken_sim.diff_trace(scenario, path, **wrong)
    with pytest.raises(InputError, match="at least one"):
        kraken_sim.diff_trace(scenario)
    with pytest.raises(InputError, match="traces"):
        kraken_sim.diff_trace(scenario, DATA / "accuracy-today.csv")
    with pytest.raises(InputError, match="it is no path"):
        kraken_sim.diff_trace(scenario, 3)  # type: ignore[arg-type]
