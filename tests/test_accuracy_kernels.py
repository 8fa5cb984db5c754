"""The table of single kernels of measured steps."""

from __future__ import annotations

from statistics import fmean

import pytest
from measurement_support import header, pass_record

from kraken_sim import simulate
from kraken_sim.measurements.records.launched import KernelsRecord, ProfiledKernel
from kraken_sim.measurements.schema import MeasurementFile
from kraken_sim.traces.measured import question_of
from kraken_sim.traces.nodes import nodes_of_prediction
from validation.accuracy_kernels import kernels_section

NAMES = {
    "gemm": "nvjet_hsh",
    "attention": "flash_fwd",
    "norm": "layer_norm",
    "copy": "Memcpy DtoD",
    "add": "CUDAFunctor_add",
    "activation": "gelu",
    "embedding": "embedding",
}


def test_kernels_that_take_twice_the_predicted_time_are_off_by_half_and_gaps_are_listed_apart() -> None:
    timed = pass_record("standard", 1.0, num_devices=1, load="rested")
    empty = MeasurementFile("measured.jsonl", header(), [])
    nodes = nodes_of_prediction(simulate(question_of(timed, empty)))
    now_s, kernels = 0.0, []
    for node in nodes:
        now_s += 2.0 * node.gap_s
        fields = {"name": NAMES[node.kernel_class], "grid": (1, 1, 1), "block": (1, 1, 1), "start_s": now_s}
        kernels.append(ProfiledKernel.model_validate(fields | {"busy_s": 2.0 * node.duration_s}))
        now_s += 2.0 * node.duration_s
    profiled = KernelsRecord(of=timed.key, kernels=tuple(kernels))
    section = kernels_section([MeasurementFile("measured.jsonl", header(), [timed, profiled])])
    lines = {line.labels: line for line in section.lines}
    assert {kind for _, kind in lines} == {*NAMES, "gap before a kernel, us"}
    for (_, kind), line in lines.items():
        if kind in NAMES:
            assert line.bias == pytest.approx(-0.5)
            assert line.worst == pytest.approx(0.5)
    assert sum(line.count for (_, kind), line in lines.items() if kind in NAMES) == len(nodes)
    # In hundredths of a microsecond.
    gap = lines["prefill", "gap before a kernel, us"]
    assert gap.bias == pytest.approx(-1e4 * fmean(node.gap_s for node in nodes))
    assert gap.bias < 0.0
    assert "0 predicted kernels had no partner" in section.note
