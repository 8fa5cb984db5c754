"""A measured step beside a predicted one: which kernel is which, what is missing or surplus, and that all adds up."""

from __future__ import annotations

import gzip
import json
import math
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_support import COMMITTED, DATA, FIRST, SECOND, committed_text, document, host, kernel, repeated, written

import kraken_sim
from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.traces.align import align, fit
from kraken_sim.traces.comparison import Predicted, TraceComparison, compare_traces, predicted
from kraken_sim.traces.device_trace import read_trace
from kraken_sim.traces.diff import StepDiff, communication, diff_steps
from kraken_sim.traces.kernel_names import KernelClass, class_of_name
from kraken_sim.traces.measured import measured_question, measured_trace
from kraken_sim.traces.nodes import TraceNode, accounted, nodes_of_trace, span_s
from kraken_sim.traces.owners import with_parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

US = 1e-6


def nodes(*kernels: tuple[str, float], gap_us: float = 0.5) -> list[TraceNode]:
    """Kernels of (name, us) one after the other."""
    now, found = 0.0, []
    for name, duration_us in kernels:
        found.append(TraceNode(name, class_of_name(name), now * US, duration_us * US, segment="layer"))
        now += duration_us + gap_us
    return accounted(found)


LAYER = [("layer_norm", 5.0), ("gemm_qkv", 20.0), ("flash_attn", 30.0), ("gemm_out", 10.0), ("add_kernel", 2.0)]


def checked(diff: StepDiff) -> StepDiff:
    """Whatever is compared, the terms add up to the difference."""
    total_s = math.fsum(term.seconds for term in diff.terms())
    assert total_s == pytest.approx(diff.theirs_s - diff.ours_s, abs=1e-12)
    return diff


class TestLiningUp:
    def test_a_step_beside_itself_matches_whole(self) -> None:
        diff = checked(diff_steps(nodes(*LAYER * 3), nodes(*LAYER * 3)))
        assert (len(diff.matched), diff.missing, diff.surplus) == (15, (), ())
        assert all(pair.ours == pair.theirs for pair in diff.pairs)

    def test_a_kernel_too_many_is_surplus_and_one_too_few_is_missing(self) -> None:
        theirs = [*LAYER[:3], ("CatArrayBatchedCopy", 3.0), *LAYER[3:]]
        diff = checked(diff_steps(nodes(*LAYER * 2), nodes(*theirs, *LAYER[:3], LAYER[4])))
        assert [pair.theirs.node.name for pair in diff.surplus if pair.theirs] == ["CatArrayBatchedCopy"]
        assert [pair.ours.node.name for pair in diff.missing if pair.ours] == ["gemm_out"]
        assert [pair.after for pair in diff.surplus] == ["flash_attn"]
        terms = {term.name: term.seconds for term in diff.terms()}
        assert terms["more kernels"] == pytest.approx(3.0 * US)
        assert terms["fewer kernels"] == pytest.approx(-10.0 * US)

    def test_of_three_gemms_the_one_that_takes_as_long_is_ours(self) -> None:
        theirs = [LAYER[0], ("gemm_k", 4.0), ("gemm_q", 19.0), ("gemm_v", 4.0), *LAYER[2:]]
        diff = checked(diff_steps(nodes(*LAYER), nodes(*theirs)))
        (pair,) = (pair for pair in diff.matched if pair.ours and pair.ours.node.name == "gemm_qkv")
        assert pair.theirs is not None
        assert pair.theirs.node.name == "gemm_q"

    def test_a_gemm_is_never_an_attention_and_two_small_kernels_may_be_one(self) -> None:
        assert fit(KernelClass.GEMM, KernelClass.ATTENTION) < 0.0
        assert fit(KernelClass.COLLECTIVE, KernelClass.OTHER) < 0.0
        assert 0.0 < fit(KernelClass.NORM, KernelClass.REDUCTION) < fit(KernelClass.NORM, KernelClass.NORM)
        assert all(fit(a, b) == fit(b, a) for a in KernelClass for b in KernelClass)

    def test_the_beginning_of_a_step_skips_no_layer(self) -> None:
        ours = nodes(*LAYER * 4)
        diff = checked(diff_steps(ours, nodes(*LAYER, *LAYER, *LAYER[:2]), is_beginning=True))
        assert (len(diff.matched), diff.missing, diff.ours_left_out) == (12, (), 8)
        assert diff.ours_s == pytest.approx(ours[11].end_s)

    @given(st.data())
    def test_pairs_go_forward_on_both_sides_and_are_the_best_there_are(self, data: st.DataObject) -> None:
        kinds = st.lists(st.sampled_from(["gemm", "flash_attn", "layer_norm", "add_kernel", "nccl_Kernel"]), max_size=6)
        ours, theirs = (nodes(*((name, 3.0) for name in data.draw(kinds))) for _ in range(2))
        pairs = align(ours, theirs)
        for collective in (False, True):
            own = [(a, b) for a, b in pairs if ours[a].is_collective is collective]
            assert all(a < c and b < d for (a, b), (c, d) in pairwise(own))
            assert len({b for _, b in own}) == len(own)
            count = sum(ours[a].kernel_class is theirs[b].kernel_class for a, b in own)
            mine, other = (
                [node.kernel_class for node in side if node.is_collective is collective] for side in (ours, theirs)
            )
            assert count == _longest_common(mine, other)


def _longest_common(a: Sequence[object], b: Sequence[object]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + _longest_common(a[1:], b[1:])
    return max(_longest_common(a[1:], b), _longest_common(a, b[1:]))


class TestParts:
    def test_fills_and_sums_of_partial_results_are_part_of_what_they_serve(self) -> None:
        theirs = nodes(
            ("layer_norm", 5.0),
            ("Memset (Device)", 1.0),
            ("gemm_splitK", 20.0),
            ("cublasLt::splitKreduce_kernel", 2.0),
            ("flash_attn", 30.0),
            ("flash_fwd_splitkv_combine", 3.0),
            ("gemm_out", 10.0),
            ("add_kernel", 2.0),
        )
        diff = checked(diff_steps(nodes(*LAYER), theirs))
        assert (len(diff.matched), diff.missing, diff.surplus) == (5, (), ())
        rows = {row.name: row for row in diff.by_node()}
        assert rows["layer: gemm_qkv"].theirs_s == pytest.approx(23.0 * US)
        assert rows["layer: gemm_qkv"].num_theirs == 3
        assert rows["layer: flash_attn"].theirs_s == pytest.approx(33.0 * US)

    def test_where_ours_has_such_nodes_they_are_nodes(self) -> None:
        both = [("gemm_splitK", 20.0), ("splitKreduce", 2.0), ("layer_norm", 5.0)]
        diff = checked(diff_steps(nodes(*both), nodes(*both)))
        assert [len(pair.theirs.nodes) for pair in diff.matched if pair.theirs] == [1, 1, 1]

    def test_a_fill_with_nothing_to_serve_stays_alone(self) -> None:
        assert [one.parts for one in with_parts(nodes(("Memset", 1.0), ("layer_norm", 2.0), ("add_kernel", 1.0)))] == [
            (),
            (),
            (),
        ]


class TestAccounts:
    @given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 50.0), st.floats(0.0, 9.0)), min_size=1, max_size=12))
    def test_exposed_times_and_gaps_add_up_to_the_step(self, drawn: list[tuple[bool, float, float]]) -> None:
        kinds = {True: KernelClass.COLLECTIVE, False: KernelClass.GEMM}
        found = accounted(TraceNode("k", kinds[joint], start, length) for joint, start, length in drawn)
        assert math.fsum(node.exposed_s + node.gap_s for node in found) == pytest.approx(span_s(found), abs=1e-9)

    def test_a_collective_beside_compute_is_hidden_and_one_after_it_exposed(self) -> None:
        found = accounted(
            [
                TraceNode("gemm", KernelClass.GEMM, 0.0, 10.0),
                TraceNode("nccl", KernelClass.COLLECTIVE, 4.0, 9.0),
                TraceNode("gemm", KernelClass.GEMM, 15.0, 5.0),
            ]
        )
        assert [node.exposed_s for node in found] == [10.0, 3.0, 5.0]
        assert [node.gap_s for node in found] == [0.0, 0.0, 2.0]

    def test_a_gap_is_the_hosts_as_far_as_it_had_not_launched(self) -> None:
        early, late = (TraceNode("b", KernelClass.GEMM, 20.0, 1.0, launched_s=when) for when in (5.0, 18.0))
        first = TraceNode("a", KernelClass.GEMM, 0.0, 10.0)
        assert accounted([first, early])[1].host_gap_s == 0.0
        assert accounted([first, late])[1].host_gap_s == 8.0


@cache
def question() -> Predicted:
    """What the first committed trace answers."""
    return predicted(simulate(measured_question(f"{FIRST}#2", "OURS")))


def committed(name: str = "h200-llama-8b-decode") -> str:
    return str(DATA / f"{name}.trace.json")


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


def trace_of(tmp_path: Path, events: list[dict[str, Any]], **beside: Any) -> Any:
    return read_trace(written(tmp_path / f"{len(list(tmp_path.iterdir()))}.json", events, **beside))


def asked(*kernels: tuple[str, float], **fields: Any) -> Predicted:
    return Predicted("ours", tuple(nodes(*kernels)), **fields)


STEP = [("vectorized_gather", 3.0), *LAYER, *LAYER, ("gemm_head", 9.0), ("ArgMaxOps", 1.0)]


class TestSteps:
    def test_a_typical_step_is_picked_by_what_repeats(self, tmp_path: Path) -> None:
        slow = [(name, 3.0 * duration) for name, duration in STEP]
        trace = trace_of(tmp_path, repeated([STEP[4:], slow, STEP, STEP, STEP[:6]]))
        found = compare_traces(asked(*STEP[:-1]), [trace])
        assert found.picked.how == "steps that begin with an embedding"
        assert found.picked.step.num_kernels == len(STEP)
        assert found.diff.theirs_s == pytest.approx(
            found.diff.ours_s + 1.0 * US + (len(STEP) - 1) * 0.5 * US + 0.0, rel=0.01
        )
        assert len(found.diff.surplus) == 1

    def test_rows_gathered_for_the_head_begin_no_step(self, tmp_path: Path) -> None:
        step = [*STEP[:-2], *[("add_kernel", 1.0)] * 9, ("vectorized_gather", 2.0), *STEP[-2:]]
        found = compare_traces(asked(*step), [trace_of(tmp_path, repeated([step, step]))])
        assert [one.num_kernels for one in found.picked.steps] == [len(step)] * 2

    @pytest.mark.parametrize(("phase", "chosen"), [("prefill", 40.0), ("decode", 4.0)])
    def test_of_a_prompt_and_its_answer_the_phase_decides(self, phase: str, chosen: float, tmp_path: Path) -> None:
        prompt = [("vectorized_gather", 40.0), *LAYER, ("extra", 5.0), *LAYER]
        token = [("vectorized_gather", 4.0), *LAYER, *LAYER]
        found = compare_traces(
            asked(*token, phase=phase), [trace_of(tmp_path, repeated([prompt, token, token, token]))]
        )
        first = found.diff.pairs[0].theirs
        assert first is not None
        assert first.duration_s == pytest.approx(chosen * US)

    def test_the_profilers_steps_go_by_what_the_host_launched_in_them(self, tmp_path: Path) -> None:
        events = []
        for number in range(3):
            begin_us = 1000.0 * number
            events.append(host("user_annotation", f"ProfilerStep#{number + 5}", begin_us, 999.0))
            # The device lags behind: kernels run when the host is in the next step.
            for index, (name, duration_us) in enumerate(LAYER):
                call = 10 * number + index
                events.append(host("cuda_runtime", "cudaLaunchKernel", begin_us + 10.0 * index, 5.0, correlation=call))
                events.append(kernel(name, begin_us + 1500.0 + 50.0 * index, duration_us + number, correlation=call))
        trace = trace_of(tmp_path, events)
        found = compare_traces(asked(*LAYER), [trace], step=7)
        assert found.picked.step.number == 7
        assert found.diff.pairs[0].theirs is not None
        assert found.diff.pairs[0].theirs.duration_s == pytest.approx(7.0 * US)
        with pytest.raises(InputError, match="5, 6, 7"):
            compare_traces(asked(*LAYER), [trace], step=8)


class TestRanks:
    def test_waiting_for_a_rank_that_came_later_is_told_from_the_collective(self, tmp_path: Path) -> None:
        traces = []
        for rank, wait_us in enumerate((6.0, 0.0)):
            events = [kernel("gemm", 0.0, 10.0), kernel("nccl_AllReduceKernel", 11.0, 4.0 + wait_us)]
            traces.append(trace_of(tmp_path, events, distributedInfo={"rank": rank, "world_size": 2}))
        found = compare_traces(asked(("gemm", 10.0), ("ncclKernel", 4.0), num_devices=2), traces)
        terms = {term.name: term.seconds for term in checked(found.diff).terms()}
        assert found.rank == 0
        assert terms["waiting"] == pytest.approx(6.0 * US)
        assert terms["collectives"] == pytest.approx(0.0, abs=1e-12)
        assert [rank.waiting_s for rank in found.ranks] == pytest.approx([6.0 * US, 0.0])
        assert compare_traces(asked(("gemm", 10.0), ("ncclKernel", 4.0)), traces, rank=1).rank == 1
        with pytest.raises(InputError, match="0 to 1"):
            compare_traces(asked(("gemm", 10.0)), traces, rank=2)

    def test_devices_of_one_process_are_ranks(self, tmp_path: Path) -> None:
        events = [kernel("gemm", 0.0, 10.0 + device, device=device) for device in range(3)]
        found = compare_traces(asked(("gemm", 10.0), num_devices=3), [trace_of(tmp_path, events)])
        assert [rank.rank for rank in found.ranks] == [0, 1, 2]
        assert found.rank == 2


class TestClock:
    def test_long_gemms_that_all_take_longer_alike_are_as_by_a_clock(self) -> None:
        ours = simulate(
            {"hardware": "h200-sxm-x2", "model": {"preset": "6.7B"}, "context_length": 2048, "num_devices": 1}
        )
        mine = predicted(ours).nodes
        slower = accounted(
            TraceNode(
                node.name,
                node.kernel_class,
                node.start_s * 1.1,
                node.duration_s * (1.1 if node.kernel_class is KernelClass.GEMM else 1.0),
            )
            for node in mine
        )
        terms = {term.name: term for term in checked(diff_steps(mine, slower)).terms()}
        gemms_s = sum(node.duration_s for node in mine if node.kernel_class is KernelClass.GEMM)
        assert terms["clock"].seconds == pytest.approx(0.1 * gemms_s, rel=0.02)
        assert "1.100" in terms["clock"].text

    def test_one_slow_gemm_is_no_clock(self) -> None:
        diff = checked(diff_steps(nodes(*LAYER * 4), nodes(*LAYER * 3, *[(n, 2 * d) for n, d in LAYER])))
        assert "clock" not in [term.name for term in diff.terms()]


class TestStrangers:
    def test_another_machine_is_said_and_counts_are_compared(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps(document(repeated([STEP]), "NVIDIA A100-SXM4-80GB")), encoding="utf-8")
        found = compare_traces(asked(*STEP, device_name="NVIDIA H200 SXM"), [read_trace(path)])
        assert any("A100" in warning and "times can't" in warning for warning in found.warnings)
        assert len(found.diff.matched) == len(STEP)

    def test_other_layers_other_ranks_and_another_launch_are_said(self, tmp_path: Path) -> None:
        events = repeated([[*STEP, *LAYER]])
        for call, event in enumerate(list(events)):
            event["args"]["correlation"] = call
            events.append(host("cuda_runtime", "cudaLaunchKernel", event["ts"] - 5.0, 2.0, correlation=call))
        trace = trace_of(tmp_path, events, distributedInfo={"rank": 0, "world_size": 4})
        words = " ".join(compare_traces(asked(*STEP, num_devices=2, launch="graph"), [trace]).warnings)
        assert "3 attention kernels, the prediction 2" in words
        assert "4 ranks, the prediction of 2" in words
        assert "launched as eager, the prediction says graph" in words

    def test_the_trace_of_something_else_is_refused_with_what_it_holds(self, tmp_path: Path) -> None:
        trace = trace_of(tmp_path, repeated([[("vectorized_gather", 2.0), *[("conv2d", 5.0)] * 20, ("gemm", 3.0)]]))
        with pytest.raises(InputError, match="trace of something else") as caught:
            compare_traces(question(), [trace])
        assert "20 other" in str(caught.value)
        assert caught.value.exit_code == 2

    def test_another_model_or_kernel_set_is_said(self) -> None:
        other = predicted(simulate(measured_question(f"{SECOND}#1", "OURS")))
        words = " ".join(compare_traces(other, [read_trace(DATA / "h200-llama-8b-decode.trace.json")]).warnings)
        assert "have no partner" in words
        assert "times the predicted time: other shapes?" in words
        right = compare_traces(question(), [read_trace(DATA / "h200-llama-8b-decode.trace.json")])
        assert len(right.warnings) == 1

    def test_half_a_trace_is_compared_as_far_as_it_goes(self, tmp_path: Path) -> None:
        text = json.dumps(document(repeated([STEP])))
        path = tmp_path / "a.json"
        path.write_text(text[: text.index("gemm_out")], encoding="utf-8")
        found = compare_traces(asked(*STEP), [read_trace(path)])
        assert len(found.diff.matched) == 4
        assert found.diff.missing == ()
        assert any("beginning of a step" in warning for warning in found.warnings)


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


def test_names_in_a_trace_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<script>alert(1)</script>gemm[bold]\x1b[2J"
    text = (
        (DATA / "h200-llama-8b-decode.trace.json").read_text(encoding="utf-8").replace('"Memset', '"Memset \\u001b[2J')
    )
    events = json.loads(text)["traceEvents"]
    for event in events:
        event["name"] = event["name"].replace("nvjet", f"nvjet {hostile}").replace("triton", f"triton{hostile}")
    path = written(tmp_path / "<b>a.json", events, device="NVIDIA H200 <img src=x>")
    page = tmp_path / "page.html"
    assert run(f"{FIRST}#2", str(path), "--html", str(page)) == 0
    shown, html = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert "\x1b" not in shown + html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "<b>a" not in html


def test_more_layers_than_can_be_lined_up_are_infeasible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "s.yaml"
    model = "model: {num_hidden_layers: 200000, hidden_size: 64, num_attention_heads: 1, vocab_size: 100}"
    lines = ("hardware: h200-sxm-x2", model, "context_length: 128", "num_devices: 1")
    scenario.write_text("\n".join(lines), encoding="utf-8")
    code = run(str(scenario), committed())
    assert (code, "too many to line up" in capsys.readouterr().err) == (3, True)


def run(*arguments: str) -> int:
    return main(["diff-trace", *arguments])


class TestCommand:
    def test_the_question_of_a_measured_pass_against_its_trace(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page, data = tmp_path / "page.html", tmp_path / "data.json"
        assert run(f"{FIRST}#2", committed(), "--html", str(page), "--json", str(data)) == 0
        shown = capsys.readouterr().out
        assert "39 matched, 0 missing, 0 surplus; 9 more are part of another" in shown
        assert "layer: gemm_down" in shown
        found = json.loads(data.read_text(encoding="utf-8"))
        assert found["difference_s"] == pytest.approx(sum(term["seconds"] for term in found["terms"]))
        classes_s = {side: sum(row[f"{side}_s"] for row in found["classes"]) for side in ("ours", "theirs")}
        for side, total_s in classes_s.items():
            assert total_s + found["gaps_s"][side] == pytest.approx(found[f"{side}_s"])
        assert found["device"] == "NVIDIA H200"
        assert found["unprofiled_step_s"] == pytest.approx(8.1536e-4)
        text = page.read_text(encoding="utf-8")
        assert "What the difference consists of" in text
        assert "https://cdn" not in text.split("<body>")[0]

    @pytest.mark.parametrize("kind", ["standard", "kraken"])
    @pytest.mark.parametrize("launch", ["graph", "eager"])
    def test_a_trace_that_was_written_is_the_step_that_was_predicted(
        self, kind: str, launch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scenario = tmp_path / "s.yaml"
        lines = ("hardware: h200-sxm-x2", "model: {preset: 125M}", "context_length: 512", "dtype: bfloat16")
        more = (f"architecture: {{kind: {kind}}}", f"runtime: {{launch: {launch}}}")
        scenario.write_text("\n".join((*lines, *more)), encoding="utf-8")
        assert main(["run", str(scenario), "--trace", str(tmp_path / "out")]) == 0
        for ours in (str(scenario), str(tmp_path / "out")):
            capsys.readouterr()
            assert run(ours, str(tmp_path / "out"), "--json", "-") == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["missing"], found["surplus"], found["warnings"]) == (0, 0, [])
            assert max(abs(term["seconds"]) for term in found["terms"]) < 1e-11
            assert max(abs(node["difference_s"]) for node in found["nodes"]) < 1e-11
            assert [rank["rank"] for rank in found["ranks"]] == [0, 1]

    def test_of_a_folder_only_the_rank_that_is_asked_for_is_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for rank in range(3):
            events = repeated([STEP]) if rank == 1 else [{"cat": "cpu_op"}]
            written(tmp_path / f"{rank}.json", events, distributedInfo={"rank": rank, "world_size": 3})
        assert run(f"{FIRST}#2", str(tmp_path), "--rank", "1", "--json", "-") == 0
        assert json.loads(capsys.readouterr().out)["rank"] == 1
        assert run(f"{FIRST}#2", str(tmp_path), "--rank", "7") == 2
        assert "none of the traces is of this rank" in capsys.readouterr().err
        assert run(f"{FIRST}#2", str(tmp_path)) == 2
        assert "none of a GPU" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((committed(), committed()), "none that kraken-sim run --trace has written"),
            (("kraken-6.7b-on-two-h200", "no-such-file.json"), "there is no file of this name"),
            (("kraken-6.7b-on-two-h200", committed(), "--rank", "x"), "must be a number or all"),
            (("kraken-6.7b-on-two-h200", committed(), "--rank", "5"), "there is none"),
            (("kraken-6.7b-on-two-h200", committed(), "--step", "5"), "there is no such step"),
            (("kraken-6.7b-on-two-h200", str(FIRST)), "27 of its profiled passes"),
            (("kraken-6.7b-on-two-h200", str(DATA.parent)), "holds no trace"),
        ],
    )
    def test_bad_input_is_named(
        self, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err


def test_hidden_communication_of_a_predicted_overlap_is_that_of_the_prediction() -> None:
    prediction = simulate(
        {
            "hardware": "h200-sxm-x2",
            "model": {"preset": "1.3B"},
            "architecture": {"kind": "kraken"},
            "context_length": 2048,
        }
    )
    ours = predicted(prediction)
    diff = diff_steps(ours.nodes, ours.nodes)
    found = communication(diff.pairs, 0)
    assert found["exposed"] + found["hidden"] == pytest.approx(
        math.fsum(node.duration_s for node in ours.nodes if node.is_collective)
    )
    assert found["hidden"] > 0.5 * (found["exposed"] + found["hidden"])


def test_nodes_of_a_trace_are_those_of_its_step(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path / "a.json", repeated([STEP])))
    found = nodes_of_trace(trace, trace.devices[0], 1, 4)
    assert [node.name for node in found] == [name for name, _ in STEP[1:4]]
