"""What of a trace is compared: which step of which rank, and what is said where it is another machine's or model's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from diff_support import LAYER, STEP, US, asked, checked, question, trace_of
from trace_support import DATA, SECOND, document, host, kernel, repeated, written

from kraken_sim import simulate
from kraken_sim.errors import InputError
from kraken_sim.traces.comparison import compare_traces, predicted
from kraken_sim.traces.device_trace import read_trace
from kraken_sim.traces.measured import measured_question
from kraken_sim.traces.nodes import nodes_of_trace

if TYPE_CHECKING:
    from pathlib import Path


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


def test_nodes_of_a_trace_are_those_of_its_step(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path / "a.json", repeated([STEP])))
    found = nodes_of_trace(trace, trace.devices[0], 1, 4)
    assert [node.name for node in found] == [name for name, _ in STEP[1:4]]
