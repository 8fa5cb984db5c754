"""Operators written out one by one are timed together: what their sum tells of each kind of kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from measurement_support import header

from kraken_sim.architectures.small_kernels import activation_kernels
from kraken_sim.calibration.composed import composed_samples
from kraken_sim.calibration.memory_bound import MemoryBoundSample, fit_memory_bound, memory_bound_periods
from kraken_sim.costs.memory_bound import COMPOSED, ELEMENTWISE, REDUCTION, STRIDED, kind_of
from kraken_sim.measurements.records.kernels import MemoryBoundRecord
from kraken_sim.measurements.schema import MeasurementFile
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.kernel_sets import RULES, KernelSet
from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from kraken_sim.costs.memory_bound import MemoryBoundOp

PROFILE = load_profile("h200-sxm-x2")
GAP_S = 5e-7


def records() -> list[MemoryBoundRecord]:
    times = {"dtype": "bfloat16", "launch": "graph", "kernels": "pytorch_composed", "time_s": [1e-5] * 3}
    shapes = [
        {"function": function, "num_tokens": tokens, "hidden_size": width}
        for function, widths in (("rms_norm", (2048, 8192)), ("rope", (1280, 5120)), ("silu_mul", (3584, 14336)))
        for width in widths
        for tokens in (1, 16, 256, 1024, 4096)
    ]
    counts: dict[str, Any] = {"calls": 40, "repeats": 7}
    return [MemoryBoundRecord.model_validate(shape | times | counts) for shape in shapes]


def samples() -> list[MemoryBoundSample]:
    return composed_samples(MeasurementFile("measured.jsonl", header(), list(records())))


def test_a_record_of_operators_is_a_sample_of_all_their_kernels() -> None:
    kinds = {(s.op.function, len(s.ops)): [kind_of(op) for op in s.ops] for s in samples() if s.op.num_elements > 8192}  # type: ignore[union-attr]
    assert {length for _, length in kinds} == {2, 8, 10}
    assert kinds["convert", 8].count(REDUCTION) == 1
    assert kinds["neg", 10].count(ELEMENTWISE) == 2
    assert kinds["silu", 2] == [STRIDED, STRIDED]


def test_halves_of_one_token_are_no_slices() -> None:
    rules = RULES[KernelSet.PYTORCH_COMPOSED]
    for tokens, kind in ((1, ELEMENTWISE), (2, STRIDED)):
        found = activation_kernels(tokens, 4096, DType.BFLOAT16, rules, gated=True)
        ops: list[Any] = [kernel.op for kernel in found]
        assert {kind_of(op) for op in ops} == {kind}


def test_the_period_of_kernels_timed_together_is_the_sum_of_theirs() -> None:
    together = samples()

    def periods(of: list[MemoryBoundSample]) -> list[float]:
        return [float(s) for s in memory_bound_periods(of, PROFILE.device, PROFILE.memory_bound, GAP_S)]

    def lone(op: MemoryBoundOp) -> MemoryBoundSample:
        return MemoryBoundSample(op, 1e-5, inputs_warm=True)

    assert periods(together) == pytest.approx([sum(periods([lone(op) for op in s.ops])) for s in together])


def test_a_fit_to_sums_finds_the_kinds_asked_for_and_leaves_the_others() -> None:
    truth, device = PROFILE.memory_bound, PROFILE.device
    times = memory_bound_periods(samples(), device, truth, GAP_S)
    made = [
        MemoryBoundSample(s.op, float(time), inputs_warm=True, others=s.others)
        for s, time in zip(samples(), times, strict=True)
    ]
    fit = fit_memory_bound(made, device, truth, graph_node_gap_s=GAP_S, common=False, only=COMPOSED)
    assert fit.residual is not None
    assert fit.residual < 0.02
    changed = {kind for kind, row in fit.constants.kernels.items() if row != truth.kernels[kind]}
    assert changed <= set(COMPOSED)
