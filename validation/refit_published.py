"""Products of shipped profiles from published tables."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.gemm import fit_gemm
from kraken_sim.calibration.progress import held_out_text
from kraken_sim.profiles.write import BlockText
from kraken_sim.program.formats import Quantization
from validation.public_tables import gemm_samples
from validation.refit_shipped import Shipped, provenance_of_fit, shapes_text

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.costs.gemm_constants import GemmConstants
    from validation.public_tables import Card

PUBLISHER: Final = "ai-dynamo/aiconfigurator"

MOST_SPLIT: Final = MappingProxyType({Quantization.NVFP4: 1})
"""The most parts of k in formats whose kernels do not split it as others do; measured: nvfp4's rows of 2 to 16 tokens
on B200 take time in proportion to k, be it for 128 columns or 8,192 (28, 37, 101, 128 us at k of 12, 16, 51, 66
thousand)."""


def published_gemm(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMM from a card's table."""
    profile = shipped.profiles[card.profile]
    gap_s = profile.launch.graph_node_gap_s
    fit = fit_gemm(gemm_samples(folder, card), profile.device, graph_node_gap_s=gap_s)
    source = f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM bf16, {shapes_text(fit)}{held_out_text(fit)}"
    shipped.put(card.profile, "gemm", BlockText(_replayed(fit.constants), provenance_of_fit(source, fit)))


def published_quantised_gemms(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMMs of each quantised format that the card's tables have, and what their rows' quantisation of x takes."""
    for quantization in Quantization:
        profile = shipped.profiles[card.profile]
        samples = gemm_samples(folder, card, quantization)
        if not samples or quantization.dtype not in profile.device.peak_flops:
            continue
        start = replace(profile.gemm, most_split=MOST_SPLIT.get(quantization, profile.gemm.most_split))
        fit = fit_gemm(samples, profile.device, start, graph_node_gap_s=profile.launch.graph_node_gap_s)
        added_s = fit.constants.serving_quantize_s
        source = (
            f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM {quantization}, {shapes_text(fit)}"
            f"{held_out_text(fit)}; its rows have the quantisation of x in them, {1e6 * added_s:.1f} us and the bytes "
            "of x, fitted with the product, whose start is that in bf16"
        )
        text = BlockText(_replayed(fit.constants), provenance_of_fit(source, fit))
        shipped.put(card.profile, f"gemm_{quantization}", text)


def _replayed(constants: GemmConstants) -> GemmConstants:
    """These tables are means of many replays of one kernel, which a card's power limit slows."""
    return replace(constants, throttle_by_limit=1)
