"""Refits of what ships: they write fitted blocks and nothing else, and read each table by its publisher's rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kraken_sim.calibration.attention import attention_periods
from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection
from kraken_sim.profiles.load import load_profile, profile_path
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, section
from kraken_sim.program.formats import DType
from kraken_sim.program.ops import Attention
from validation import public_tables, refit
from validation.public_tables import (
    CARDS,
    HOPPER,
    KIB,
    MIB,
    collective_samples,
    custom_samples,
    flash_samples,
    nccl_samples,
)
from validation.refit_carried import carried, contention_of_another_card
from validation.refit_shipped import Shipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIR, H100, A100 = "h200-sxm-x2", "h100-sxm-x8", "a100-sxm4-80gb-x8"
HERE = Provenance(ProvenanceKind.FITTED, "fit to something", 0.03)
H100_CARD = next(card for card in CARDS if card.profile == H100)


def shipped(*names: str) -> Shipped:
    return Shipped({name: profile_path(name).read_text(encoding="utf-8") for name in names})


def test_a_block_that_is_put_changes_nothing_else_of_the_file() -> None:
    work, before = shipped(PAIR), profile_path(PAIR).read_text(encoding="utf-8")
    constants = replace(work.profiles[PAIR].contention, compute_slowdown=1.23456)
    work.put(PAIR, "contention", BlockText(constants, HERE))
    after = work.texts[PAIR]
    contention = section(after, "contention") or ""
    assert after.replace(contention, "") == before.replace(section(before, "contention") or "", "")
    assert "compute_slowdown: 1.235" in contention
    assert work.profiles[PAIR].provenance["contention.compute_slowdown"] == HERE


def test_what_a_fit_leaves_as_it_was_keeps_its_own_source() -> None:
    work = shipped(PAIR)
    before = work.profiles[PAIR]
    read_off = before.provenance["contention.collective_dispatch_s"]
    assert read_off.kind is not ProvenanceKind.FITTED
    work.put(PAIR, "contention", BlockText(before.contention, HERE))
    assert work.profiles[PAIR].provenance["contention.collective_dispatch_s"] == read_off
    work.put(PAIR, "contention", BlockText(replace(before.contention, collective_dispatch_s=7e-6), HERE))
    assert work.profiles[PAIR].provenance["contention.collective_dispatch_s"] == HERE


def test_a_size_that_is_a_power_of_two_stays_one_where_four_digits_would_change_it() -> None:
    work = shipped(H100)
    constants = replace(work.profiles[H100].collectives, custom_max_bytes=8.0 * MIB)
    work.put(H100, "collectives", BlockText(constants, HERE))
    assert work.profiles[H100].collectives.custom_max_bytes == 8 * MIB


def test_another_card_s_block_is_the_same_numbers_with_twice_the_error() -> None:
    work = shipped(PAIR, H100)
    work.put(PAIR, "attention", BlockText(work.profiles[PAIR].attention, replace(HERE, residual=0.08)))
    work.put(PAIR, "memory_bound", BlockText(work.profiles[PAIR].memory_bound, replace(HERE, residual=0.02)))
    carried(work, H100, PAIR, ("attention", "memory_bound"), "two others", factor=2.0)
    pair, h100 = work.profiles[PAIR], work.profiles[H100]
    assert (h100.attention, h100.memory_bound) == (pair.attention, pair.memory_bound)
    attention = h100.provenance["attention.launch_s"]
    assert attention.residual == pytest.approx(0.16)
    assert attention.source == "carried over from two others: fit to something"
    # never surer than a tenth of what was measured on another card
    assert h100.provenance["memory_bound.l2_share"].residual == pytest.approx(0.1)


def test_cards_without_pairs_have_the_contention_of_two_h200_and_do_not_call_it_fitted() -> None:
    work = shipped(PAIR, A100)
    contention_of_another_card(work, A100, PAIR)
    pair, a100 = (work.profiles[name].contention for name in (PAIR, A100))
    assert a100 == pair
    assert work.profiles[A100].provenance["contention.compute_slowdown"].kind is ProvenanceKind.ASSUMED


@pytest.mark.parametrize(("name", "rule"), [(H100, public_tables.vllm_hopper), (A100, public_tables.vllm)])
def test_rows_of_vllm_are_fitted_to_the_kernels_that_its_rule_picks(name: str, rule: Callable[[int, int], str]) -> None:
    profile = load_profile(name)
    policy = CollectivePolicy(library=Library.CUSTOM, selection=Selection.VLLM)
    for num_devices in (2, 4, 8):
        link = profile.topology.interconnect(num_devices)
        for power in range(10, 29):
            kernel = all_reduce_cost(2**power, link, profile.device, profile.collectives, policy).kernel
            assert rule(num_devices, 2**power) == kernel


def test_every_kernel_that_rows_are_fitted_to_is_one_of_the_profile() -> None:
    for card in CARDS:
        known = load_profile(card.profile).collectives.custom_base_s
        kernels = {rule(n, KIB << step) for rule in card.custom.values() for n in (2, 4, 8) for step in range(19)}
        assert kernels - {""} <= set(known)
    two_shot = HOPPER["TRTLLM 1.2.0rc5"]
    assert [two_shot(8, size) for size in (256 * KIB, MIB, 8 * MIB)] == ["", "two_shot_tensorrt_llm", ""]


def test_rows_of_other_machines_versions_and_sizes_are_no_samples(tmp_path: Path) -> None:
    nccl = ["h100_sxm,2.29.2,2,4096,0.01", "h100_sxm,2.20.3,2,4096,0.01", "l40s,2.27.3,2,4096,0.01"]
    nccl += ["h100_sxm,2.27.3,2,512,0.01", f"h100_sxm,2.27.3,8,{512 * MIB},0.01"]
    write(tmp_path, "nccl_all_reduce.csv", "system,nccl_version,num_gpus,message_bytes,latency_ms", nccl)
    (sample,) = nccl_samples(tmp_path, H100_CARD, 1e-6)
    assert (sample.num_bytes, sample.nccl_minor_version) == (4096, 29)
    assert sample.period_s == pytest.approx(1e-5)
    custom = ["h100_sxm,vLLM 0.24.0,graph,2,4096,0.004", "h100_sxm,vLLM 0.24.0,eager,2,4096,0.02"]
    custom += ["h100_sxm,vLLM 0.19.0,graph,2,4096,0.004", f"h100_sxm,vLLM 0.24.0,graph,2,{128 * MIB},1.0"]
    write(
        tmp_path, "custom_all_reduce.csv", "system,framework_version,launch,num_gpus,message_bytes,latency_ms", custom
    )
    (own,) = custom_samples(tmp_path, H100_CARD, 1e-6)
    assert (own.kernel, own.launch) == ("one_shot_vllm", "graph")
    others = ["h100_sxm,2.29.2,all_gather,4,4096,0.01", "h100_sxm,2.27.3,all_gather,4,4096,0.02"]
    write(tmp_path, "nccl_other_collectives.csv", "system,nccl_version,op,num_gpus,message_bytes,latency_ms", others)
    (newest,) = collective_samples(tmp_path, H100_CARD)
    assert newest.time_s == pytest.approx(1e-5)


def test_flash_attention_s_rows_are_prompts_of_more_than_a_token_without_rotary_embedding(tmp_path: Path) -> None:
    rows = ["1,512,8,2,128,0.02", "4,1,8,8,128,0.01", "1,512,8,2,512,0.09"]
    head = "batch_size,isl,num_heads,num_key_value_heads,head_dim,latency_ms"
    write(tmp_path, "ctx_attn_bf16_h100sxm_vllm.csv", head, rows)
    (sample,) = flash_samples(tmp_path, H100_CARD)
    assert (sample.q_len, sample.head_dim, sample.composite, sample.rotary) == (512, 128, True, False)
    device, constants = load_profile(H100).device, load_profile(H100).attention
    rotating = attention_periods([replace(sample, rotary=True)], device, constants)
    assert attention_periods([sample], device, constants)[0] < rotating[0]
    assert not flash_samples(tmp_path, next(card for card in CARDS if card.profile == "h200-sxm-x8"))


@pytest.mark.parametrize("name", [A100, "l40s-x8", "b200-sxm-x8"])
def test_bare_prefill_is_flash_attention_s_and_faster_than_an_engine_s(name: str) -> None:
    profile = load_profile(name)
    op = Attention(4, 8192, 8192, 32, 8, 128, causal=True, dtype=DType.BFLOAT16)
    assert "FlashAttention" in profile.provenance["attention.prefill.128.efficiency"].source
    bare, engine = (
        attention_cost(op, profile.device, constants).busy_s
        for constants in (profile.attention, profile.serving_attention or profile.attention)
    )
    assert bare < 0.97 * engine


def write(folder: Path, name: str, head: str, rows: list[str]) -> None:
    (folder / name).write_text("\n".join([head, *rows]), encoding="utf-8")


def test_a_profile_that_is_not_fitted_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refit.main(["--public-data", str(tmp_path), "--only", "h100-sxm-x88"]) == 2
    assert "did you mean 'h100-sxm-x8'" in capsys.readouterr().err


def test_a_dry_run_prints_errors_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile_path("a100-sxm4-40gb-x8")
    before = path.stat().st_mtime_ns
    assert refit.main(["--public-data", str(tmp_path), "--only", path.stem, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    blocks = ["gemm", "attention", "serving_attention", "collectives", "contention", "memory_bound"]
    assert [line.split()[1] for line in printed.splitlines()] == blocks
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", refit.WITH_NVLINK)
def test_no_wire_that_nobody_measured_starts_or_steps_sooner_than_the_card_s_nvlink(name: str) -> None:
    own, pair = (load_profile(profile).collectives for profile in (name, refit.PAIR))
    for table in (own.base_s, own.step_s):
        for protocol, nvlink_s in table["nvlink"].items():
            assert table["pcie"].get(protocol, nvlink_s) >= nvlink_s
    for protocol in ("ll", "simple"):
        added_s = own.base_s["host"][protocol] - own.base_s["nvlink"][protocol]
        assert added_s == pytest.approx(pair.base_s["host"][protocol] - pair.base_s["nvlink"][protocol], rel=2e-3)
