"""The sums of a prediction are those of its timeline, every layer written out; its interval is what its errors say."""

from __future__ import annotations

from dataclasses import replace
from math import hypot, log, pi, sqrt
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate
from kraken_sim.engine.timeline import SpanKind
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.uncertainty import (
    CARD_RESIDUAL,
    COMMON_SHARE,
    GRAPH_LAUNCH_RESIDUAL,
    RANKS_APART,
    HostRange,
    block_residuals,
    host_quantile,
    host_range,
    interval_of,
)
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.program.program import MAIN_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMUNICATION = ("collectives", "contention")
MODEL = {"preset": "1.3B", "num_hidden_layers": 6}
CASES: list[dict[str, Any]] = [
    {"architecture": {"kind": "kraken"}, "runtime": {"launch": "graph"}},
    {"architecture": {"kind": "kraken"}, "runtime": {"launch": "eager"}},
    {"architecture": {"kind": "standard"}, "runtime": {"launch": "graph"}},
    {"architecture": {"kind": "kraken"}, "runtime": {"launch": "graph", "collective": {"channels": 4}}},
    {"architecture": {"kind": "kraken"}, "runtime": {"launch": "graph", "collective": {"channels": 1}}},
]


def predict(case: dict[str, Any], **changes: Any) -> Any:
    asked = {"hardware": "h200-sxm-x2", "model": MODEL, "num_devices": 2, "context_length": 1024}
    return simulate({**asked, **case, **changes})


def relative_half(
    kernels_s: Mapping[str, Mapping[object, float]], residuals: dict[str, float], slowdown: float = 1.0
) -> float:
    """How far a millisecond's interval reaches above it, which is as far in factors below."""
    found = interval_of(1e-3, kernels_s, residuals, slowdown=slowdown)
    assert found.level == 0.9
    assert found.high_s * found.low_s == pytest.approx(1e-6)
    return found.high_s / 1e-3 - 1.0


@pytest.mark.parametrize("case", CASES)
class TestTotals:
    def test_overlapped_collectives_lose_what_they_take_longer_than_alone(self, case: dict[str, Any]) -> None:
        prediction = predict(case)
        beside = [s for s in prediction.timeline.spans if s.stream != MAIN_STREAM and s.kind is SpanKind.COLLECTIVE]
        assert prediction.overlap_cost.collective_slowdown_s == pytest.approx(
            max(0.0, sum(s.duration_s - s.alone_s for s in beside)), abs=1e-11
        )
        assert (prediction.overlap_cost.waiting_s > 0.0) == (case is CASES[-1])
        taken_s = sum(s.duration_s for s in beside)
        assert prediction.hidden_communication_s == pytest.approx(
            max(0.0, taken_s - prediction.overlap_cost.waiting_s), abs=1e-11
        )

    def test_kernels_of_the_main_stream_lose_what_they_take_longer_than_alone(self, case: dict[str, Any]) -> None:
        prediction = predict(case)
        main = [s for s in prediction.timeline.spans if s.stream == MAIN_STREAM and s.rank == 0]
        lost_s = sum(s.duration_s - s.alone_s for s in main if s.kind is SpanKind.COMPUTE)
        assert prediction.overlap_cost.compute_slowdown_s == pytest.approx(max(0.0, lost_s), abs=1e-10)
        waits_s = sum(s.duration_s for s in main if s.kind is SpanKind.WAIT)
        assert prediction.overlap_cost.waiting_s == pytest.approx(waits_s, abs=1e-11)

    def test_every_collective_counts_alone_once(self, case: dict[str, Any]) -> None:
        prediction = predict(case)
        collectives = [s for s in prediction.timeline.spans if s.rank == 0 and s.kind is SpanKind.COLLECTIVE]
        assert prediction.communication_alone_s == pytest.approx(sum(s.alone_s for s in collectives))

    def test_the_main_stream_s_time_is_cut_into_slices_that_leave_nothing_out(self, case: dict[str, Any]) -> None:
        prediction = predict(case)
        assert sum(prediction.breakdown_s.values()) == pytest.approx(prediction.latency_s)
        cursor, slices = 0, {"exposed": 0, "contention": 0.0}
        for span in sorted(
            (s for s in prediction.timeline.spans if s.stream == MAIN_STREAM and s.rank == 0), key=lambda s: s.end_ps
        ):
            if span.kind is not SpanKind.COMPUTE:
                slices["exposed"] += span.end_ps - cursor
            if span.kind is SpanKind.WAIT:
                slices["contention"] += (span.end_ps - cursor) * 1e-12
            else:
                slices["contention"] += max(0.0, span.duration_s - span.alone_s)
            cursor = span.end_ps
        assert prediction.exposed_communication_s == pytest.approx(slices["exposed"] * 1e-12)
        assert prediction.totals.blocks_s["contention"] == pytest.approx(slices["contention"], abs=1e-10)


class TestInterval:
    def test_errors_of_kernels_average_out_but_for_what_they_have_in_common(self) -> None:
        one, four = (
            relative_half({"gemm": dict.fromkeys(range(count), 1e-3 / count)}, {"gemm": 0.1}) for count in (1, 4)
        )
        assert one == pytest.approx(1.645 * sqrt(pi / 2) * hypot(0.1, CARD_RESIDUAL))
        square = COMMON_SHARE + (1 - COMMON_SHARE) / 4
        assert four == pytest.approx(1.645 * sqrt(pi / 2) * hypot(0.1 * sqrt(square), CARD_RESIDUAL))

    def test_errors_of_blocks_and_of_kinds_of_kernels_are_independent(self) -> None:
        # Six tenths with an error of 0.1 and four with 0.2 are sqrt(0.06² + 0.08²) = 0.1 on average.
        kernels_s: dict[str, dict[object, float]] = {"gemm": {"a": 6e-4}, "memory_bound.kernels.rope": {"b": 4e-4}}
        residuals = {"gemm": 0.1, "memory_bound": 0.9, "memory_bound.kernels.rope": 0.2}
        half = relative_half(kernels_s, residuals)
        assert half == pytest.approx(1.645 * sqrt(pi / 2) * hypot(0.1, CARD_RESIDUAL))
        # A kind that states none has its block's.
        assert relative_half(kernels_s, {"gemm": 0.1, "memory_bound": 0.2}) == half

    def test_a_clock_below_boost_is_as_unsure_as_the_power_and_no_more_than_it_is_low(self) -> None:
        cool, warm, hot = (relative_half({}, {"power": 0.05}, slowdown=slowdown) for slowdown in (1.0, 1.02, 1.2))
        widths = [1.645 * sqrt(pi / 2) * hypot(CARD_RESIDUAL, own) for own in (0.0, 0.02, 0.05)]
        assert [cool, warm, hot] == pytest.approx(widths)

    def test_gaps_between_nodes_differ_from_machine_to_machine(self) -> None:
        half = relative_half({"launch": {"launch": 2e-4}}, {})
        assert half == pytest.approx(1.645 * sqrt(pi / 2) * hypot(CARD_RESIDUAL, 0.2 * GRAPH_LAUNCH_RESIDUAL))

    def test_a_step_of_several_ranks_may_wait_for_the_slowest_and_is_never_faster_for_it(self) -> None:
        alone, together = (interval_of(1e-3, {}, {}, awaited_s=awaited_s) for awaited_s in (0.0, 1e-3))
        assert together.low_s == alone.low_s
        assert log(together.high_s / 1e-3) ** 2 == pytest.approx(
            log(alone.high_s / 1e-3) ** 2 + log(1 + RANKS_APART) ** 2
        )

    def test_what_another_host_makes_of_a_step_is_added_in_quadrature_on_either_side(self) -> None:
        kernels = interval_of(1e-3, {"gemm": {"a": 1e-3}}, {"gemm": 0.1})
        both = interval_of(1e-3, {"gemm": {"a": 1e-3}}, {"gemm": 0.1}, hosts_s=(0.8e-3, 1.5e-3))
        assert log(both.high_s / 1e-3) ** 2 == pytest.approx(log(kernels.high_s / 1e-3) ** 2 + log(1.5) ** 2)
        assert log(both.low_s / 1e-3) ** 2 == pytest.approx(log(kernels.low_s / 1e-3) ** 2 + log(0.8) ** 2)

    def test_the_kernels_of_a_step_are_all_priced_by_something(self) -> None:
        totals = predict(CASES[0]).totals
        names = {"gemm", "attention", "memory_bound.kernels.norm", "memory_bound.kernels.gelu", "contention"}
        assert names <= set(totals.kernels_s)
        compute_s = sum(sum(own.values()) for name, own in totals.kernels_s.items() if name not in _COMMUNICATION)
        assert compute_s == pytest.approx(totals.compute_s)

    def test_the_more_processes_tell_of_a_host_the_nearer_another_one_is(self) -> None:
        few, many = host_range(0.3, 1), host_range(0.3, 8)
        assert few.low < many.low < few.median == many.median == 1.0 < many.high < few.high
        assert host_range(0.0, 8) == HostRange(1.0, 1.0, 1.0)

    def test_of_many_ranks_one_is_slow(self) -> None:
        one, two, eight = (host_range(0.3, 9, num_ranks=count) for count in (1, 2, 8))
        assert one.low < two.low == eight.low < 1.0
        assert 1.0 < two.median == eight.median < 1.2
        assert one.high < two.high < eight.high

    def test_quantiles_of_hosts_rise_and_keep_to_what_was_measured(self) -> None:
        probabilities = [0.0, 0.001, 0.03, 0.05, 0.2, 0.5, 0.73, 0.95, 0.999]
        found = [host_quantile(p) for p in probabilities]
        assert found == sorted(found)
        assert host_quantile(0.05) == -1.25
        assert host_quantile(0.999) == host_quantile(0.99) == 2.8

    def test_the_largest_residual_of_a_block_counts_and_one_that_states_none_is_taken_as_a_fifth(self) -> None:
        def fitted(residual: float | None) -> Provenance:
            return Provenance(ProvenanceKind.FITTED, "a fit", residual)

        datasheet = Provenance(ProvenanceKind.DATASHEET, "a datasheet")
        found = block_residuals(
            {"gemm.a": fitted(0.05), "gemm.b": fitted(0.08), "gemm.c": fitted(0.01), "attention.a": fitted(None),
             "launch.a": datasheet, "memory_bound.a": fitted(0.07), "memory_bound.kernels.rope.a": fitted(0.3)}
        )  # fmt: skip
        assert found == {"gemm": 0.08, "attention": 0.2, "memory_bound": 0.07, "memory_bound.kernels.rope": 0.3}


class TestEnergy:
    def test_layers_that_were_folded_draw_as_much_as_those_written_out(self) -> None:
        folded, exact = predict(CASES[0]), simulate(predict(CASES[0]).scenario, exact=True)
        assert folded.timeline.folds
        assert step_energy(folded).energy_j == pytest.approx(step_energy(exact).energy_j)

    def test_every_byte_from_hbm_costs_its_share_of_the_power_at_full_bandwidth(self) -> None:
        prediction = predict(CASES[0], context_length=128)
        assert step_energy(prediction).device_w < prediction.profile.power.limit_w - 100.0
        more = with_power(prediction, hbm_w=prediction.profile.power.hbm_w + 100.0)
        machine, num_bytes = prediction.prepared.machine, 0.0
        for span in prediction.timeline.spans:
            if span.rank == 0 and span.kind is not SpanKind.WAIT:
                of_kind = machine.collective_cost if span.kind is SpanKind.COLLECTIVE else machine.kernel_cost
                num_bytes += of_kind(span.op).hbm_bytes
        joules = step_energy(more).energy_j - step_energy(prediction).energy_j
        assert joules == pytest.approx(2 * 100.0 * num_bytes / prediction.profile.device.hbm_bandwidth_bytes_per_s)

    def test_at_the_settled_clock_the_kernels_draw_the_limit_and_no_more_is_ever_said(self) -> None:
        prediction = predict(CASES[2], model={"preset": "6.7B"}, batch_size=8, context_length=2048)
        assert prediction.slowdown > 1.02
        limit_w = prediction.profile.power.limit_w
        assert step_energy(prediction).device_w <= limit_w
        assert step_energy(with_power(prediction, limit_w=1e9)).device_w == pytest.approx(limit_w, rel=0.05)
        assert step_energy(with_power(prediction, limit_w=100.0)).device_w == 100.0


def with_power(prediction: Any, **changes: float) -> Any:
    """The same step at the same clock on a card that draws otherwise."""
    profile = replace(prediction.profile, power=replace(prediction.profile.power, **changes))
    return replace(prediction, prepared=replace(prediction.prepared, profile=profile))
