"""The constants of the attention model of one GPU (formulas in `kraken_sim.costs.attention_model`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kraken_sim.files.meaning import NUMBER, Meaning, Table, exactly, holds, means

if TYPE_CHECKING:
    from collections.abc import Mapping

PER_HEAD: Final = "per_head"
"""The decode kernel with one CTA a query head, on CUDA cores."""
PACKED: Final = "packed"
"""The decode kernel with one CTA a key/value head, the query heads of its group packed into a tile."""

SHARED: Final = "shared"
"""The decode kernel with one CTA a key/value head whose query heads are rows of its tile, be they one or 64, as torch
takes it (cuDNN's sdpa_sm80_flash_fprop with a grid of splits x key/value heads x sequences)."""

_MOST_S: Final = 1e-3
"""Limit of ours: no part of an attention kernel that does not grow with its work takes longer."""

_PREFILL: Final = {
    "efficiency": Meaning("Share of the datasheet's tensor-core rate that full SMs reach.", 0.01, 0.6, 1.0, "share"),
    "serial_ratio": Meaning(
        "Time of a step in a CTA that is alone on its SM over its share on a full one.", 0.01, 0.8, 100.0, "ratio"
    ),
}

_DECODE: Final = {
    "prologue_s": Meaning("Before a CTA's first token.", 0.0, 2e-6, _MOST_S),
    "token_s": Meaning("A token of a CTA's part of the cache.", 0.0, 1e-9, _MOST_S),
    "cta_s": Meaning("A wave of CTAs.", 0.0, 1.2e-6, _MOST_S),
    "dim_cta_s": Meaning("What a wave takes more at head dimension 128, in proportion to it.", 0.0, 4e-8, _MOST_S),
    "group_cta_s": Meaning(
        "What a wave takes more for each further block of eight query rows of a packed group.", 0.0, 0.1e-6, _MOST_S
    ),
    "block_s": Meaning("SM time of a block of the cache, at head dimension 128.", 0.0, 5e-8, _MOST_S),
    "crowded_s": Meaning("What a step takes longer where more than a few streams share an SM.", 0.0, 1e-6, _MOST_S),
    "split_s": Meaning("What splitting the cache costs, once.", 0.0, 3e-6, _MOST_S),
    "split_step_s": Meaning("What splitting the cache costs, times the fourth root of the splits.", 0.0, 1e-6, _MOST_S),
    "hbm_efficiency": Meaning("Share of the datasheet's HBM bandwidth that is reached.", 0.01, 0.9, 1.0, "share"),
    "l2_bytes_per_s": Meaning("What L2 delivers of a cache that it still holds.", 1e9, 8e12, 1e16),
    "l2_share": Meaning("Share of L2's capacity up to which it holds all of the cache.", 0.0, 0.8, 10.0, "share"),
    "l2_width": Meaning("Share of L2's capacity over which it comes to hold nothing.", 0.01, 0.4, 10.0, "share"),
    "reread_bytes_per_s": Meaning("Rate at which query heads of one group read the cache again.", 1e9, 8e12, 1e17),
    "cta_bytes_per_s": Meaning("What one CTA can draw.", 1e6, 5e10, 1e14),
    "overlap_power": Meaning(
        "Exponent of the soft maximum of chain, SMs, memory and pull.", 1.0, 2.0, 10.0, "exponent"
    ),
    "splits_per_sm": Meaning("Up to which the cache is split.", 0.1, 4.0, 1024.0, "CTAs an SM"),
    "tokens_per_split": Meaning("The shortest part that the cache is split into.", 1.0, 256.0, 1e6, "tokens"),
}

_DECODE_DIM: Final = {
    "latency": Meaning("Factor on what a CTA waits for.", 0.05, 1.0, 20.0, "factor"),
    "memory": Meaning("Factor on the time of reading the cache.", 0.05, 1.0, 20.0, "factor"),
}

_DECODE_CORRECTION: Final = Table(
    "Factors on a decode time under '<kernel> <tokens in the cache>', interpolated in the logarithms; {} for none.",
    keys=rf"({PER_HEAD}|{PACKED}|{SHARED}) {NUMBER}",
    each=Table(
        "Factors by CTAs.", keys=NUMBER, each=Meaning("Factor on the time.", 0.01, 1.0, 100.0, "factor"), least=1
    ),
)


def _by_head_dim(text: str, each: Meaning | Table) -> Table:
    return Table(f"{text}, by head dimension; others are interpolated.", keys=NUMBER, each=each, least=1)


@dataclass(frozen=True, slots=True)
class AttentionConstants:
    """Constants of the attention model; the mappings are left out of its hash.

    `serving_*` is what a serving engine's attention op adds to the kernel: rotary embedding, the write of new keys
    and values to the paged cache, and small kernels of their own.
    """

    launch_s: float = field(metadata=means("From the start of a bare kernel until its CTAs work.", 0.0, 2e-6, _MOST_S))
    prologue_s: float = field(metadata=means("Before and after the loop of one CTA.", 0.0, 3e-6, _MOST_S))
    cta_s: float = field(metadata=means("SM time of a CTA beside its loop.", 0.0, 1e-6, _MOST_S))
    tile_s: float = field(
        metadata=means("SM time of a CTA for a full query tile of head dimension 128.", 0.0, 1e-6, _MOST_S)
    )
    overlap_power: float = field(
        metadata=means("Exponent of the soft maximum of throughput and longest CTA.", 1.0, 2.0, 10.0, "exponent")
    )
    tail_share: float = field(
        metadata=means("Share of the longest CTA that the last wave adds.", 0.0, 0.3, 5.0, "share")
    )
    hbm_efficiency: float = field(
        metadata=means(
            "Share of the datasheet's HBM bandwidth that reading q, k, v and writing the output reach.",
            0.01,
            0.8,
            1.0,
            "share",
        )
    )
    l2_bytes_per_s: float = field(metadata=means("What L2 delivers of q, k, v and the output.", 1e9, 4e12, 1e16))
    l2_share: float = field(metadata=means("Share of L2's capacity that holds them.", 0.0, 0.5, 10.0, "share"))
    max_group: int = field(
        metadata=means("Query heads a key/value head that the packed kernel takes.", 1, 32, 1024, "heads")
    )
    persistent: int = field(
        metadata=means("1: prefill launches one CTA an SM slot, and each walks over several tiles.", 0, 0, 1, "0 or 1")
    )
    serving_hbm_efficiency: float = field(
        metadata=means(
            "Share of the datasheet's HBM bandwidth that rotary embedding and cache write reach.",
            0.01,
            0.6,
            1.0,
            "share",
        )
    )
    serving_l2_bytes_per_s: float = field(metadata=means("What L2 delivers of that.", 1e9, 2e12, 1e16))
    serving_l2_share: float = field(metadata=means("Share of L2's capacity that holds it.", 0.0, 0.7, 10.0, "share"))
    serving_kv_weight: float = field(metadata=means("How often keys and values count.", 0.0, 1.0, 50.0, "times"))
    serving_packed_cache_share: float = field(
        metadata=means(
            "Share of the nominal cache that the published packed-decode rows moved.", 0.01, 1.0, 1.0, "share"
        )
    )
    prefill: Mapping[str, Mapping[str, float]] = field(
        hash=False,
        metadata=holds(
            _by_head_dim(
                "How fast prefill multiplies", Table("At one head dimension.", own=_PREFILL, required=tuple(_PREFILL))
            )
        ),
    )
    decode: Mapping[str, Mapping[str, float]] = field(
        hash=False,
        metadata=holds(
            exactly(
                "Constants of the decode kernels, by kernel; a bare one is the shared one where it is there.",
                PER_HEAD,
                PACKED,
                each=Table("One decode kernel.", own=_DECODE, required=tuple(_DECODE)),
                optional=(SHARED,),
            )
        ),
    )
    decode_correction: Mapping[str, Mapping[str, float]] = field(hash=False, metadata=holds(_DECODE_CORRECTION))
    serving_prefill_s: Mapping[str, float] = field(
        hash=False,
        metadata=holds(
            _by_head_dim(
                "A serving engine's further kernels in prefill", Meaning("Further kernels.", 0.0, 7e-6, _MOST_S)
            )
        ),
    )
    serving_decode_s: Mapping[str, float] = field(
        hash=False,
        metadata=holds(
            _by_head_dim(
                "A serving engine's further kernels in a decode step", Meaning("Further kernels.", 0.0, 6e-6, _MOST_S)
            )
        ),
    )
    decode_dim: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict,
        hash=False,
        metadata=holds(
            Table(
                "How much longer the shared decode kernel takes than at head dimension 128, by head dimension; others "
                "are interpolated, {} for no longer.",
                keys=NUMBER,
                each=Table("At one head dimension.", own=_DECODE_DIM, required=tuple(_DECODE_DIM)),
            )
        ),
    )
