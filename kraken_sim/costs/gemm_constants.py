"""The constants of the GEMM model of one GPU (formulas in `kraken_sim.costs.gemm_model`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.gemm_shapes import MAX_SPLIT
from kraken_sim.files.meaning import NUMBER, Meaning, Table, exactly, holds, means

if TYPE_CHECKING:
    from collections.abc import Mapping

_CORRECTION: Final = Table(
    "Factor on the time at knots; between them its logarithm is interpolated linearly in log m, log n and log k.",
    keys=r"[1-9]\d*x[1-9]\d*",
    each=Table("Factors by k.", keys=NUMBER, each=Meaning("Factor on the time.", 0.01, 1.0, 100.0, "factor")),
    grid=True,
)


@dataclass(frozen=True, slots=True)
class GemmConstants:
    """Constants of the GEMM model; the hash leaves out the two mappings.

    A benchmark that replays up to `replay_copies` copies of the weights, as many as exceed L2, finds them there while
    their footprint stays below `l2_resident_share` of its capacity. A kernel of ideal duration t loses
    `throttle_depth` * t / (t + `throttle_onset_s`) of its clock. Matrix-vector (m = 1) kernels have `gemv_*`.
    Published rows of quantised products have kernels in them that quantise x: `serving_quantize_*`.
    `mma_efficiency` is that of bfloat16; float16 reaches `float16_rate` of it, as it draws more power.
    """

    launch_s: float = field(metadata=means("Before the first CTA.", 0.0, 1e-6, 1e-3))
    prologue_s: float = field(metadata=means("From a CTA's start until its pipeline runs.", 0.0, 0.6e-6, 1e-3))
    tile_s: float = field(
        metadata=means("Around the k loop of a 128 x 256 tile: epilogue, next tile.", 0.0, 1e-6, 1e-3)
    )
    tile_fixed_share: float = field(
        metadata=means("Share of tile_s that a tile's size does not change.", 0.0, 0.5, 1.0, "share")
    )
    k_fill: float = field(metadata=means("What fills the pipeline.", 0.0, 50.0, 1e4, "elements of k"))
    mma_efficiency: float = field(
        metadata=means("Share of the datasheet's tensor-core rate that is reached.", 0.01, 0.8, 1.0, "share")
    )
    l2_bytes_per_clock: float = field(metadata=means("From L2 into one SM.", 0.1, 50.0, 1e4, "bytes a clock and SM"))
    wave_quantisation: float = field(
        metadata=means("1 for whole waves, 0 where a partial wave costs only its share.", 0.0, 0.5, 1.0, "share")
    )
    hbm_efficiency: float = field(
        metadata=means("Share of the datasheet's HBM bandwidth that is reached.", 0.01, 0.85, 1.0, "share")
    )
    hbm_latency_s: float = field(metadata=means("Until the first bytes come from HBM.", 0.0, 1e-6, 1e-3))
    activation_hbm_share: float = field(
        metadata=means("Share of the bytes of x and y that passes through HBM.", 0.0, 0.5, 2.0, "share")
    )
    overlap_exponent: float = field(
        metadata=means(
            "Exponent of the soft maximum of arithmetic and memory; 1 adds them up.", 1.0, 4.0, 50.0, "exponent"
        )
    )
    split_s: float = field(metadata=means("What a split of k costs beside its partial sums.", 0.0, 1.5e-6, 1e-3))
    split_bytes_per_clock: float = field(
        metadata=means("Partial sums of a split, written and added.", 0.01, 15.0, 1e4, "bytes a clock and SM")
    )
    throttle_depth: float = field(
        metadata=means("Share of its clock that a long kernel loses.", 0.0, 0.1, 0.9, "share")
    )
    throttle_onset_s: float = field(metadata=means("Ideal duration at which half of it is lost.", 0.0, 1e-3, 10.0))
    gemv_launch_s: float = field(metadata=means("Start of a matrix-vector kernel.", 0.0, 2e-6, 1e-3))
    gemv_hbm_efficiency: float = field(
        metadata=means(
            "Share of the datasheet's HBM bandwidth that a matrix-vector kernel reaches.", 0.01, 0.8, 1.0, "share"
        )
    )
    gemv_l2_efficiency: float = field(
        metadata=means("The same for weights in L2, which is faster than HBM.", 0.01, 1.5, 100.0, "share of HBM's rate")
    )
    gemv_k_element_s: float = field(metadata=means("An element of k of a matrix-vector kernel.", 0.0, 0.3e-9, 1e-6))
    l2_resident_share: float = field(
        metadata=means("Share of L2's capacity up to which a replay finds its weights there.", 0.01, 0.7, 2.0, "share")
    )
    l2_resident_softness: float = field(metadata=means("Relative width of that transition.", 0.01, 0.1, 1.0, "share"))
    replay_copies: int = field(metadata=means("Copies of the weights that a benchmark replays.", 1, 5, 1000, "copies"))
    misaligned_efficiency: Mapping[str, float] = field(
        hash=False,
        metadata=holds(
            exactly(
                "What is left of the rates where rows are aligned to fewer than 16 bytes, by that alignment.",
                "8",
                "4",
                "2",
                each=Meaning("What is left of the rates.", 0.01, 0.6, 1.0, "share"),
            )
        ),
    )
    correction: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False, metadata=holds(_CORRECTION))
    only_tile_rows: int = field(
        default=0,
        metadata=means(
            "Rows of the only tile that the library has, which it never splits; 0: it chooses.", 0, 128, 1024, "rows"
        ),
    )
    only_tile_cols: int = field(default=0, metadata=means("Columns of that tile.", 0, 128, 1024, "columns"))
    serving_quantize_s: float = field(
        default=0.0, metadata=means("A serving engine's kernels that quantise x, beside its bytes.", 0.0, 4e-6, 1e-3)
    )
    serving_quantize_bytes_per_s: float = field(
        default=2e12, metadata=means("Rate at which they read and write x.", 1e9, 2e12, 1e17)
    )
    most_split: int = field(
        default=MAX_SPLIT,
        metadata=means("Most parts that the library splits k into; 1: it never does.", 1, 16, 64, "parts"),
    )
    throttle_by_limit: int = field(
        default=0,
        metadata=means(
            "1: rows were replayed until the power limit acted, so throttle_depth is that limit's.", 0, 0, 1, "0 or 1"
        ),
    )
    bias_s: float = field(default=0.0, metadata=means("What a bias costs, which comes out of HBM.", 0.0, 0.5e-6, 1e-3))
    bias_tile_s: float = field(default=0.0, metadata=means("What adding it costs a tile.", 0.0, 0.2e-6, 1e-3))
    float16_rate: float = field(
        default=1.0,
        metadata=means("Rate of tensor cores in float16 over bfloat16's.", 0.5, 0.96, 1.5, "ratio"),
    )


@lru_cache(maxsize=64)
def without_limit(c: GemmConstants) -> GemmConstants:
    """The same on a card whose power limit does not act; what a kernel loses at once stays."""
    return replace(c, throttle_depth=0.0) if c.throttle_by_limit else c
