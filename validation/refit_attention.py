"""How the attention of a shipped profile is made: of serving engines, and the bare kernels, which are others.

The published tables are of TensorRT-LLM, whose context kernels take a fifth longer than FlashAttention's on the same
card: of long prompts 20 % on A100 (FlashAttention-2) and 21 % on H100 (FlashAttention-3), by tables of the same
publisher. So `serving_attention` is TensorRT-LLM's, and the prefill of bare `attention` is FlashAttention's, from the
card's own table or another card's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.attention import DEFAULT_START as ATTENTION_START
from kraken_sim.calibration.attention import fit_attention, phase_class
from kraken_sim.calibration.attention_start import PREFILL_BOUNDS
from kraken_sim.calibration.progress import held_out_text
from kraken_sim.profiles.carried_errors import CARRIED_FROM, LEFT_OUT_ERRORS, carried_error
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.transfer import carry_over_attention
from kraken_sim.profiles.write import BlockText, numbers_of
from kraken_sim.program.formats import DType
from validation.public_tables import attention_samples, flash_samples, float8_cache_samples
from validation.refit_published import PUBLISHER
from validation.refit_shipped import Shipped, provenance_of_fit, said, shapes_text

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.costs.attention_constants import AttentionConstants
    from validation.public_tables import Card

GIVEN_ATTENTION: Final = ("l2_share", "max_group", "persistent", "serving_packed_cache_share")
HALF_CACHE: Final = "; its grouped-query decode rows move half the nominal cache"
OF_PREFILL: Final = (*PREFILL_BOUNDS, "prefill")
"""The constants of a prefill's kernel alone; names of `AttentionConstants`."""


def published_attention(shipped: Shipped, card: Card, folder: Path) -> None:
    """Attention of serving engines from a card's tables."""
    profile = shipped.profiles[card.profile]
    own = profile.serving_attention or profile.attention
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
    shipped.put(card.profile, "serving_attention", BlockText(fit.constants, provenance_of_fit(source, fit)))


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


def bare_attention(shipped: Shipped, name: str, flash: Card, folder: Path, decode: str = "") -> None:
    """Bare attention: prefill as FlashAttention on `flash`'s card, decode steps as its own engine's or as on `decode`.

    Args:
        shipped: the profiles.
        name: the profile.
        flash: the card whose table of FlashAttention is fitted; that of the profile, or of another one.
        folder: the tables.
        decode: the profile whose bare decode steps were measured, where the card's own are not taken.
    """
    profile = shipped.profiles[name]
    if decode:
        base = shipped.profiles[decode]
        own = carry_over_attention(base.attention, base.device, profile.device)
        source, error = (
            f"{CARRIED_FROM} {decode} ({base.device.name})",
            carried_error("attention", base, profile.device),
        )
        where = Provenance(ProvenanceKind.FITTED, source, error)
    else:
        own, engine = profile.serving_attention or profile.attention, said(profile, "serving_attention")
        where = replace(engine, source=f"as in serving_attention: {engine.source}")
    constants, of_prefill = _flash(shipped, name, flash, folder)
    changes: dict[str, Any] = {field: getattr(constants, field) for field in OF_PREFILL}
    named = [path for path, _ in numbers_of(constants) if path.partition(".")[0] in changes]
    text = BlockText(replace(own, **changes), where, dict.fromkeys(named, of_prefill))
    shipped.put(name, "attention", text)


def _flash(shipped: Shipped, name: str, card: Card, folder: Path) -> tuple[AttentionConstants, Provenance]:
    """FlashAttention on a card with a table of it, moved to the profile's where that is another."""
    source, target = shipped.profiles[card.profile], shipped.profiles[name].device
    samples = flash_samples(folder, card)
    fit = fit_attention(samples, source.device, ATTENTION_START, graph_node_gap_s=source.launch.graph_node_gap_s)
    dims = ", ".join(map(str, sorted({sample.head_dim for sample in samples})))
    text = (
        f"fit to {PUBLISHER} {card.name}, {card.flash} (causal bf16 prefill, head dimensions {dims}), "
        f"{shapes_text(fit)}{held_out_text(fit)}"
    )
    if source.device == target:
        return fit.constants, provenance_of_fit(text, fit)
    moved = carry_over_attention(fit.constants, source.device, target, source.gemm.mma_efficiency)
    where = Provenance(ProvenanceKind.FITTED, f"{CARRIED_FROM} {card.profile}: {text}", LEFT_OUT_ERRORS["attention"])
    return moved, where
