"""Kernels of shipped profiles from published tables: GEMMs, attention and caches in fp8."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.attention import DEFAULT_START as ATTENTION_START
from kraken_sim.calibration.attention import fit_attention, phase_class
from kraken_sim.calibration.attention_start import PREFILL_BOUNDS
from kraken_sim.calibration.gemm import fit_gemm
from kraken_sim.calibration.progress import held_out_text
from kraken_sim.profiles.carried_errors import carried_error
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.transfer import carry_over_attention
from kraken_sim.profiles.write import BlockText, numbers_of
from kraken_sim.program.formats import DType, Quantization
from validation.public_tables import attention_samples, float8_cache_samples, gemm_samples
from validation.refit_shipped import Shipped, provenance_of_fit, said, shapes_text

if TYPE_CHECKING:
    from pathlib import Path

    from validation.public_tables import Card

PUBLISHER: Final = "ai-dynamo/aiconfigurator"
GIVEN_ATTENTION: Final = ("l2_share", "max_group", "persistent", "serving_packed_cache_share")
HALF_CACHE: Final = "; its grouped-query decode rows move half the nominal cache"


def published_gemm(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMM from a card's table."""
    profile = shipped.profiles[card.profile]
    gap_s = profile.launch.graph_node_gap_s
    fit = fit_gemm(gemm_samples(folder, card), profile.device, graph_node_gap_s=gap_s)
    source = f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM bf16, {shapes_text(fit)}{held_out_text(fit)}"
    shipped.put(card.profile, "gemm", BlockText(fit.constants, provenance_of_fit(source, fit)))


def published_quantised_gemms(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMMs of each quantised format that the card's tables have, and what their rows' quantisation of x takes."""
    for quantization in Quantization:
        profile = shipped.profiles[card.profile]
        samples = gemm_samples(folder, card, quantization)
        if not samples or quantization.dtype not in profile.device.peak_flops:
            continue
        fit = fit_gemm(samples, profile.device, profile.gemm, graph_node_gap_s=profile.launch.graph_node_gap_s)
        added_s = fit.constants.serving_quantize_s
        source = (
            f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM {quantization}, {shapes_text(fit)}"
            f"{held_out_text(fit)}; its rows have the quantisation of x in them, {1e6 * added_s:.1f} us and the bytes "
            "of x, fitted with the product, whose start is that in bf16"
        )
        shipped.put(card.profile, f"gemm_{quantization}", BlockText(fit.constants, provenance_of_fit(source, fit)))


def published_attention(shipped: Shipped, card: Card, folder: Path) -> None:
    """Attention from a card's tables: of serving engines, where the profile keeps these apart from bare kernels."""
    profile = shipped.profiles[card.profile]
    block = "attention" if profile.serving_attention is None else "serving_attention"
    own = getattr(profile, block)
    given: dict[str, Any] = {name: getattr(own, name) for name in GIVEN_ATTENTION}
    start = replace(ATTENTION_START, **given)
    samples = attention_samples(folder, card)
    fit = fit_attention(samples, profile.device, start, graph_node_gap_s=profile.launch.graph_node_gap_s)
    dims = ", ".join(map(str, sorted({sample.head_dim for sample in samples})))
    errors = {error.name: f"{100 * error.mean:.1f} % {error.name}" for error in fit.class_errors("", phase_class)}
    half = HALF_CACHE if start.serving_packed_cache_share < 1.0 else ""
    source = (
        f"fit to {PUBLISHER} {card.name}, {card.framework} (causal bf16, head dimensions {dims}), {shapes_text(fit)}; "
        f"mean error on held-out shapes {errors['prefill']}, {errors['decode']}{half}"
    )
    shipped.put(card.profile, block, BlockText(fit.constants, provenance_of_fit(source, fit)))


def prefill_of_published(shipped: Shipped, card: Card, chip: str) -> None:
    """The bare attention of a card of which only engines' was fitted: prefill as theirs, decode steps as on `chip`."""
    profile, base = shipped.profiles[card.profile], shipped.profiles[chip]
    if profile.serving_attention is None:
        return
    changes: dict[str, Any] = {name: getattr(profile.serving_attention, name) for name in (*PREFILL_BOUNDS, "prefill")}
    carried = carry_over_attention(base.attention, base.device, profile.device)
    where = said(profile, "serving_attention")
    own = replace(where, source=f"prefill as in serving_attention: {where.source}")
    error = carried_error("attention", base, profile.device)
    other = Provenance(ProvenanceKind.FITTED, f"carried over from {chip} ({base.device.name})", error)
    named = [path for path, _ in numbers_of(carried) if path.partition(".")[0] not in changes]
    shipped.put(card.profile, "attention", BlockText(replace(carried, **changes), own, dict.fromkeys(named, other)))


def published_float8_cache(shipped: Shipped, card: Card, folder: Path) -> None:
    """Decode steps over a cache in fp8, from the card's published attention, whose prefill they keep."""
    profile = shipped.profiles[card.profile]
    samples = float8_cache_samples(folder, card)
    if not samples or DType.FLOAT8_E4M3 not in profile.device.peak_flops:
        return
    start = profile.serving_attention or profile.attention
    fit = fit_attention(samples, profile.device, start, graph_node_gap_s=profile.launch.graph_node_gap_s)
    dims = ", ".join(map(str, sorted({sample.head_dim for sample in samples})))
    source = (
        f"fit to {PUBLISHER} {card.name}, {card.framework}, decode over an fp8 cache (bf16, head dimensions {dims}), "
        f"{shapes_text(fit)}{held_out_text(fit)}; prefill as over other caches"
    )
    shipped.put(card.profile, "attention_float8", BlockText(fit.constants, provenance_of_fit(source, fit)))
