"""Each card left out: its kernels from its datasheet and the constants of another card, beside its public tables.

What limits a card that nobody measured (`kraken_sim.profiles.held_rate`) is judged here, and so is whether the errors
that carried constants state (`carried_errors`) hold what is measured.
"""

from __future__ import annotations

from dataclasses import replace
from math import log1p, log2, pi, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.attention import attention_periods, attention_shape, fit_attention, phase_class
from kraken_sim.calibration.gemm import gemm_periods, gemm_shape
from kraken_sim.hardware.device import GENERATIONS
from kraken_sim.predict.uncertainty import NORMAL_QUANTILE
from kraken_sim.profiles.carried_errors import carried_error
from kraken_sim.profiles.gemm_transfer import carry_over_gemm
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.transfer import carry_over_attention
from kraken_sim.program.formats import Quantization
from validation.accuracy_shapes import by_name, held_out, relative_errors
from validation.accuracy_table import NO_BAR, Bar, Line, Section, line
from validation.public_tables import CARDS, OVER_A_BASE, attention_samples, flash_samples, gemm_samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kraken_sim.calibration.attention import AttentionSample
    from kraken_sim.calibration.gemm import GemmSample
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.attention_constants import AttentionConstants
    from kraken_sim.hardware.device import Device
    from kraken_sim.profiles.profile import HardwareProfile
    from validation.public_tables import Card

SAME_CHIP: Final = frozenset({"h100-sxm-x8", "h200-sxm-x8"})
"""One chip with two memories: one of them left out while the other stays is an easy case."""

CUDNN: Final = "h200-sxm-x8"
"""The profile whose bare attention was measured under torch."""
LONG_PROMPT: Final = 4096
"""Tokens of a prompt from which on attention is all products; a choice of ours."""
_OF_CACHE_WRITE: Final = (
    "launch_s", "serving_hbm_efficiency", "serving_l2_bytes_per_s", "serving_l2_share", "serving_kv_weight",
    "serving_prefill_s",
)  # fmt: skip
"""What rows of an engine have beside the kernel, which is the engine's on any card."""
LEFT_OUT_BAR: Final = Bar(mean=0.15)
ALL: Final = (*CARDS, *OVER_A_BASE)
_LABELS: Final = ("GPU left out", "constants of")
_EXTRA: Final = ("within the stated error's 90 %", "mean with the shares kept")
_BARE_NOTE: Final = (
    "FlashAttention-2 on A100, 3 on H100, as vLLM runs them, with the write of the cache. The engine's are the context "
    "kernels of TensorRT-LLM on the very card: a fifth slower, so bare attention is not theirs."
)
_NOTE: Final = (
    "Constants are fitted to the other card and moved by the two datasheets; shapes are those that no card's fit has "
    "seen. The rule has numbers of its own (work per joule by generation, a full rate of 0.95 of the peak, waves and "
    "L2 by kind of kernels) that agree with these very cards, so it is no blind test: the last column keeps the other "
    "card's shares of the tensor cores' rate. H100 and H200 are one chip with two memories, so each is also predicted "
    "without the other."
)


def left_out_sections(folder: Path) -> list[Section]:
    """GEMM in bf16 and fp8, and attention, of each card with constants of another."""
    return [gemm_left_out(folder), fp8_left_out(folder), attention_left_out(folder), bare_left_out(folder)]


def gemm_left_out(folder: Path) -> Section:
    """GEMM in bf16 of each card: from the nearest other, and from the nearest other chip."""
    title = "GEMM on a GPU left out, from its datasheet"
    return Section("left_out_gemm", title, _LABELS, _gemm_lines(folder, None), _EXTRA, note=_NOTE)


def fp8_left_out(folder: Path) -> Section:
    """The same in fp8, with what quantises x."""
    title = "GEMM in fp8 on a GPU left out, from its datasheet"
    return Section("left_out_fp8", title, _LABELS, _gemm_lines(folder, Quantization.FP8), _EXTRA)


def attention_left_out(folder: Path) -> Section:
    """Attention of a serving engine of each card, prefill and decode."""
    lines = []
    for card in ALL:
        samples = held_out(attention_samples(folder, card), attention_shape)
        for source in left_out_sources(card.profile):
            lines += _attention_lines(samples, load_profile(card.profile), load_profile(source))
    title = "Attention on a GPU left out, from its datasheet, with what serving engines add"
    return Section("left_out_attention", title, (*_LABELS, "phase"), by_name(lines), _EXTRA)


def bare_left_out(folder: Path) -> Section:
    """FlashAttention's prefills of each card with a table of them: its own fit, its engine's, and other cards'."""
    cards = [card for card in CARDS if card.flash and (folder / f"ctx_attn_bf16_{card.flash_tables}.csv").is_file()]
    fits = {card.profile: _flash_fit(folder, card) for card in cards}
    lines = []
    for name, own in fits.items():
        target = load_profile(name)
        samples = [sample for sample, _ in own.held_out]
        others = {f"FlashAttention, {other}": (fits[other].constants, other) for other in fits if other != name}
        bare = {f"torch's cuDNN, {CUDNN}": (load_profile(CUDNN).attention, CUDNN)}
        engine = {f"the engine's, {name}": (target.serving_attention or target.attention, name)}
        for label, (constants, other) in (others | bare | engine).items():
            source = load_profile(other)
            moved = carry_over_attention(constants, source.device, target.device, source.gemm.mma_efficiency)
            added = {field: getattr(own.constants, field) for field in _OF_CACHE_WRITE}
            periods_s = attention_periods(
                samples, target.device, replace(moved, **added), target.launch.graph_node_gap_s
            )
            errors = relative_errors(samples, periods_s)
            long = [error for sample, error in zip(samples, errors, strict=True) if sample.q_len >= LONG_PROMPT]
            stated = carried_error("attention", source, target.device) if other != name else 0.0
            inside = f"{100 * within(errors, stated or 0.0):.0f}" if other != name else ""
            lines.append(line((name, label), errors, NO_BAR, (inside, f"{100 * fmean(long):+.1f}")))
    extra = (_EXTRA[0], f"bias from {LONG_PROMPT} tokens on")
    title = "Prefill of FlashAttention on a GPU left out, from its datasheet"
    return Section("left_out_bare", title, _LABELS, by_name(lines), extra, note=_BARE_NOTE)


def _flash_fit(folder: Path, card: Card) -> Fit[AttentionConstants, AttentionSample]:
    profile = load_profile(card.profile)
    gap_s = profile.launch.graph_node_gap_s
    return fit_attention(flash_samples(folder, card), profile.device, graph_node_gap_s=gap_s)


def left_out_sources(name: str, quantization: Quantization | None = None) -> list[str]:
    """Where constants come from when `name` is left out: nearest first, and again without the same chip."""
    target = load_profile(name).device
    known = [load_profile(card.profile) for card in ALL if card.profile != name]
    able = [p for p in known if quantization is None or quantization.dtype in p.device.peak_flops]
    others = [profile.name for profile in sorted(able, key=lambda profile: _distance(profile.device, target))]
    if name not in SAME_CHIP:
        return others[:1]
    return [others[0], next(other for other in others if other not in SAME_CHIP)]


def _distance(source: Device, target: Device) -> tuple[int, float]:
    """Generations apart, then doublings of HBM bandwidth and of arithmetic apart: as `profiles new` has it."""
    places = [GENERATIONS.index(device.kernel_generation) for device in (source, target)]
    memory = abs(log2(source.hbm_bandwidth_bytes_per_s / target.hbm_bandwidth_bytes_per_s))
    return abs(places[0] - places[1]), memory + abs(log2(source.unquantised_flops / target.unquantised_flops))


def _gemm_lines(folder: Path, quantization: Quantization | None) -> tuple[Line, ...]:
    lines: list[Line] = []
    for card in ALL:
        target = load_profile(card.profile)
        if quantization is not None and quantization.dtype not in target.device.peak_flops:
            continue
        if samples := held_out(gemm_samples(folder, card, quantization), gemm_shape):
            sources = map(load_profile, left_out_sources(card.profile, quantization))
            lines += [_gemm_line(samples, target, source, quantization) for source in sources]
    return by_name(lines)


def _gemm_line(
    samples: list[GemmSample], target: HardwareProfile, source: HardwareProfile, quantization: Quantization | None
) -> Line:
    block, own = ("gemm", source.gemm) if quantization is None else source.gemm_of(quantization)
    dtype = None if quantization is None else quantization.dtype
    constants = carry_over_gemm(own, source.device, target.device, dtype)
    kept = replace(constants, mma_efficiency=own.mma_efficiency, throttle_depth=own.throttle_depth)
    gap_s = source.launch.graph_node_gap_s
    errors, plain = (
        relative_errors(samples, gemm_periods(samples, target.device, some, gap_s)) for some in (constants, kept)
    )
    return _line((target.name, source.name), errors, plain, carried_error(block, source, target.device))


def _attention_lines(
    samples: Sequence[AttentionSample], target: HardwareProfile, source: HardwareProfile
) -> list[Line]:
    own = source.serving_attention or source.attention
    constants = carry_over_attention(own, source.device, target.device, source.gemm.mma_efficiency)
    kept = replace(constants, prefill=own.prefill)
    lines = []
    for phase in ("prefill", "decode"):
        some = [sample for sample in samples if phase_class(sample)[1] == phase]

        def errors(constants: AttentionConstants, some: list[AttentionSample] = some) -> list[float]:
            periods_s = attention_periods(some, target.device, constants, source.launch.graph_node_gap_s)
            return relative_errors(some, periods_s)

        if some:
            stated = carried_error("serving_attention", source, target.device)
            lines.append(_line((target.name, source.name, phase), errors(constants), errors(kept), stated))
    return lines


def _line(labels: tuple[str, ...], errors: list[float], kept: list[float], stated: float | None) -> Line:
    inside = f"{100 * within(errors, stated or 0.0):.0f}"
    bar = NO_BAR if "decode" in labels else LEFT_OUT_BAR
    return line(labels, errors, bar, (inside, f"{100 * fmean(map(abs, kept)):.1f}"))


def within(errors: Sequence[float], stated: float) -> float:
    """Share of the errors inside of the 90 % interval of a stated mean error, as `predict.uncertainty` makes it."""
    half = log1p(NORMAL_QUANTILE * sqrt(pi / 2.0) * stated)
    return fmean(abs(log1p(error)) <= half for error in errors)
