"""What a calibration fits, out of microbenchmarks alone: constants that predict the machine, each with its error."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from calibrate_support import BASE, OPS, another_machine, file_of, records
from measurement_support import pass_record

from kraken_sim import predict_op
from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.calibration.profile_file import calibrated_yaml
from kraken_sim.errors import InputError
from kraken_sim.measurements.records.kernels import AttentionRecord
from kraken_sim.profiles.load import check_profile, load_profile, profile_path
from kraken_sim.profiles.profile import ProvenanceKind

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.calibration.result import CalibrationResult


@cache
def result() -> CalibrationResult:
    return calibrate(file_of(), load_profile(BASE), "measured")


@pytest.mark.parametrize("name", OPS)
def test_a_calibrated_profile_predicts_the_measured_machine(name: str) -> None:
    truth = predict_op(another_machine(), OPS[name])
    assert predict_op(result().profile, OPS[name]) == pytest.approx(truth, rel=0.08)


def test_it_is_nearer_to_the_measured_machine_than_the_base_is() -> None:
    truth, base = another_machine(), load_profile(BASE)
    for name in ("gemm large", "attention", "all_reduce"):
        wanted = predict_op(truth, OPS[name])
        before, after = (abs(predict_op(p, OPS[name]) / wanted - 1.0) for p in (base, result().profile))
        assert after < 0.5 * before


def test_errors_of_held_out_records_are_as_large_as_the_noise() -> None:
    overall = {error.kernel: error for error in result().errors if error.name == "all"}
    assert set(overall) == {"gemm", "attention", "memory-bound", "all_reduce"}
    for error in overall.values():
        assert 0.0 < error.median <= error.worst
        assert error.mean < 0.05
        assert error.count >= 14
    names = {(error.kernel, error.name) for error in result().errors}
    assert {("gemm", "m 17 to 128"), ("attention", "prefill"), ("attention", "decode")} <= names
    assert {("all_reduce", "4 channels, from 4 MiB"), ("all_reduce", "host memory, below 64 KiB")} <= names


def test_every_fitted_number_names_its_measurement_and_its_error() -> None:
    for path, where in result().profile.provenance.items():
        block = path.split(".")[0]
        if block in ("gemm", "attention", "memory_bound", "collectives"):
            if where.source.startswith(f"kept from {BASE} ("):
                assert where.source.endswith(f"): {load_profile(BASE).provenance[path].source}")
                continue
            assert where.kind is ProvenanceKind.FITTED
            assert "2 x NVIDIA H200, torch 2.11.0, NCCL 2.28.9" in where.source
            assert where.residual is not None
            assert where.residual < 0.05
    assert result().profile.provenance["launch.graph_edge_s"].kind is ProvenanceKind.MEASURED
    assert "graph_edge" in result().profile.provenance["launch.graph_edge_s"].source
    assert "datasheet" in result().profile.provenance["device.num_sms"].kind


def test_the_written_profile_is_complete_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(calibrated_yaml(result(), profile_path(BASE).read_text(encoding="utf-8")), encoding="utf-8")
    assert check_profile(path) == []
    loaded = load_profile(path)
    assert loaded.name == "measured"
    assert loaded.device == load_profile(BASE).device
    assert loaded.contention == load_profile(BASE).contention
    assert set(loaded.provenance) == set(result().profile.provenance)
    for spec in OPS.values():
        assert predict_op(loaded, spec) == pytest.approx(predict_op(result().profile, spec), rel=2e-3)


def test_serving_engines_keep_the_attention_of_their_own_fit(tmp_path: Path) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(calibrated_yaml(result(), profile_path(BASE).read_text(encoding="utf-8")), encoding="utf-8")
    base, loaded = load_profile(BASE), load_profile(path)
    serving, bare = OPS["attention"] | {"serving": True}, OPS["attention"]
    gaps = base.launch.graph_node_gap_s - loaded.launch.graph_node_gap_s
    assert predict_op(loaded, serving) == pytest.approx(predict_op(base, serving) - gaps, rel=1e-3)
    assert predict_op(loaded, bare) > 1.05 * predict_op(base, bare)
    kernels = tuple(record for record in records() if isinstance(record, AttentionRecord))
    again = calibrate(file_of(only=kernels), loaded, "again")
    assert again.profile.serving_attention == loaded.serving_attention


def test_whole_passes_change_nothing_at_all() -> None:
    base, text = load_profile(BASE), profile_path(BASE).read_text(encoding="utf-8")
    passes = [pass_record(kind, 2e-3) for kind in ("standard", "parallel", "kraken")]
    passes += [pass_record(kind, 0.5, context_length=256) for kind in ("standard", "kraken")]
    assert calibrated_yaml(calibrate(file_of(*passes), base, "measured"), text) == calibrated_yaml(result(), text)


def test_a_file_of_passes_alone_has_nothing_to_fit() -> None:
    with pytest.raises(InputError, match="no microbenchmarks"):
        calibrate(file_of(only=(pass_record("standard", 2e-3),)), load_profile(BASE))
