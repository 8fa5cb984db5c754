"""What a user gets to read who describes a machine that cannot be, through the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: mine
description: a box
device:
  kind: datasheet
  source: "a datasheet"
  name: Some GPU
  generation: hopper
  num_sms: 132
  boost_clock_hz: 1.9 GHz
  peak_flops: {float16: 900 TFLOP/s, float32: 60 TFLOP/s}
  hbm_bandwidth_bytes_per_s: 3 TB/s
  hbm_capacity_bytes: 80 GB
  l2_capacity_bytes: 50 MB
  tdp_w: 700 W
topology:
  kind: datasheet
  source: "a datasheet"
  nodes:
    gpu: {kind: gpu, count: 4}
    host: {kind: host, count: 2}
  links:
    - {from: gpu*, to: host*, match: blocks, kind: pcie, gen: 5}
    - {from: host0, to: host1, kind: socket, bandwidth: 32 GB/s}
"""
PCIE = "{from: gpu*, to: host*, match: blocks, kind: pcie, gen: 5}"
SOCKET = "{from: host0, to: host1, kind: socket, bandwidth: 32 GB/s}"


def checked(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    code = main(["profiles", "check", str(path)])
    return code, capsys.readouterr().err


def test_the_good_one_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, GOOD, capsys) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            f"    - {SOCKET}\n",
            "",
            ["unconnected parts: gpu0, gpu1, host0; gpu2", "{from: host0, to: host1, kind: socket"],
        ),
        (
            SOCKET,
            SOCKET + "\n    - {from: gpu0, to: gpu1, kind: nvlink, bandwidth: 25 GB/s}"
            "\n    - {from: gpu1, to: gpu0, kind: nvlink, bandwidth: 50 GB/s}",
            ["topology.links.3: line 25: gpu1 - gpu0 (nvlink): asymmetric, 25 GB/s and 50 GB/s", "one entry"],
        ),
        (
            PCIE,
            "{from: gpu0, to: host0, kind: pcie, gen: 5}"
            "\n    - {from: gpu0, to: 'gpu[123]', kind: nvlink, bandwidth: 25 GB/s}",
            ["no ring: every way from gpu1 to gpu2 leads through another GPU", "kind: pcie"],
        ),
        ("32 GB/s", "0 GB/s", ["topology.links.1.bandwidth: line 23: must be more than zero", "1 MB/s to 1 PB/s"]),
        ("32 GB/s", "-1 GB/s", ["a bandwidth must not be negative", "topology.links.1.bandwidth"]),
        ("32 GB/s", "32 GB", ["GB is a unit of amount of data, but this is a bandwidth"]),
        (", bandwidth: 32 GB/s", "", ["topology.links.1.bandwidth: line 23: is required: one link, in one direction"]),
        ("kind: socket", "kind: sokcet", ["must be one of nvlink, pcie, socket", "did you mean 'socket'"]),
        ("{kind: host", "{kind: hots", ["must be one of gpu, nvswitch", "did you mean 'host'"]),
        ("to: host1", "to: hots1", ["no such node (got 'hots1'); did you mean 'host1'"]),
        ("kind: pcie, gen: 5", "kind: nvlink, bandwidth: 25 GB/s", ["not a host", "kind: pcie or c2c"]),
        ("count: 4", "count: 5", ["5 nodes do not fall into 2 equal blocks"]),
        ("count: 4", "count: 99999", ["must be at most 4096"]),
        ("count: 4", "count: 0", ["must be at least 1"]),
        ("gen: 5", "gen: 9", ["must be at most 7"]),
        ("gen: 5", "gen: 7", ["topology.links.0.bandwidth: line 22: is required"]),
        ("generation: hopper", "generation: hoper", ["did you mean 'hopper'"]),
        ("900 TFLOP/s", "0 TFLOP/s", ["must be more than zero"]),
        ("  tdp_w: 700 W\n", "", ["device.tdp_w: line 3: is required, here or by a base that has it", '"700 W"']),
        ("float16: 900 TFLOP/s, ", "", ["device.peak_flops", "no rate of 16 bits", "as NVIDIA H100 SXM"]),
    ],
)
def test_a_machine_that_cannot_be_is_named_with_its_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    code, printed = checked(tmp_path, GOOD.replace(old, new), capsys)
    assert code == 2
    for part in expected:
        assert part in printed


NVLINK = "{from: gpu0, to: gpu1, kind: nvlink, count: 4, bandwidth: 25 GB/s}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hopper": "ada"}, "graphics chips of ada have no NVLink; such cards are joined by PCIe (got '100 GB/s')"),
        ({"900 TFLOP/s": "300 TFLOP/s", "hopper": "blackwell"}, "graphics chips of blackwell have no NVLink"),
        ({"count: 4, b": "count: 36, b"}, "GPUs of hopper have at most 450 GB/s of NVLink in one direction"),
    ],
)
def test_links_that_the_maker_does_not_sell_are_named_with_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], expected: str
) -> None:
    text = GOOD.replace(SOCKET, f"{SOCKET}\n    - {NVLINK}")
    assert checked(tmp_path, text, capsys) == (0, "")
    for old, new in changes.items():
        text = text.replace(old, new)
    code, printed = checked(tmp_path, text, capsys)
    assert code == 2
    assert expected in printed
    assert "topology.links.2" in printed


def test_one_entry_that_makes_many_wrong_links_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, printed = checked(tmp_path, GOOD.replace("kind: pcie, gen: 5", "kind: nvlink, bandwidth: 25 GB/s"), capsys)
    assert printed.startswith("error: 1 problem in")


def test_problems_of_all_parts_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("kind: socket", "kind: sokcet").replace("gen: 5}", "gen: 5, bandwidth: 63 Gbps, latency: 2}")
    code, printed = checked(tmp_path, text.replace("num_sms: 132", "num_sms: 1.5"), capsys)
    assert code == 2
    for part in ("did you mean 'socket'", "links.0.bandwidth", "links.0.latency", "device.num_sms"):
        assert part in printed


def question(hardware: str, **change: object) -> dict[str, object]:
    return {"hardware": hardware, "model": {"preset": "1.3B"}, "context_length": 64, **change}


@pytest.mark.parametrize(
    ("hardware", "change", "expected"),
    [
        ("l40s-x8", {"runtime": {"collective": {"algorithm": "nvls"}}}, "NVLS needs NVSwitch"),
        ("v100-dgx1-x8", {"runtime": {"collective": {"algorithm": "nvls"}}}, "NVLS needs NVSwitch"),
        ("h100-sxm-x8", {"num_devices": 16}, "num_devices: h100-sxm-x8 has 8 devices"),
        ("v100-dgx1-x8", {"dtype": "bfloat16"}, "dtype: NVIDIA V100 SXM2 does not compute with it"),
        ("rtx4090-x8", {"runtime": {"collective": {"transport": "p2p"}}}, "only through host memory"),
        ("gb200-nvl72", {"num_devices": 8, "runtime": {"collective": {"transport": "shm"}}}, "joined by GPUs only"),
    ],
)
def test_what_a_machine_cannot_do_is_said_before_anything_runs(
    hardware: str, change: dict[str, object], expected: str
) -> None:
    for exact in (False, True):
        with pytest.raises(InputError) as caught:
            simulate(question(hardware, **change), exact=exact)
        assert expected in str(caught.value)
