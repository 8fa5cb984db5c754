from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from measurement_support import header, launch_record, microbenchmarks, pass_record, write

from kraken_sim import predict_op
from kraken_sim.calibration.fit_profile import CalibrationResult, calibrate
from kraken_sim.calibration.profile_file import calibrated_yaml
from kraken_sim.calibration.samples import all_reduce_samples, attention_samples, gemm_samples
from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.cli import main
from kraken_sim.cli.output import print_report
from kraken_sim.errors import InputError
from kraken_sim.measurements.launch import LAYER_CALLS, launch_costs
from kraken_sim.measurements.records.base import Quartiles
from kraken_sim.measurements.records.kernels import AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import check_profile, load_profile, profile_path
from kraken_sim.profiles.profile import HardwareProfile, ProvenanceKind
from kraken_sim.profiles.write import section, with_sections
from kraken_sim.program.ops import DType
from kraken_sim.report.calibration import calibration_report
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import scenario_of_pass

BASE = "h200-sxm-x2"
MEASUREMENTS = Path(__file__).parents[1] / "validation" / "measurements"
OPS = {
    "gemm prefill": {"op": "gemm", "m": 512, "n": 5376, "k": 3072, "weights": "cold"},
    "gemm large": {"op": "gemm", "m": 3072, "n": 4096, "k": 6144, "weights": "cold"},
    "gemm decode": {"op": "gemm", "m": 4, "n": 4096, "k": 4096, "weights": "cold"},
    "attention": {"op": "attention", "q_len": 1536, "kv_len": 1536, "num_heads": 20, "serving": False},
    "attention decode": {"op": "attention", "batch": 8, "q_len": 1, "kv_len": 4096, "num_heads": 16, "serving": False},
    "norm": {"op": "norm", "num_tokens": 1024, "hidden_size": 5120},
    "add": {"op": "elementwise", "num_elements": 4_000_000},
    "copy": {"op": "copy", "bytes": 6_000_000},
    "all_reduce small": {"op": "all_reduce", "bytes": 24_576, "num_devices": 2},
    "all_reduce": {"op": "all_reduce", "bytes": 3_145_728, "num_devices": 2},
    "all_reduce shm": {"op": "all_reduce", "bytes": 6_291_456, "num_devices": 2, "transport": "shm"},
}


def another_machine() -> HardwareProfile:
    """The base with other constants: what the measurements in these tests come from.

    Corrections are left out: they have a value for every few shapes, more than a quick fit has records.
    """
    base = load_profile(BASE)
    kernels = {name: dict(row) | {"cta_s": 1.3 * row["cta_s"]} for name, row in base.memory_bound.kernels.items()}
    prefill = {dim: dict(row) | {"efficiency": 0.85 * row["efficiency"]} for dim, row in base.attention.prefill.items()}
    rates = {
        link: {protocol: 0.8 * rate for protocol, rate in row.items()}
        for link, row in base.collectives.link_efficiency.items()
    }
    return replace(
        base,
        launch=replace(base.launch, graph_node_gap_s=0.6e-6),
        gemm=replace(base.gemm, mma_efficiency=0.9 * base.gemm.mma_efficiency, hbm_efficiency=0.75, correction={}),
        attention=replace(base.attention, prefill=prefill, decode_correction={}),
        memory_bound=replace(base.memory_bound, kernels=kernels, hbm_efficiency=0.8),
        collectives=replace(base.collectives, link_efficiency=rates),
    )


@cache
def records() -> tuple[object, ...]:
    return tuple(microbenchmarks(another_machine()))


def file_of(*extra: object, only: tuple[object, ...] | None = None, **changes: object) -> MeasurementFile:
    found = records() if only is None else only
    return MeasurementFile("measured.jsonl", header(**changes), (*found, *extra))  # type: ignore[arg-type]


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


def test_blocks_without_enough_records_stay_as_they_were() -> None:
    base = load_profile(BASE)
    few = calibrate(file_of(only=(launch_record("graph_edge", "", 0.3), *gemm_records()[:9])), base)
    assert few.profile.gemm == base.gemm
    assert "9 GEMMs" in few.kept["gemm"]
    assert few.kept["attention"] == "no attention kernels"
    assert few.profile.launch.graph_edge_s == pytest.approx(0.3e-6)
    assert few.profile.launch.eager_kernel_s == base.launch.eager_kernel_s
    kept, before = (p.provenance["launch.eager_kernel_s"] for p in (few.profile, base))
    assert kept.source == f"kept from {BASE} (no host_layer records): {before.source}"
    assert kept.kind is before.kind
    assert few.profile.provenance["gemm.hbm_efficiency"].source.startswith(
        f"kept from {BASE} (9 GEMMs, a fit needs 40)"
    )


@cache
def shipped(name: str) -> MeasurementFile:
    return read_measurements(MEASUREMENTS / f"{name}.jsonl")


@cache
def from_shipped(name: str) -> CalibrationResult:
    return calibrate(shipped(name), load_profile(BASE), "again")


def test_a_refit_that_is_no_better_than_the_base_is_not_taken() -> None:
    """The quick suite has a tenth of the records that the base was fitted to."""
    found, base = from_shipped("h200-sxm-x2-quick"), load_profile(BASE)
    assert {"gemm", "collectives", "attention"} <= set(found.judged)
    for name, judged in found.judged.items():
        assert judged.before is not None
        assert judged.after is not None
        assert judged.adopted == (judged.after < judged.before) == (name in found.blocks)
        if not judged.adopted:
            assert getattr(found.profile, name) == getattr(base, name)
            assert "no better on held-out shapes" in found.kept[name]
            assert any(found.kept[name] in where.source for where in found.profile.provenance.values())
    assert any(not judged.adopted for judged in found.judged.values())


def errors_on_passes(profile: HardwareProfile, file: str, launch: Launch) -> float:
    """Mean |error| over every seventh measured pass."""
    passes = [record for record in shipped(file).select(PassRecord) if record.launch is launch][::7]
    some = MeasurementFile(file, shipped(file).header, tuple(passes))
    predictor = Predictor(profile)
    conditions = some.header.conditions
    errors = [
        predictor.predict(scenario_of_pass(record, conditions[record.condition] or {}, BASE)).latency_s
        / record.time_s.median
        - 1.0
        for record in passes
    ]
    return fmean(map(abs, errors))


@pytest.mark.parametrize("name", ["h200-sxm-x2-microbench", "h200-sxm-x2-quick"])
@pytest.mark.parametrize(("launch", "noise"), [(Launch.GRAPH, 0.015), (Launch.EAGER, 0.015)])
def test_calibrating_with_a_shipped_file_makes_no_pass_worse(name: str, launch: Launch, noise: float) -> None:
    """Beyond what a pass repeats within, 1.4 % as a graph, 3 % eager, and what these files are off by.

    They hold the products of a suite that is long enough for the clock to fall, up to 20 % at 512 rows; the profile's
    are of short bursts at the boost clock.
    """
    for passes in ("h200-sxm-x2-passes", "h200-sxm-x1-passes"):
        before, after = (
            errors_on_passes(profile, passes, launch) for profile in (load_profile(BASE), from_shipped(name).profile)
        )
        assert after < before + noise


def test_the_table_says_what_became_of_every_constant(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(calibration_report(from_shipped("h200-sxm-x2-quick")))
    said = " ".join(capsys.readouterr().out.split())
    assert "eager_kernel_s │ 21.9 us │ │ │ kept: no host_layer records" in said
    assert "eager_shares.generated │ 5.499 │ │ │ kept: no host_layer/llama records" in said
    assert "eager_collective_s │ 28.64 us -> 34.82 us │ 2 │ │ measured" in said
    judged = from_shipped("h200-sxm-x2-quick").judged["gemm"]
    assert judged.before is not None
    assert f"gemm │ all │ │ 144 │ {100 * judged.before:.2f} % -> " in said


def gemm_records() -> list[GemmRecord]:
    return [record for record in records() if isinstance(record, GemmRecord)]


def test_only_graph_launches_become_samples() -> None:
    eager = [record.model_copy(update={"launch": Launch.EAGER}) for record in gemm_records()]
    both = file_of(*eager)
    device = load_profile(BASE).device
    samples = gemm_samples(both, device, 5e-7)
    assert samples == gemm_samples(file_of(), device, 5e-7)
    assert len(samples) == len(eager)
    assert all(not sample.weights_warm for sample in samples)
    assert all(not sample.composite for sample in attention_samples(both))
    assert len(memory_bound_samples(both)) == 6 * 6 * 3


def profiled(record: GemmRecord, busy_s: float) -> KernelsRecord:
    kernel = {"name": "gemm", "grid": (132, 1, 1), "block": (384, 1, 1), "busy_s": busy_s}
    return KernelsRecord.model_validate({"of": record.key, "kernels": [kernel]})


@pytest.mark.parametrize(
    ("m", "busy_us", "expected_us"),
    [
        (2048, 80.0, 80.5),  # the chain ran at a lower clock
        (2048, 120.0, 100.0),  # the chain is as good as any
        (16, 80.0, 100.0),  # its weights were warm under the profiler
    ],
)
def test_gemms_count_at_the_boost_clock(m: int, busy_us: float, expected_us: float) -> None:
    record = gemm_records()[0].model_copy(update={"m": m, "n": 8192, "k": 4096, "time_s": Quartiles(9e-5, 1e-4, 2e-4)})
    found = file_of(only=(record, profiled(record, busy_us * 1e-6)))
    (sample,) = gemm_samples(found, load_profile(BASE).device, 5e-7)
    assert sample.period_s == pytest.approx(expected_us * 1e-6)


def test_a_condition_becomes_channels_and_transport() -> None:
    samples = all_reduce_samples(file_of(), 5e-7)
    found = {(sample.channels, sample.transport) for sample in samples}
    assert found == {(None, "p2p"), (4, "p2p"), (None, "shm")}
    unknown = file_of(conditions={"nccl-default": None, "channels-4": None, "p2p-off": None})
    assert all_reduce_samples(unknown, 5e-7) == []


def test_launch_costs_are_what_the_engine_charges() -> None:
    base = load_profile(BASE).launch
    fit = launch_costs(file_of(), base, "a machine")
    costs = fit.constants
    assert costs.eager_kernel_s == pytest.approx(6.0e-6)
    assert costs.eager_event_s == pytest.approx(1.5e-6)
    # two records and two waits around the call make up the whole again
    assert costs.eager_side_collective_s + 4 * costs.eager_event_s == pytest.approx(60e-6)
    assert costs.eager_collective_s == pytest.approx(30e-6)
    assert costs.graph_launch_s == pytest.approx(6.0e-6)
    assert costs.eager_kernel_gap_s == pytest.approx(1.2e-6)
    assert {path.partition(".")[0] for path in fit.sources} <= set(costs.__dataclass_fields__)
    told = ("gemm", "attention", "norm", "copy", "pointwise")
    assert {kind: costs.eager_shares[kind] for kind in told} == pytest.approx(dict.fromkeys(told, 1.0))
    assert costs.eager_shares["generated"] == base.eager_shares["generated"]
    assert all("a machine" in where.source for where in fit.sources.values())


def host_costs(*records: object) -> float:
    file = file_of(only=tuple(records))
    return launch_costs(file, load_profile(BASE).launch, "a machine").constants.eager_kernel_s


def test_a_kernels_host_time_is_that_of_a_whole_layer_over_its_kernels() -> None:
    layers = [launch_record("host_layer", "standard", us, process=n) for n, us in enumerate((220.0, 330.0, 231.0), 1)]
    assert host_costs(*layers) == pytest.approx(231e-6 / sum(LAYER_CALLS.values()))


def test_without_a_layer_the_host_stays_the_bases() -> None:
    """Loops of one call flatter a host by 1.1 to 2.6 times, and made eager passes of the README's profile worse."""
    calls = [launch_record("host_kernel", kernel, 2.0) for kernel in LAYER_CALLS]
    assert host_costs(*calls) == load_profile(BASE).launch.eager_kernel_s


def test_a_negative_slope_is_no_cost() -> None:
    fit = launch_costs(file_of(only=(launch_record("graph_edge", "", -0.1),)), load_profile(BASE).launch, "a machine")
    assert fit.constants.graph_edge_s == 0.0


def test_sections_of_a_profile_are_replaced_and_the_rest_stays() -> None:
    text = "# note\nname: a\ngemm:\n  x: 1 # kept\n\nattention:\n  y: 2\n"
    changed = with_sections(
        text, {"name": "name: b\n", "attention": "attention:\n  y: 3\n", "extra": "extra:\n  z: 1\n"}
    )
    assert changed == "# note\nname: b\n\ngemm:\n  x: 1 # kept\n\nattention:\n  y: 3\n\nextra:\n  z: 1\n"
    assert section(changed, "gemm") == "gemm:\n  x: 1 # kept\n\n"
    assert "gemm" not in with_sections(text, {"gemm": None})


def test_the_command_writes_a_profile_and_prints_the_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = write(tmp_path / "measured.jsonl", records())
    out = tmp_path / "mine.yaml"
    shipped = profile_path(BASE).read_bytes()
    assert main(["calibrate", str(measured), "--base", BASE, "--out", str(out)]) == 0
    assert check_profile(out) == []
    assert load_profile(out).name == "mine"
    printed = capsys.readouterr().out
    assert "m 129 to 1024" in printed
    assert "host memory" in printed
    assert profile_path(BASE).read_bytes() == shipped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["measured.jsonl", "mine.yaml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_name": "NVIDIA A100-SXM4-80GB"}, "describes NVIDIA H200"),
    ],
)
def test_another_machines_file_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(file_of(**changes), load_profile(BASE))


def cpu_records() -> list[Any]:
    """What a laptop's quick suite holds, in kind: calls one by one in float32."""
    changes: dict[str, Any] = {"launch": Launch.EAGER, "dtype": DType.FLOAT32}
    kernels = [r for r in records() if isinstance(r, GemmRecord | MemoryBoundRecord | AttentionRecord)]
    return [*(r.model_copy(update=changes) for r in kernels), launch_record("host_layer", "standard", 900.0)]


CPU: dict[str, Any] = {"device_type": "cpu", "device_name": "Some CPU", "conditions": {"gloo": None}}


def test_a_file_of_cpus_is_a_dry_run_that_writes_nothing_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = str(write(tmp_path / "laptop.jsonl", cpu_records(), **CPU))
    out = tmp_path / "laptop.yaml"
    assert main(["calibrate", measured, "--base", BASE, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("dry run: measured on CPUs (2 x Some CPU)")
    assert "not written" in said.err
    assert not out.exists()
    assert main(["calibrate", measured, "--base", BASE, "--out", str(out), "--write-dry-run"]) == 0
    assert check_profile(out) == []
    found = load_profile(out)
    assert found.description.startswith("Dry run on CPUs")
    # Its fits ran: what stands for the device's kernels was read.
    assert calibrate(read_measurements(Path(measured)), load_profile(BASE)).judged["gemm"].records == len(
        gemm_records()
    )
    assert found.launch.eager_kernel_s == pytest.approx(900e-6 / sum(LAYER_CALLS.values()), rel=1e-3)


def test_passes_on_cpus_are_validated_as_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = [
        pass_record(kind, 0.2, launch="eager", dtype="float32", condition="gloo") for kind in ("standard", "kraken")
    ]
    measured, data, page = write(tmp_path / "passes.jsonl", passes, **CPU), tmp_path / "v.json", tmp_path / "v.html"
    assert main(["validate", str(measured), "--json", str(data), "--html", str(page)]) == 0
    assert capsys.readouterr().out.startswith("dry run: measured on CPUs")
    answer = json.loads(data.read_text(encoding="utf-8"))
    assert answer["dry_run"] is True
    assert len(answer["passes"]) == 2
    assert "dry run: measured on CPUs" in page.read_text(encoding="utf-8")


def test_a_machine_that_differs_a_little_is_warned_about() -> None:
    only = (launch_record("graph_edge", "", 0.3),)
    assert calibrate(file_of(only=only, num_sms=114), load_profile(BASE)).warnings == (
        "the devices have 114 SMs, the profile 132",
    )


def test_wrong_files_and_targets_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = write(tmp_path / "measured.jsonl", [launch_record("graph_edge", "", 0.3)])
    out = str(tmp_path / "mine.yaml")

    def errors(*arguments: str) -> str:
        assert main(["calibrate", *arguments]) == 2
        return capsys.readouterr().err

    assert "cannot read" in errors(str(tmp_path / "none.jsonl"), "--base", BASE, "--out", out)
    assert "did you mean 'h200-sxm-x2'" in errors(str(measured), "--base", "h200-smx-x2", "--out", out)
    assert "must be a .yaml file" in errors(str(measured), "--base", BASE, "--out", str(tmp_path / "mine.json"))
    text = measured.read_text(encoding="utf-8")
    measured.write_text(text.replace('"schema_version":1', '"schema_version":9'), encoding="utf-8")
    assert "schema 1 only" in errors(str(measured), "--base", BASE, "--out", out)
    assert not Path(out).exists()


def test_a_half_written_last_line_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = write(tmp_path / "measured.jsonl", [launch_record("graph_edge", "", 0.3)])
    with measured.open("a", encoding="utf-8") as file:
        file.write('{"kind": "gemm", "m": 5')
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", str(measured), "--base", BASE, "--out", str(out)]) == 0
    assert "half written" in capsys.readouterr().err
    assert load_profile(out).launch.graph_edge_s == pytest.approx(0.3e-6)


def test_a_failed_write_leaves_the_old_profile_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = write(tmp_path / "measured.jsonl", [launch_record("graph_edge", "", 0.3)])
    folder = tmp_path / "taken.yaml"
    folder.mkdir()
    assert main(["calibrate", str(measured), "--base", BASE, "--out", str(folder)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["measured.jsonl", "taken.yaml"]
