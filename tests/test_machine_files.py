"""Thirty lines are a machine: datasheets used wherever a profile is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kraken_sim import Scenario, predict_op
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.predict.api import compare
from kraken_sim.predict.uncertainty import block_residuals
from kraken_sim.profiles.calibrated import calibrated_profiles
from kraken_sim.profiles.carried_errors import LEFT_OUT_ERRORS
from kraken_sim.profiles.datasheet import DatasheetFile
from kraken_sim.profiles.from_datasheet import complete_text
from kraken_sim.profiles.load import check_profile, load_profile
from kraken_sim.profiles.schema import BLOCKS, parse_profile

SHEET = Path(__file__).parent / "data" / "b200-datasheet.yaml"
FASTER_H100 = """
name: faster-h100
description: what if an H100 had the memory of an H200
base: h100-sxm-x8
device: {kind: datasheet, source: "a what-if", hbm_bandwidth_bytes_per_s: 4.8 TB/s}
"""
FOUR_H100 = """
name: four-h100
description: half a baseboard
base: h100-sxm-x8
topology:
  kind: datasheet
  source: "NVLink 4, PCIe 5"
  nvswitch_node:
    num_gpus: 4
    pcie: {gen: 5, bandwidth: 63 GB/s, latency: 0.5 us}
    nvlink: {count: 18, bandwidth: 25 GB/s, latency: 0.25 us}
"""


def written(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_datasheet_is_a_machine_wherever_a_profile_is(tmp_path: Path) -> None:
    path = written(tmp_path, SHEET.read_text(encoding="utf-8"), "b200-sxm-x8.yaml")
    scenario = written(
        tmp_path,
        "hardware: ./b200-sxm-x8.yaml\nmodel: {preset: 6.7B}\nnum_devices: 4\ncontext_length: 512\n",
        "question.yaml",
    )
    assert main(["run", str(scenario)]) == 0
    assert main(["compare", str(scenario)]) == 0
    assert main(["profiles", "show", str(path)]) == 0
    assert main(["profiles", "check", str(path)]) == 0
    assert predict_op(path, {"op": "all_reduce", "bytes": 2**20, "num_devices": 8}) > 0


@pytest.mark.parametrize("text", [SHEET.read_text(encoding="utf-8"), FASTER_H100, FOUR_H100])
def test_it_is_the_machine_that_profiles_new_writes(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    short, full = load_profile(path), parse_profile(parse_yaml(complete_text(path)))
    assert full.device == short.device
    assert full.topology == short.topology
    assert full.provenance.keys() == short.provenance.keys()
    assert {p: where.source for p, where in full.provenance.items()} == {
        p: where.source for p, where in short.provenance.items()
    }
    for spec in (
        {"op": "gemm", "m": 512, "n": 4096, "k": 4096},
        {"op": "norm", "num_tokens": 512, "hidden_size": 4096},
        {"op": "all_reduce", "bytes": 2**22, "num_devices": 4},
    ):
        assert predict_op(full, spec) == pytest.approx(predict_op(short, spec), rel=1e-3)


def test_what_stays_the_same_keeps_its_values_sources_and_errors(tmp_path: Path) -> None:
    base, four = load_profile("h100-sxm-x8"), load_profile(written(tmp_path, FOUR_H100))
    assert len(four.topology.gpus) == 4
    for block in BLOCKS:
        assert getattr(four, block) == getattr(base, block)
    unchanged = {path for path in base.provenance if not path.startswith("topology.")}
    assert all(four.provenance[path] == base.provenance[path] for path in unchanged)
    question = {"op": "all_reduce", "bytes": 2**22, "num_devices": 4}
    assert predict_op(four, question) == predict_op(base, question)


def test_one_changed_number_of_a_device_changes_what_depends_on_it(tmp_path: Path) -> None:
    base, faster = load_profile("h100-sxm-x8"), load_profile(written(tmp_path, FASTER_H100))
    assert faster.device == replace(base.device, hbm_bandwidth_bytes_per_s=4.8e12)
    assert faster.topology == base.topology
    assert faster.provenance["device.hbm_bandwidth_bytes_per_s"].source == "a what-if"
    assert faster.provenance["device.num_sms"] == base.provenance["device.num_sms"]
    copy = {"op": "copy", "bytes": 2**32}
    assert predict_op(base, copy) / predict_op(faster, copy) == pytest.approx(4.8 / 3.35, rel=0.02)


def test_predictions_on_it_are_less_certain_than_on_its_base(tmp_path: Path) -> None:
    question: dict[str, Any] = {"model": {"preset": "6.7B"}, "num_devices": 8, "context_length": 512}

    def width(hardware: str) -> list[float]:
        found = compare(Scenario.model_validate({"hardware": hardware, **question}))
        return [(p.interval.high_s - p.interval.low_s) / p.latency_s for p in found]

    path = written(tmp_path, SHEET.read_text(encoding="utf-8"))
    assert all(new > 1.5 * old for new, old in zip(width(str(path)), width("h200-sxm-x8"), strict=True))


def test_every_block_of_a_new_device_has_the_error_of_a_gpu_left_out(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, SHEET.read_text(encoding="utf-8")))
    for block, error in LEFT_OUT_ERRORS.items():
        numbers = {path: where for path, where in profile.provenance.items() if path.startswith(f"{block}.")}
        if getattr(profile, block) is not None:
            assert block_residuals(numbers)[block] >= error
    assert profile.gemm_nvfp4 is not None
    assert profile.attention_float8 is not None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("base: h100-sxm-x8", "base: h100-smx-x8"), "base: line 4: unknown hardware profile"),
        (("base: h100-sxm-x8", "base: ./mine.yaml"), "base: line 4: comes back to itself"),
        (("base: h100-sxm-x8\n", ""), "device: is required where no base is named"),
        (("num_gpus: 4", "num_gpus: 0"), "topology.nvswitch_node.num_gpus"),
        (("kind: datasheet", "kind: datashet"), "did you mean 'datasheet'"),
        (("topology:", "topolgy:"), "did you mean 'topology'"),
    ],
)
def test_what_is_wrong_with_it_is_named(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    path = written(tmp_path, FOUR_H100.replace(*change))
    with pytest.raises(InputError) as caught:
        load_profile(path)
    assert expected in str(caught.value)
    assert check_profile(path) == list(caught.value.problems)


def test_constants_come_from_calibrated_profiles_only() -> None:
    for name in calibrated_profiles():
        assert not any("carried over from h100" in w.source for w in load_profile(name).provenance.values())
    assert {"a100-sxm4-80gb-x8", "h100-sxm-x8", "h200-sxm-x8", "l40s-x8"} <= set(calibrated_profiles())


def test_every_command_of_the_page_on_machines_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs" / "machines.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").symlink_to(root / "scenarios")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines():
        assert main(line.split("#", maxsplit=1)[0].split()[1:]) == 0, line
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "machines.md", "exec"), {})


def test_a_datasheet_may_have_any_block_of_a_profile() -> None:
    assert set(BLOCKS) <= set(DatasheetFile.model_fields)


def test_the_schema_of_a_machine_knows_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "machine"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {"name", "description", "base", "device", "topology", *BLOCKS}
    named = schema["properties"]["device"]["anyOf"][1]
    assert named["required"] == ["kind", "source"]


SIX_LINES = """name: b300
description: Eight NVIDIA B300
base: b200-sxm-x8
device: {kind: datasheet, source: "a datasheet", name: NVIDIA B300 SXM, hbm_capacity_bytes: 288 GB, tdp_w: 1.1 kW}
"""


def test_a_datasheet_with_kernels_of_its_own_is_a_base_like_a_calibrated_profile(tmp_path: Path) -> None:
    path = written(tmp_path, SIX_LINES)
    new, below = load_profile(path), load_profile("b200-sxm-x8")
    assert (new.device.name, new.device.hbm_capacity_bytes) == ("NVIDIA B300 SXM", 288e9)
    assert new.device.peak_flops == below.device.peak_flops
    assert new.topology == below.topology
    for number in ("collectives.tree_efficiency", "gemm.launch_s", "memory_bound.hbm_efficiency"):
        assert new.provenance[number].source == "carried over from b200-sxm-x8 (NVIDIA B200 SXM)"
    errors, own = (block_residuals(machine.provenance) for machine in (new, below))
    assert errors["gemm"] == max(2 * own["gemm"], 0.1)
    assert errors["memory_bound"] == own["memory_bound"]  # what was carried over to the base is no less certain here
    full = parse_profile(parse_yaml(complete_text(path)))
    assert (full.device, full.topology, full.collectives) == (new.device, new.topology, new.collectives)
    assert full.provenance.keys() == new.provenance.keys()


def test_what_a_base_measured_on_its_own_wires_holds_for_these_wires_only(tmp_path: Path) -> None:
    slow = load_profile("l40s-x8-slow-host")
    same = load_profile(written(tmp_path, "name: mine\ndescription: x\nbase: l40s-x8-slow-host\n"))
    assert same.collectives == slow.collectives
    assert same.provenance["collectives.base_s.pcie.ll"] == slow.provenance["collectives.base_s.pcie.ll"]
    graph = "topology: {kind: datasheet, source: x, pcie_node: {num_gpus: 2, pcie: {gen: 4}}}\n"
    other = load_profile(written(tmp_path, f"name: mine\ndescription: x\nbase: l40s-x8-slow-host\n{graph}"))
    assert other.collectives == load_profile("l40s-x8").collectives
