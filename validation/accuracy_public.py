"""Shipped profiles against public tables of single kernels and collectives, where those are at hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import log2, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from kraken_sim import predict_op
from kraken_sim.calibration.gemm import GemmSample, predict_periods
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.schema import GENERATIONS
from kraken_sim.program.ops import DType
from validation.accuracy_table import Bar, Line, Section, line
from validation.public_data import VARIABLE, Row, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kraken_sim.costs.gemm_model import GemmConstants
    from kraken_sim.hardware.device import Device

PROFILES: Final = {
    "a100sxm80_trtllm": "a100-sxm4-80gb-x8",
    "h100sxm_trtllm": "h100-sxm-x8",
    "h200sxm_trtllm": "h200-sxm-x8",
    "l40s_pcie_trtllm": "l40s-x8",
}
"""The shipped profile of each card in the tables' names."""
SYSTEMS: Final = {
    "a100_sxm": "a100-sxm4-80gb-x8",
    "h100_sxm": "h100-sxm-x8",
    "h200_sxm": "h200-sxm-x8",
    "l40s": "l40s-x8",
}
"""The same for the systems of the AllReduce table."""
SAME_CHIP: Final = frozenset({"h100-sxm-x8", "h200-sxm-x8"})
"""One chip with two memories: one of them left out while the other stays is an easy case."""

GEMM_BAR, GEMM_ADA_BAR = Bar(mean=0.06), Bar(mean=0.15)
ATTENTION_BAR = Bar(mean=0.08)
ALL_REDUCE_BAR = Bar(mean=0.08)
LEFT_OUT_BAR = Bar(mean=0.15)
MIN_SIDE: Final = 256
MIN_BYTES, MAX_BYTES = 1 << 10, 256 << 20
_ROWS_NOTE = "All rows of the tables; the fits of the profiles saw about 70 % of them."


def thinned(rows: list[Row], every: int) -> list[Row]:
    """Each `every`-th row."""
    return rows[::every]


def public_sections(folder: Path, every: int = 1) -> list[Section]:
    """GEMM, attention, AllReduce and GEMM on a GPU left out; a note where the tables are not there.

    Args:
        folder: where the tables lie.
        every: take each so manieth row only.
    """
    if not any((folder / f"gemm_bf16_{card}.csv").exists() for card in PROFILES):
        note = f"No public tables of kernels ({VARIABLE} names their folder): these rows are left out."
        return [Section("public", "Public tables of kernels", (), note=note)]
    return [
        gemm_section(folder, every),
        attention_section(folder, every),
        all_reduce_section(folder, every),
        left_out_section(folder, every),
    ]


def gemm_samples(folder: Path, card: str, every: int = 1) -> list[GemmSample]:
    """The products of one card with n and k of at least 256; replayed, so the weights are warm."""
    rows = [r for r in rows_of(folder / f"gemm_bf16_{card}.csv") if min(int(r["n"]), int(r["k"])) >= MIN_SIDE]
    return [
        GemmSample(int(r["m"]), int(r["n"]), int(r["k"]), DType.BFLOAT16, _seconds(r), weights_warm=True)
        for r in thinned(rows, every)
    ]


def gemm_section(folder: Path, every: int = 1) -> Section:
    """GEMM with n, k ≥ 256 against the card's profile."""
    lines = []
    for card, name in PROFILES.items():
        profile, errors = load_profile(name), []
        for s in gemm_samples(folder, card, every):
            spec = {"op": "gemm", "m": s.m, "n": s.n, "k": s.k, "dtype": s.dtype.value, "weights": "warm"}
            errors.append(predict_op(profile, spec) / s.period_s - 1.0)
        if errors:
            bar = GEMM_ADA_BAR if profile.device.generation == "ada" else GEMM_BAR
            lines.append(line((name,), errors, bar))
    return Section("public_gemm", "Public GEMM tables, n, k ≥ 256", ("profile",), tuple(lines), note=_ROWS_NOTE)


def attention_section(folder: Path, every: int = 1) -> Section:
    """Attention of a serving engine, prefill and decode, against the card's profile."""
    lines = []
    for card, name in PROFILES.items():
        profile = load_profile(name)
        for table, phase in (("ctx", "prefill"), ("gen", "decode")):
            rows = thinned(rows_of(folder / f"{table}_attn_bf16_{card}.csv"), every)
            errors = [predict_op(profile, _attention(row)) / _seconds(row) - 1.0 for row in rows]
            if errors:
                lines.append(line((name, phase), errors, ATTENTION_BAR))
    title = "Public attention tables, with what serving engines add"
    return Section("public_attention", title, ("profile", "phase"), tuple(lines), note=_ROWS_NOTE)


def _attention(row: Row) -> dict[str, Any]:
    return {
        "op": "attention",
        "batch": int(row["batch_size"]),
        "q_len": int(row.get("isl") or 1),
        "kv_len": int(row.get("isl") or row["kv_len"]),
        "num_heads": int(row["num_heads"]),
        "num_kv_heads": int(row["num_key_value_heads"]),
        "head_dim": int(row["head_dim"]),
        "dtype": "bfloat16",
    }


def all_reduce_section(folder: Path, every: int = 1) -> Section:
    """NCCL AllReduce of 1 KiB to 256 MiB by machine and number of GPUs; the bar is for NVSwitch."""
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    wanted = [r for r in rows_of(folder / "nccl_all_reduce.csv") if r["system"] in SYSTEMS and _in_range(r)]
    for row in thinned(wanted, every):
        name = SYSTEMS[row["system"]]
        spec = {"op": "all_reduce", "bytes": int(row["message_bytes"]), "num_devices": int(row["num_gpus"])}
        errors[name, row["num_gpus"]].append(predict_op(load_profile(name), spec) / _seconds(row) - 1.0)
    lines = [line(key, own, Bar() if key[0] == "l40s-x8" else ALL_REDUCE_BAR) for key, own in sorted(errors.items())]
    title = "Public NCCL tables, AllReduce of 1 KiB to 256 MiB"
    return Section("public_all_reduce", title, ("profile", "GPUs"), tuple(lines), note=_ROWS_NOTE)


def _in_range(row: Row) -> bool:
    return MIN_BYTES <= int(row["message_bytes"]) <= MAX_BYTES


def left_out_section(folder: Path, every: int = 1) -> Section:
    """GEMM of each card with constants carried over from another: the nearest, and the nearest other chip."""
    lines = []
    for card, name in PROFILES.items():
        samples = gemm_samples(folder, card, every)
        if samples:
            lines += [_carried(samples, name, source) for source in left_out_sources(name)]
    note = (
        "Constants are fitted to the other card and moved by the two datasheets. The rule that moves them has numbers "
        "of its own for generations (MMA efficiency at most 0.93, waves, L2 partitions) that agree with the fits of "
        "these very cards, so it is no blind test: the last column leaves those numbers out. H100 and H200 are one "
        "chip with two memories, so each is also predicted without the other."
    )
    title = "GEMM on a GPU left out, from its datasheet"
    labels, extra = ("GPU left out", "constants of"), ("mean without the rule's numbers",)
    return Section("left_out_gemm", title, labels, tuple(lines), extra, note=note)


def left_out_sources(name: str) -> list[str]:
    """Where constants come from when `name` is left out: nearest first, and again without the same chip."""
    target = load_profile(name).device
    others = sorted(
        (other for other in PROFILES.values() if other != name), key=lambda o: _distance(load_profile(o).device, target)
    )
    if name not in SAME_CHIP:
        return others[:1]
    return [others[0], next(other for other in others if other not in SAME_CHIP)]


def _distance(source: Device, target: Device) -> tuple[int, float]:
    """Generations apart, then doublings of HBM bandwidth and of arithmetic apart: as `profiles new` has it."""
    generations = abs(GENERATIONS.index(source.generation) - GENERATIONS.index(target.generation))
    memory = abs(log2(source.hbm_bandwidth_bytes_per_s / target.hbm_bandwidth_bytes_per_s))
    return generations, memory + abs(log2(max(source.peak_flops.values()) / max(target.peak_flops.values())))


def _carried(samples: list[GemmSample], name: str, source_name: str) -> Line:
    target, source = load_profile(name), load_profile(source_name)
    constants = carry_over_gemm(source.gemm, source.device, target.device)
    gap_s = source.launch.graph_node_gap_s
    errors = _errors(samples, predict_periods(samples, target.device, constants, gap_s))
    plain = only_by_datasheet(constants, source.gemm, source.device, target.device)
    others = _errors(samples, predict_periods(samples, target.device, plain, gap_s))
    mean = f"{100 * fmean(map(abs, others)):.1f}"
    return line((name, source_name), errors, LEFT_OUT_BAR, (mean,))


def only_by_datasheet(carried: GemmConstants, own: GemmConstants, source: Device, target: Device) -> GemmConstants:
    """Carried-over constants without what the rule knows of generations: waves, L2 and the cap on efficiency.

    Args:
        carried: `own` moved from `source` to `target` by the whole rule.
        own: the constants of `source`.
        source: the card that was fitted.
        target: the card left out.
    """
    clocks = source.boost_clock_hz / target.boost_clock_hz
    return replace(
        carried,
        mma_efficiency=min(own.mma_efficiency * sqrt(clocks), 1.0),
        wave_quantisation=own.wave_quantisation,
        l2_resident_share=own.l2_resident_share,
        l2_resident_softness=own.l2_resident_softness,
    )


def _errors(samples: Sequence[GemmSample], periods_s: Iterable[float]) -> list[float]:
    return [float(period) / sample.period_s - 1.0 for period, sample in zip(periods_s, samples, strict=True)]


def _seconds(row: Row) -> float:
    return float(row["latency_ms"]) * 1e-3
