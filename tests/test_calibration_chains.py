"""What chains of unlike kernels, and the same kernels on two machines, tell a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from measurement_support import header, write

from kraken_sim.calibration.node_wait import node_wait
from kraken_sim.calibration.residency import fit_held_share
from kraken_sim.calibration.samples import gemm_samples
from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.errors import InputError
from kraken_sim.measurements.records.kernels import MemoryBoundRecord
from kraken_sim.measurements.records.together import ChainRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Elementwise, Norm

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.measurements.schema import MeasurementFile

DEVICE = load_profile("h200-sxm-x2").device
NORM = {"op": "rms_norm", "num_tokens": 16, "hidden_size": 4096}
ADD = {"op": "add", "num_tokens": 16, "hidden_size": 4096}


def chain(operands: str, time_us: float, *compute: dict[str, Any]) -> ChainRecord:
    times = [time_us * 1e-6] * 3
    fields = {"compute": compute, "operands": operands, "dtype": "bfloat16", "launch": "graph"}
    return ChainRecord.model_validate(fields | {"calls": 10, "repeats": 5, "time_s": times})


def file_of(path: Path, *records: Any, **changes: Any) -> MeasurementFile:
    return read_measurements(write(path, list(records), **changes))


def gemm(k: int) -> dict[str, Any]:
    return {"op": "gemm", "m": 16, "n": 4096, "k": k}


def test_a_chain_of_one_kernel_is_a_sample_with_its_operands_as_they_were(tmp_path: Path) -> None:
    made = NORM | {"kernels": "compiled", "op": "add_rms_norm"}
    lone = [chain(kind, 3.0, kernel) for kernel in (NORM, ADD, made) for kind in ("kept", "fresh")]
    file = file_of(tmp_path / "a.jsonl", *lone, chain("fresh", 9.0, gemm(2048)), chain("fresh", 12.0, gemm(2048), NORM))
    ops = [sample.op for sample in memory_bound_samples(file)]
    norms = [op for op in ops if isinstance(op, Norm)]
    assert [(op.cold_parameters, op.cold_inputs, op.fused) for op in norms] == [
        (False, 0, False), (True, 0, False), (False, 0, True), (True, 1, True),
    ]  # fmt: skip
    assert [op.cold_inputs for op in ops if isinstance(op, Elementwise)] == [0, 1]
    products = gemm_samples(file, DEVICE, 1e-6)
    assert [(s.m, s.n, s.k, s.bias, s.period_s) for s in products] == [(16, 4096, 2048, False, 9e-6)]


def test_operands_are_held_up_to_the_weights_behind_which_they_save_nothing(tmp_path: Path) -> None:
    records = [chain("kept", 4.0, NORM), chain("fresh", 5.5, NORM)]
    for index, k in enumerate((512, 1024, 2048, 3072, 4096, 6144, 8192, 12288)):
        saved = 1.5 if index < 5 else 0.0
        records += [chain("fresh", 30.0, gemm(k), NORM), chain("kept", 30.0 - saved, gemm(k), NORM)]
    fit = fit_held_share([file_of(tmp_path / "a.jsonl", *records)], DEVICE)
    assert fit is not None
    assert fit.num_chains == 8
    low, high = ((2.0 * 4096 * k + 2.0 * 16 * 4096) / DEVICE.l2_capacity_bytes for k in (4096, 6144))
    assert low < fit.held_share < high
    assert fit_held_share([file_of(tmp_path / "b.jsonl", *records[:8])], DEVICE) is None


def small(width: int, time_us: float) -> MemoryBoundRecord:
    fields = {"function": "add", "num_tokens": 16, "hidden_size": width, "dtype": "float16", "launch": "graph"}
    return MemoryBoundRecord.model_validate(fields | {"calls": 10, "repeats": 5, "time_s": [time_us * 1e-6] * 3})


def test_what_a_node_waits_is_what_the_same_small_kernels_take_longer(tmp_path: Path) -> None:
    widths = (1024, 2048, 3072, 4096, 5120, 6144)
    several = file_of(tmp_path / "two.jsonl", *(small(width, 1.4 + width * 1e-5) for width in widths))
    one = file_of(tmp_path / "one.jsonl", *(small(width, 1.0 + width * 1e-5) for width in widths), num_devices=1)
    wait = node_wait(several, [one])
    assert wait.seconds == pytest.approx(0.4e-6)
    assert wait.num_kernels == len(widths)
    assert node_wait(one, [several]).seconds == 0.0
    with pytest.raises(InputError, match="shares 0 small kernels"):
        node_wait(several, [file_of(tmp_path / "other.jsonl", small(9999, 1.0))])
    assert header().num_devices == 2
