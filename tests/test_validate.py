from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from measurement_support import header, launch_record, pass_record, write

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.measurements.machine import matching_profile
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.profiles.load import load_profile
from kraken_sim.report.validation_html import validation_page
from kraken_sim.validate.passes import validate_passes

if TYPE_CHECKING:
    from pathlib import Path

HARDWARE = "h200-sxm-x2"


def predicted_s(architecture: str, **changes: Any) -> float:
    overlap = changes.get("overlap", architecture == "kraken")
    scenario = {
        "hardware": HARDWARE,
        "model": {"preset": "1.3B"},
        "architecture": {"kind": architecture},
        "num_devices": 2,
        "context_length": changes.get("context_length", 128),
        "runtime": {"launch": changes.get("launch", "graph"), "overlap": overlap},
    }
    return simulate(scenario).latency_s


def slower(architecture: str, factor: float, **changes: Any) -> Any:
    """A pass that took `factor` times what is predicted."""
    return pass_record(architecture, factor * predicted_s(architecture, **changes), **changes)


def file_of(*records: Any, **changes: Any) -> MeasurementFile:
    return MeasurementFile("measured.jsonl", header(**changes), records)


def three_passes() -> list[Any]:
    return [slower("standard", 1.25), slower("parallel", 1.0), slower("kraken", 0.8)]


def test_errors_are_relative_to_what_was_measured() -> None:
    result = validate_passes(file_of(*three_passes()))
    assert result.hardware == HARDWARE
    found = {c.architecture: c.error for c in result.comparisons}
    assert found["standard"] == pytest.approx(-0.2, rel=1e-9)
    assert found["parallel"] == pytest.approx(0.0, abs=1e-9)
    assert found["kraken"] == pytest.approx(0.25, rel=1e-9)
    overall = result.summary(lambda _: "all")["all"]
    assert overall.mean == pytest.approx(0.15)
    assert overall.worst == pytest.approx(0.25)
    assert overall.bias == pytest.approx(0.05 / 3)


def test_a_pass_is_held_against_the_load_it_was_measured_under() -> None:
    launch = load_profile(HARDWARE).launch
    question = {"hardware": HARDWARE, "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
    alone = {load: simulate(question | {"runtime": {"load": load}}).latency_s for load in ("sustained", "rested")}
    records = [slower("standard", 1.0, load=load) for load in (None, "sustained", "rested")]
    unknown, sustained, rested = validate_passes(file_of(*records)).comparisons
    # Passes back to back hide the launch of their graphs; those of no known load ran one after the other.
    assert unknown.predicted_s == pytest.approx(alone["sustained"])
    assert sustained.predicted_s == pytest.approx(alone["sustained"] - launch.graph_launch_s)
    assert rested.predicted_s == pytest.approx(alone["rested"])


def test_the_speed_up_compares_kraken_with_standard_on_the_same_question() -> None:
    other = slower("kraken", 1.0, context_length=256)
    result = validate_passes(file_of(*three_passes(), other))
    (speedup,) = result.speedups()
    real = predicted_s("standard") / predicted_s("kraken")
    assert speedup.predicted_percent == pytest.approx(100 * (real - 1))
    assert speedup.measured_percent == pytest.approx(100 * (real * 1.25 / 0.8 - 1))
    assert speedup.error_points == pytest.approx(speedup.predicted_percent - speedup.measured_percent)


def test_blocking_kraken_and_eager_passes_are_classes_of_their_own() -> None:
    blocking = slower("kraken", 1.0, overlap=False)
    eager = slower("standard", 1.0, launch="eager")
    result = validate_passes(file_of(blocking, eager))
    keys = set(result.summary(lambda c: (c.record.launch.value, c.architecture)))
    assert keys == {("graph", "kraken (blocking)"), ("eager", "standard")}
    assert all(abs(c.error) < 1e-9 for c in result.comparisons)


def test_a_condition_that_no_scenario_describes_is_skipped_and_named() -> None:
    odd = pass_record("standard", 1e-2, condition="gloo")
    result = validate_passes(file_of(slower("standard", 1.0), odd))
    assert len(result.comparisons) == 1
    assert len(result.skipped) == 1
    assert "gloo" in result.skipped[0]
    with pytest.raises(InputError, match="no pass could be predicted"):
        validate_passes(file_of(odd))


def test_the_smallest_machine_of_the_measured_devices_is_found() -> None:
    assert matching_profile(file_of()) == HARDWARE
    assert matching_profile(file_of(num_devices=4)) == "h200-sxm-x8"
    a100 = {"device_name": "NVIDIA A100-SXM4-40GB", "num_sms": 108, "num_devices": 8}
    assert matching_profile(file_of(memory_bytes=42_400_000_000, **a100)) == "a100-sxm4-40gb-x8"
    with pytest.raises(InputError, match="no shipped profile"):
        matching_profile(file_of(device_name="NVIDIA T4"))


@pytest.mark.parametrize(
    ("device_name", "num_devices", "memory_bytes", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 1, 85_000_000_000, "h100-sxm-x8"),
        ("NVIDIA H100 80GB HBM3", 16, 85_000_000_000, "h100-sxm-2x8"),
        ("NVIDIA H100 PCIe", 2, 85_000_000_000, "h100-pcie-x4"),
        ("NVIDIA A100 80GB PCIe", 4, 85_000_000_000, "a100-pcie-80gb-x4"),
        ("NVIDIA A100-SXM4-80GB", 2, 85_000_000_000, "a100-sxm4-80gb-x8"),
        ("NVIDIA GeForce RTX 4090", 2, 25_300_000_000, "rtx4090-x8"),
        ("NVIDIA GB200", 4, 198_000_000_000, "gb200-nvl72"),
    ],
)
def test_measured_machine_is_found_by_its_card_and_calibrated_ones_before_datasheets(
    device_name: str, num_devices: int, memory_bytes: int, expected: str
) -> None:
    measured = file_of(device_name=device_name, num_devices=num_devices, memory_bytes=memory_bytes)
    assert matching_profile(measured) == expected


def test_files_that_cannot_be_compared_say_why() -> None:
    with pytest.raises(InputError, match="no whole passes"):
        validate_passes(file_of(launch_record("graph_edge", "", 0.3)))
    with pytest.raises(InputError, match="describes NVIDIA A100"):
        validate_passes(file_of(*three_passes()), "a100-sxm4-80gb-x8")


def test_the_command_prints_and_writes_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = write(tmp_path / "measured.jsonl", three_passes())
    page, data = tmp_path / "out" / "report.html", tmp_path / "report.json"
    assert main(["validate", str(measured), "--html", str(page), "--json", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "kraken" in printed
    assert "25.0 %" in printed
    found = json.loads(data.read_text(encoding="utf-8"))
    assert [item["architecture"] for item in found["passes"]] == ["standard", "parallel", "kraken"]
    assert found["passes"][2]["error"] == pytest.approx(0.25, abs=1e-4)
    assert len(found["speedups"]) == 1
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count('<figure class="plot">') == 2


def test_json_on_standard_output_is_nothing_but_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = write(tmp_path / "measured.jsonl", three_passes())
    assert main(["validate", str(measured), "--hardware", HARDWARE, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["hardware"] == HARDWARE


def test_a_report_without_speed_ups_is_still_a_report() -> None:
    assert validation_page(validate_passes(file_of(slower("standard", 1.1)))).sections


def test_of_a_long_file_a_draw_is_predicted_which_the_answer_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kraken_sim.measurements.schema.MOST_HELD", 3)
    records = [pass_record("standard", 0.01, context_length=128 + index) for index in range(8)]
    said: list[tuple[int, int]] = []
    measured = read_measurements(write(tmp_path / "long.jsonl", records))
    result = validate_passes(measured, progress=lambda done, total: said.append((done, total)))
    lengths = [comparison.record.context_length for comparison in result.comparisons]
    assert len(set(lengths)) == 3
    assert lengths == sorted(lengths)
    assert "of 8 passes 3 are predicted, drawn from all of them" in result.warnings
    assert said == [(1, 3), (2, 3), (3, 3)]
