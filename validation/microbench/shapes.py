"""The shapes that are measured: those of the presets on 1 to 8 ways, and odd ones that are nobody's."""

from __future__ import annotations

import hashlib
import math
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.models.kraken_width import kraken_config_for_latency
from kraken_sim.models.presets import PRESETS, preset

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCAB_SIZE: Final = 51_200
ROWS: Final = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
WAYS: Final = (1, 2, 4, 8)
_MAIN_ROWS: Final = frozenset({128, 512, 2048})


def kraken_width(name: str, ways: int) -> int:
    """Width of a sub-layer of the preset's Kraken, as the whole passes have it."""
    return kraken_config_for_latency(preset(name), ways).hidden_size


class GemmShape(NamedTuple):
    """y[m, n] = x[m, k] · Wᵀ, and what follows it in the same kernel."""

    m: int
    n: int
    k: int
    epilogue: str = "bias"


def layer_matrices(hidden_size: int, ways: int) -> list[tuple[int, int]]:
    """(n, k) of QKV, W_out, W1, W2 of a standard layer's share on one of `ways` devices."""
    d, share = hidden_size, hidden_size // ways
    return [(3 * share, d), (d, share), (4 * share, d), (d, 4 * share)]


def kraken_matrices(width: int) -> list[tuple[int, int]]:
    """(n, k) of QKV, W_out (and W_concat, which is as large), W1, W2 of a Kraken sub-layer."""
    return [(3 * width, width), (width, width), (2 * width, width), (width, 2 * width)]


def preset_gemms(max_flops: float = 1.2e13) -> list[GemmShape]:
    """GEMMs of all presets, most telling first; a fixed pseudo-random part of the less telling ones."""
    ranked: dict[GemmShape, float] = {}
    for name, (_, hidden_size, _) in PRESETS.items():
        large = hidden_size >= PRESETS["1.3B"][1]
        for ways in WAYS:
            matrices = layer_matrices(hidden_size, ways)
            kraken = kraken_matrices(kraken_width(name, ways)) if ways > 1 else []
            for n, k in matrices + kraken:
                for m in ROWS:
                    shape = GemmShape(m, n, k)
                    rank = _rank(shape, large=large, ways=ways, kraken=(n, k) in kraken)
                    if rank is not None and 2.0 * m * n * k <= max_flops:
                        ranked[shape] = min(rank, ranked.get(shape, math.inf))
            if ways > 1 and large:
                accumulated = [GemmShape(m, hidden_size, 4 * hidden_size // ways, "accumulate") for m in (128, 2048)]
                ranked |= dict.fromkeys(accumulated, 2.0)
            ranked[GemmShape(1, VOCAB_SIZE // ways, hidden_size, "none")] = 1.5
            if ways > 1:
                ranked[GemmShape(1, VOCAB_SIZE // ways, kraken_width(name, ways), "none")] = 1.5
    return sorted(ranked, key=lambda shape: (ranked[shape], spread(shape)))


def _rank(shape: GemmShape, *, large: bool, ways: int, kraken: bool) -> float | None:
    """Lower is measured earlier, None not at all."""
    if shape.m in _MAIN_ROWS and large:
        return 0.0 if ways == 2 else 1.0
    keep = 0.34 if large and (ways in (2, 4) or kraken) else 0.16
    return 2.0 + (shape.m not in _MAIN_ROWS) if spread(shape) < keep else None


def spread(shape: tuple[object, ...]) -> float:
    """A number in [0, 1) that depends on the shape alone."""
    digest = hashlib.blake2b(repr(tuple(shape)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def odd_gemms(count: int, seed: int = 20240807) -> list[GemmShape]:
    """Random shapes: m, n, k log-uniform, n and k multiples of 8, 64 or 128."""
    generator = random.Random(seed)
    found: dict[GemmShape, None] = {}
    while len(found) < count:
        m = round(_log_uniform(generator, 1, 8192))
        n, k = (_multiple(generator, _log_uniform(generator, 64, 16384)) for _ in range(2))
        if 2.0 * m * n * k < 2.5e12:
            found[GemmShape(m, n, k)] = None
    return list(found)


def _log_uniform(generator: random.Random, low: float, high: float) -> float:
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _multiple(generator: random.Random, value: float) -> int:
    step = generator.choice((8, 64, 128))
    return max(64, round(value / step) * step)


class AttentionShape(NamedTuple):
    """Sizes of one attention; prefill where q_len == kv_len."""

    batch: int
    q_len: int
    kv_len: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


HEADS: Final = (1, 2, 3, 4, 6, 8, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
LENGTHS: Final = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
_GROUPED: Final = ((32, 8), (64, 8), (16, 4), (8, 2), (28, 4), (8, 1))


def prefill_attentions() -> list[AttentionShape]:
    """Prefill shapes, most telling first."""
    plain = [
        AttentionShape(1, length, length, heads, heads, head_dim)
        for head_dim in (128, 64)
        for length in LENGTHS
        for heads in HEADS
        if length in _MAIN_ROWS or spread(("attention", length, heads, head_dim)) < 0.3
    ]
    # Every head count at the main lengths for one head size, half of them for the other.
    plain = [s for s in plain if s.head_dim == 128 or s.q_len not in _MAIN_ROWS or spread(s) < 0.5]
    plain.sort(key=lambda shape: (shape.q_len not in _MAIN_ROWS, shape.head_dim != 128, spread(shape)))
    grouped = [
        AttentionShape(1, length, length, heads, kv_heads, 128)
        for heads, kv_heads in _GROUPED
        for length in (128, 512, 2048, 8192)
    ]
    batched = [
        AttentionShape(batch, length, length, heads, heads, head_dim)
        for batch in (2, 4)
        for length, heads, head_dim in ((128, 16, 128), (512, 14, 128), (512, 32, 64), (2048, 8, 128), (2048, 40, 128))
    ]
    other = [
        AttentionShape(1, length, length, heads, heads, head_dim)
        for head_dim in (80, 96, 112)
        for length in (128, 1024, 4096)
        for heads in (8, 32)
    ]
    return plain + grouped + batched + other


def decode_attentions(max_cache_bytes: int = 5 << 30) -> list[AttentionShape]:
    """One new token over caches of many lengths and batches, most telling first."""
    found = [
        AttentionShape(batch, 1, kv_len, heads, kv_heads, 128)
        for heads, kv_heads in ((16, 16), (32, 32), (14, 14), (32, 8), (4, 4), (56, 56))
        for kv_len in (128, 512, 2048, 8192, 16384)
        for batch in (1, 4, 16, 64)
        if 4 * batch * kv_len * kv_heads * 128 <= max_cache_bytes // 3
    ]
    return [shape for shape in sorted(found, key=spread) if spread((*shape, "keep")) < 0.6]


def memory_bound_widths() -> list[int]:
    """Activation widths of the presets and their Krakens, smallest first."""
    widths = {hidden_size for _, hidden_size, _ in PRESETS.values()}
    widths |= {kraken_width(name, ways) for name in ("1.3B", "6.7B", "65B", "175B") for ways in (2, 8)}
    return sorted(widths)


def memory_bound_shapes() -> Iterator[tuple[str, int, int]]:
    """(function, tokens, width): all for norm and add, a fixed pseudo-random half or so for the others."""
    widths = memory_bound_widths()
    for tokens in (128, 512, 2048, 1, 16, 8192):
        for function in ("norm", "add", "gelu", "kv_write", "copy", "embedding"):
            for width in widths:
                keep = 1.0 if function in ("norm", "add") and tokens in _MAIN_ROWS else 0.45
                real_width = 4 * width if function == "gelu" and width <= 8192 else width
                if spread((function, tokens, width)) < keep:
                    yield function, tokens, real_width


def all_reduce_sizes() -> list[int]:
    """Powers of two from 1 KiB to 512 MiB first, then activations of the presets, then sizes in between."""
    powers = [1 << exponent for exponent in range(10, 30)]
    widths = memory_bound_widths()
    activations = sorted(tokens * width * 2 for tokens in (1, 128, 512, 2048) for width in widths)
    between = [3 << exponent for exponent in range(11, 28)]
    return list(dict.fromkeys([*powers, *activations, *between]))
