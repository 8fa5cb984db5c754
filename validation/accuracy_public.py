"""Shipped profiles against public tables of single kernels and collectives, where those are at hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import log2, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kraken_sim import predict_op
from kraken_sim.calibration.attention import AttentionSample, attention_shape, phase_class
from kraken_sim.calibration.collectives import all_reduce_shape
from kraken_sim.calibration.gemm import GemmSample, gemm_periods, gemm_shape
from kraken_sim.calibration.split import split
from kraken_sim.hardware.device import GENERATIONS
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.formats import Quantization
from validation.accuracy_table import Bar, Line, Section, line
from validation.public_data import VARIABLE
from validation.public_tables import CARDS, QUANTISED_ONLY, attention_samples, gemm_samples, nccl_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kraken_sim.calibration.split import Key
    from kraken_sim.costs.gemm_constants import GemmConstants
    from kraken_sim.hardware.device import Device

Sample = TypeVar("Sample")

SAME_CHIP: Final = frozenset({"h100-sxm-x8", "h200-sxm-x8"})
"""One chip with two memories: one of them left out while the other stays is an easy case."""

GEMM_BAR, GEMM_ADA_BAR = Bar(mean=0.06), Bar(mean=0.15)
QUANTISED_BAR = Bar(mean=0.08)
ATTENTION_BAR = Bar(mean=0.08)
ALL_REDUCE_BAR = Bar(mean=0.08)
LEFT_OUT_BAR = Bar(mean=0.15)
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
        left_out_section(folder),
    ]


def gemm_section(folder: Path) -> Section:
    """GEMM with n, k ≥ 256 against the card's profile."""
    lines = []
    for card in CARDS:
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
    for card in (*CARDS, *QUANTISED_ONLY):
        profile = load_profile(card.profile)
        for quantization in Quantization:
            samples = gemm_samples(folder, card, quantization)
            if not samples or quantization.dtype not in profile.device.peak_flops:
                continue
            some, gap_s = held_out(samples, gemm_shape), profile.launch.graph_node_gap_s
            periods_s = gemm_periods(some, profile.device, profile.gemm_of(quantization)[1], gap_s)
            lines.append(line((card.profile, quantization.value), _errors(some, periods_s), QUANTISED_BAR))
    title = "Public tables of quantised GEMMs, n, k ≥ 256, with what quantises x"
    return Section("public_quantised", title, ("profile", "format"), by_name(lines), note=_HELD_OUT_NOTE)


def attention_section(folder: Path) -> Section:
    """Attention of a serving engine, prefill and decode, against the card's profile."""
    lines = []
    for card in CARDS:
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


def left_out_section(folder: Path) -> Section:
    """GEMM of each card with constants carried over from another: the nearest, and the nearest other chip."""
    lines = []
    for card in CARDS:
        if samples := held_out(gemm_samples(folder, card), gemm_shape):
            lines += [_carried(samples, card.profile, source) for source in left_out_sources(card.profile)]
    note = (
        "Constants are fitted to the other card and moved by the two datasheets; shapes are those that no card's fit "
        "has seen. The rule that moves them has numbers of its own for generations (MMA efficiency at most 0.93, "
        "waves, L2 partitions) that agree with the fits of these very cards, so it is no blind test: the last column "
        "leaves those numbers out. H100 and H200 are one chip with two memories, so each is also predicted without the "
        "other."
    )
    title = "GEMM on a GPU left out, from its datasheet"
    labels, extra = ("GPU left out", "constants of"), ("mean without the rule's numbers",)
    return Section("left_out_gemm", title, labels, by_name(lines), extra, note=note)


def held_out(samples: list[Sample], shape: Callable[[Sample], Key]) -> list[Sample]:
    """The samples whose shapes no fit has seen."""
    return split(samples, shape)[1]


def by_name(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Lines in the order of the profiles' names."""
    return tuple(sorted(lines, key=lambda item: item.labels[0]))


def left_out_sources(name: str) -> list[str]:
    """Where constants come from when `name` is left out: nearest first, and again without the same chip."""
    target = load_profile(name).device
    names = (card.profile for card in CARDS if card.profile != name)
    others = sorted(names, key=lambda other: _distance(load_profile(other).device, target))
    if name not in SAME_CHIP:
        return others[:1]
    return [others[0], next(other for other in others if other not in SAME_CHIP)]


def _distance(source: Device, target: Device) -> tuple[int, float]:
    """Generations apart, then doublings of HBM bandwidth and of arithmetic apart: as `profiles new` has it."""
    generations = abs(GENERATIONS.index(source.generation) - GENERATIONS.index(target.generation))
    memory = abs(log2(source.hbm_bandwidth_bytes_per_s / target.hbm_bandwidth_bytes_per_s))
    return generations, memory + abs(log2(source.unquantised_flops / target.unquantised_flops))


def _carried(samples: list[GemmSample], name: str, source_name: str) -> Line:
    target, source = load_profile(name), load_profile(source_name)
    constants = carry_over_gemm(source.gemm, source.device, target.device)
    gap_s = source.launch.graph_node_gap_s
    errors = _errors(samples, gemm_periods(samples, target.device, constants, gap_s))
    plain = only_by_datasheet(constants, source.gemm, source.device, target.device)
    others = _errors(samples, gemm_periods(samples, target.device, plain, gap_s))
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
