"""Two steps lined up kernel by kernel: which is which, what is missing or surplus, and that all terms add up."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from diff_support import LAYER, US, checked, nodes
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.traces.align import align, fit
from kraken_sim.traces.comparison import predicted
from kraken_sim.traces.diff import communication, diff_steps
from kraken_sim.traces.kernel_names import KernelClass
from kraken_sim.traces.nodes import TraceNode, accounted, span_s
from kraken_sim.traces.owners import with_parts

if TYPE_CHECKING:
    from collections.abc import Sequence


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
