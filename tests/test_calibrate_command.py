"""`kraken-sim calibrate`: the profile that it writes, dry runs on CPUs, and files that it refuses or warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calibrate_support import BASE, file_of, gemm_records, records
from measurement_support import launch_record, pass_record, write

from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.measurements.launch import LAYER_CALLS
from kraken_sim.measurements.records.kernels import AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.profiles.load import check_profile, load_profile, profile_path
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch


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


CPU: dict[str, Any] = {"device_type": "cpu", "device_name": "Some CPU", "conditions": {"gloo": None}}


def cpu_records() -> list[Any]:
    """What a laptop's quick suite holds, in kind: calls one by one in float32."""
    changes: dict[str, Any] = {"launch": Launch.EAGER, "dtype": DType.FLOAT32}
    kernels = [r for r in records() if isinstance(r, GemmRecord | MemoryBoundRecord | AttentionRecord)]
    return [*(r.model_copy(update=changes) for r in kernels), launch_record("host_layer", "standard", 900.0)]


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
