"""Shipped profiles against public tables of single kernels and collectives, where those are at hand."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kraken_sim import predict_op
from kraken_sim.calibration.attention import attention_shape, phase_class
from kraken_sim.calibration.collectives import all_reduce_shape
from kraken_sim.calibration.gemm import gemm_periods, gemm_shape
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from validation.accuracy_left_out import left_out_sections
from validation.accuracy_shapes import by_name, held_out, relative_errors
from validation.accuracy_table import Bar, Section, line
from validation.public_data import VARIABLE
from validation.public_tables import CARDS, OVER_A_BASE, attention_samples, gemm_samples, nccl_samples

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.calibration.attention import AttentionSample
GEMM_BAR, GEMM_ADA_BAR = Bar(mean=0.06), Bar(mean=0.15)
QUANTISED_BAR = Bar(mean=0.08)
ATTENTION_BAR = Bar(mean=0.08)
ALL_REDUCE_BAR = Bar(mean=0.08)
_HELD_OUT_NOTE = "The 30 % of shapes that no fit of a profile has seen in any form."


def public_sections(folder: Path) -> list[Section]:
    """GEMM, attention, AllReduce and GEMM on a GPU left out; a note where the tables are not there."""
    if not any((folder / f"gemm_bf16_{card.tables}.csv").exists() for card in CARDS):
        note = f"No public tables of kernels ({VARIABLE} names their folder): these rows are left out."
        return [Section("public", "Public tables of kernels", (), note=note)]
    return [
        gemm_section(folder),
        quantised_section(folder),
        attention_section(folder),
        all_reduce_section(folder),
        *left_out_sections(folder),
    ]


def gemm_section(folder: Path) -> Section:
    """GEMM with n, k ≥ 256 against the card's profile."""
    lines = []
    for card in (*CARDS, *OVER_A_BASE):
        profile, errors = load_profile(card.profile), []
        for s in held_out(gemm_samples(folder, card), gemm_shape):
            spec = {"op": "gemm", "m": s.m, "n": s.n, "k": s.k, "dtype": s.dtype.value, "weights": "warm"}
            errors.append(predict_op(profile, spec) / s.period_s - 1.0)
        if errors:
            bar = GEMM_ADA_BAR if profile.device.generation == "ada" else GEMM_BAR
            lines.append(line((card.profile,), errors, bar))
    title = "Public GEMM tables, n, k ≥ 256"
    return Section("public_gemm", title, ("profile",), by_name(lines), note=_HELD_OUT_NOTE)


def quantised_section(folder: Path) -> Section:
    """GEMM of quantised operands with n, k ≥ 256, the quantisation of x in it, against the card's profile."""
    lines = []
    for card in (*CARDS, *OVER_A_BASE):
        profile = load_profile(card.profile)
        for quantization in Quantization:
            samples = gemm_samples(folder, card, quantization)
            if not samples or quantization.dtype not in profile.device.peak_flops:
                continue
            some, gap_s = held_out(samples, gemm_shape), profile.launch.graph_node_gap_s
            periods_s = gemm_periods(some, profile.device, profile.gemm_of(quantization)[1], gap_s)
            lines.append(line((card.profile, quantization.value), relative_errors(some, periods_s), QUANTISED_BAR))
    title = "Public tables of quantised GEMMs, n, k ≥ 256, with what quantises x"
    return Section("public_quantised", title, ("profile", "format"), by_name(lines), note=_HELD_OUT_NOTE)


def attention_section(folder: Path) -> Section:
    """Attention of a serving engine, prefill and decode, against the card's profile."""
    lines = []
    for card in (*CARDS, *OVER_A_BASE):
        profile = load_profile(card.profile)
        errors: dict[str, list[float]] = {"prefill": [], "decode": []}
        for sample in held_out(attention_samples(folder, card), attention_shape):
            error = predict_op(profile, _attention(sample)) / sample.period_s - 1.0
            errors[phase_class(sample)[1]].append(error)
        lines += [line((card.profile, phase), own, ATTENTION_BAR) for phase, own in errors.items() if own]
    title = "Public attention tables, with what serving engines add"
    return Section("public_attention", title, ("profile", "phase"), by_name(lines), note=_HELD_OUT_NOTE)


def _attention(sample: AttentionSample) -> dict[str, Any]:
    sizes = ("batch", "q_len", "kv_len", "num_heads", "num_kv_heads", "head_dim")
    return {"op": "attention", "dtype": sample.dtype.value} | {name: getattr(sample, name) for name in sizes}


def all_reduce_section(folder: Path) -> Section:
    """NCCL AllReduce of 1 KiB to 256 MiB by machine and number of GPUs; the bar is for NVSwitch."""
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for card in CARDS:
        profile = load_profile(card.machine)
        for sample in held_out(nccl_samples(folder, card, profile.launch.graph_node_gap_s), all_reduce_shape):
            spec = {"op": "all_reduce", "bytes": sample.num_bytes, "num_devices": sample.num_devices}
            errors[card.machine, str(sample.num_devices)].append(predict_op(profile, spec) / sample.period_s - 1.0)
    lines = [
        line(key, own, Bar() if key[0] == "l40s-x8-slow-host" else ALL_REDUCE_BAR)
        for key, own in sorted(errors.items())
    ]
    title = "Public NCCL tables, AllReduce of 1 KiB to 256 MiB"
    return Section("public_all_reduce", title, ("profile", "GPUs"), tuple(lines), note=_HELD_OUT_NOTE)
