from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kraken_sim import predict_op, simulate
from kraken_sim.cli import main
from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.errors import InputError
from kraken_sim.profiles.carried_errors import LEFT_OUT_ERRORS
from kraken_sim.profiles.from_datasheet import profile_from_datasheet
from kraken_sim.profiles.load import check_profile, load_profile, profile_path
from kraken_sim.profiles.nearest import nearest_profile
from kraken_sim.profiles.profile import ProvenanceKind
from kraken_sim.profiles.transfer import carry_over_attention, carry_over_collectives, carry_over_memory_bound
from kraken_sim.profiles.write import section
from kraken_sim.program.ops import Attention, DType, Norm

if TYPE_CHECKING:
    from kraken_sim.profiles.profile import HardwareProfile

SHEET = Path(__file__).parent / "data" / "b200-datasheet.yaml"
WITHOUT_BASE = SHEET.read_text(encoding="utf-8").replace("base: h200-sxm-x8\n", "")
BF16 = DType.BFLOAT16


def made(tmp_path: Path, text: str | None = None, name: str = "b200-sxm-x8") -> HardwareProfile:
    sheet, out = tmp_path / "sheet.yaml", tmp_path / f"{name}.yaml"
    sheet.write_text(SHEET.read_text(encoding="utf-8") if text is None else text, encoding="utf-8")
    out.write_text(profile_from_datasheet(sheet, name).text, encoding="utf-8")
    assert check_profile(out) == []
    return load_profile(out)


def sheet_of(profile: str) -> str:
    """The datasheet part of a shipped profile."""
    text = profile_path(profile).read_text(encoding="utf-8")
    return "".join(section(text, name) or "" for name in ("description", "device", "topology"))


def test_a_new_profile_is_complete_and_answers_questions(tmp_path: Path) -> None:
    profile = made(tmp_path)
    question = {"model": {"preset": "13B"}, "architecture": {"kind": "kraken"}, "num_devices": 8, "context_length": 512}
    new, old = (
        simulate({"hardware": name, **question}, profile=machine).ttft_s
        for name, machine in (("b200-sxm-x8", profile), ("h200-sxm-x8", load_profile("h200-sxm-x8")))
    )
    assert new is not None
    assert old is not None
    assert 0.4 * old < new < old


def test_rates_follow_the_datasheet(tmp_path: Path) -> None:
    new, old = made(tmp_path), load_profile("h200-sxm-x8")
    compute = {"op": "gemm", "m": 8192, "n": 8192, "k": 8192}
    faster = new.device.peak_flops[BF16] / old.device.peak_flops[BF16]
    assert predict_op(old, compute) / predict_op(new, compute) == pytest.approx(faster, rel=0.1)
    stream = {"op": "copy", "bytes": 2**32}
    wider = new.device.hbm_bandwidth_bytes_per_s / old.device.hbm_bandwidth_bytes_per_s
    assert predict_op(old, stream) / predict_op(new, stream) == pytest.approx(wider, rel=0.02)


def test_every_number_says_where_it_is_carried_over_from_and_is_less_certain(tmp_path: Path) -> None:
    profile = made(tmp_path)
    old = load_profile("h200-sxm-x8")
    blocks = {path.split(".")[0] for path in profile.provenance} - {"device", "topology"}
    assert {"launch", "gemm", "attention", "memory_bound", "collectives", "contention"} <= blocks
    for path, where in profile.provenance.items():
        block = path.split(".")[0]
        if block in blocks:
            links = "b200-sxm-x8" if block == "collectives" else "h200-sxm-x8"  # of its own generation
            assert where.source.startswith(f"carried over from {links}")
        if block in LEFT_OUT_ERRORS and where.residual is None:
            assert block == "collectives" or old.provenance[path].kind is ProvenanceKind.ASSUMED
        elif block in LEFT_OUT_ERRORS:
            assert where.residual is not None
            assert where.residual >= LEFT_OUT_ERRORS[block]
    carried, own = (machine.provenance["gemm.launch_s"].residual for machine in (profile, old))
    assert carried is not None
    assert own is not None
    assert carried > 2 * own


def test_the_nearest_generation_wins_before_the_nearest_rates() -> None:
    h200 = load_profile("h200-sxm-x8").device
    assert nearest_profile(replace(h200, generation="blackwell"), 8).name == "h200-sxm-x8"
    assert nearest_profile(replace(h200, hbm_bandwidth_bytes_per_s=3.3e12), 8).name == "h100-sxm-x8"
    assert nearest_profile(replace(h200, generation="ada"), 8).name == "l40s-x8"
    assert nearest_profile(h200, 2).name == "h200-sxm-x2"


def test_collectives_come_from_a_machine_with_the_same_links(tmp_path: Path) -> None:
    pcie = sheet_of("l40s-x8").replace("generation: ada", "generation: hopper")
    profile = made(tmp_path, pcie, "hopper-pcie")
    assert profile.provenance["collectives.nvls_enabled"].source.startswith("carried over from l40s-x8")
    assert not profile.provenance["gemm.launch_s"].source.startswith("carried over from l40s-x8")


def test_a_base_can_be_named(tmp_path: Path) -> None:
    text = SHEET.read_text(encoding="utf-8").replace("base: h200-sxm-x8", "base: h100-sxm-x8")
    profile = made(tmp_path, text)
    assert "h100-sxm-x8" in profile.provenance["gemm.launch_s"].source
    with pytest.raises(InputError, match="did you mean"):
        made(tmp_path, text.replace("base: h100-sxm-x8", "base: h100-smx-x8"))


def test_the_same_device_carries_over_unchanged() -> None:
    base = load_profile("h100-sxm-x8")
    attention = carry_over_attention(base.attention, base.device, base.device)
    assert attention == base.attention
    assert carry_over_memory_bound(base.memory_bound, base.device, base.device) == base.memory_bound
    assert carry_over_collectives(base.collectives, multicast=True) == base.collectives
    assert carry_over_collectives(base.collectives, multicast=False).nvls_enabled == 0


def test_a_higher_clock_shortens_what_an_sm_does_and_nothing_else() -> None:
    base = load_profile("h100-sxm-x8")
    fast = replace(base.device, boost_clock_hz=1.25 * base.device.boost_clock_hz)
    small, long = Norm(16, 8192, BF16), Norm(65536, 8192, BF16)

    def gain(op: Norm) -> float:
        moved = carry_over_memory_bound(base.memory_bound, base.device, fast)
        return memory_bound_cost(op, base.device, base.memory_bound).busy_s / memory_bound_cost(op, fast, moved).busy_s

    assert 1.05 < gain(small) < 1.25
    assert gain(long) < gain(small)


@pytest.mark.parametrize(
    ("target", "source"), [("h100-sxm-x8", "a100-sxm4-80gb-x8"), ("a100-sxm4-80gb-x8", "h100-sxm-x8")]
)
def test_attention_carried_to_another_generation_is_within_the_stated_error(target: str, source: str) -> None:
    to, start = load_profile(target), load_profile(source)
    moved = carry_over_attention(start.attention, start.device, to.device)
    ops = [Attention(1, t, t, h, h, 128, True, BF16) for t in (512, 1024, 2048, 4096) for h in (8, 16, 32)]
    errors = [
        abs(attention_cost(op, to.device, moved).busy_s / attention_cost(op, to.device, to.attention).busy_s - 1)
        for op in ops
    ]
    assert sum(errors) / len(errors) < LEFT_OUT_ERRORS["attention"]


def test_the_command_writes_a_checked_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, out = tmp_path / "sheet.yaml", tmp_path / "new" / "mine.yaml"
    sheet.write_text(WITHOUT_BASE, encoding="utf-8")
    assert main(["profiles", "new", "--from", str(sheet), "--out", str(out)]) == 0
    assert "b200-sxm-x8" in capsys.readouterr().out  # the nearest with kernels fitted to it
    assert main(["profiles", "check", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "# dense" in text  # comments of the datasheet stay


def test_everything_wrong_with_a_datasheet_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.yaml"
    text = WITHOUT_BASE.replace("generation: blackwell", "generation: blackwel")
    sheet.write_text(text.replace("8 TB/s", "8 TB").replace("tdp_w:", "tdp:"), encoding="utf-8")
    assert main(["profiles", "new", "--from", str(sheet), "--out", str(tmp_path / "x.yaml")]) == 2
    printed = capsys.readouterr().err
    for part in ("did you mean 'blackwell'", "device.hbm_bandwidth_bytes_per_s", "device.tdp_w", "device.tdp:"):
        assert part in printed
    assert not (tmp_path / "x.yaml").exists()
