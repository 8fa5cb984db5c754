"""How an attention op is cut into tiles, CTAs and splits, before any constant of a GPU enters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kraken_sim.program.many import least, maths_for, same, where, whole_part

if TYPE_CHECKING:
    from kraken_sim.costs.types import Number
    from kraken_sim.program.ops import Attention

DECODE_Q_LEN = 1
"""New tokens a sequence in a decode step; a definition."""

_ROW_GRANULE = 16
"""Rows that a tensor core computes at a time: those of `mma.m16n8k16` (PTX ISA)."""

_BLOCK_TOKENS = 128
"""Cached tokens that are worth a CTA: `kMinHistoryTokensPerBlock` of TensorRT-LLM's decoderXQAConstants.h. That a
packed CTA also walks over its tokens in steps of that many is assumed."""

_PACKED_ROWS = 8
"""Query heads in the smallest tile of a packed kernel: TensorRT-LLM has its XQA kernels for 8, 16 and 32 (`m_8`, `m_16`
and `m_32` in the names of xqa_kernel_cubin.h)."""

_MOST_PACKED_ROWS = 32
"""Query heads in the largest tile of a packed kernel (`m_32`, as above). That a larger group takes several tiles of so
many also in FlashAttention, whose tiles have 64 or 128 rows, is assumed: no larger one is measured."""

_SHARED_ROWS = 64
"""Query heads of a group in a tile of the shared kernel: the rows of cuDNN's smallest tile (knob_7_64x... in the names
of its sm80 kernels); no larger group is measured."""

_CROWDED_CTAS_PER_SM = 2
"""CTAs an SM above which a decode kernel pays `crowded_s`. Assumed: the decode constants were fitted with it."""

_ENOUGH_BLOCKS_PER_SM = 4
"""A packed kernel is worth it when this many times its blocks of cached tokens reach the number of SMs:
`kEnableMinBlockFactor` of TensorRT-LLM's decoderXQAConstants.h."""

_LEAST_HEAD_DIM = 32
"""Elements that a decode kernel computes for the narrowest head, one for each thread of a warp; assumed."""


class Tiling(NamedTuple):
    """One CTA holds `q_tile` query rows and walks over the keys in steps of `kv_tile` rows."""

    q_tile: int
    kv_tile: int
    ctas_per_sm: int


def tiling_of(generation: str, head_dim: int) -> Tiling:
    """Tiles that flash-attention kernels use.

    Source: FlashAttention-2 `flash_fwd_launch_template.h` (Ampere, Ada: 128 x 64 rows with two CTAs an SM up to
    head dimension 128), FlashAttention-3 `tile_size.h` and cuDNN (Hopper and later: 128 x 128, one CTA an SM).
    """
    if generation in ("hopper", "blackwell"):
        return Tiling(128, 128 if head_dim <= 128 else 64, 1)
    if generation in ("ampere", "ada"):
        return Tiling(128, 64, 2 if head_dim <= 128 else 1)
    return Tiling(64, 64, 2 if head_dim <= 128 else 1)


class PrefillWork(NamedTuple):
    """Tiles of a prefill; all counts over the whole op.

    `tiles` CTAs' worth of work with `steps` products of a query tile with a key tile in all, `longest` in the
    longest CTA; `q_rows`, `kv_rows` and `fill` (share of the query tile) describe one tile.
    """

    tiles: Number
    steps: Number
    longest: Number
    q_rows: Number
    kv_rows: Number
    fill: Number
    head_dim: Number
    num_bytes: Number
    serving_q_bytes: Number
    serving_kv_bytes: Number


class DecodeWork(NamedTuple):
    """Split key/value streams of a decode step.

    `ctas` streams cut into `splits` parts of `tokens_per_part` each; `waves` CTAs an SM one after the other;
    `crowded` 1 when more than a few streams share an SM; `blocks` of 128 cached tokens over all packed streams;
    `head_dim` as the kernel pads it; `group_tiles` further blocks of 8 query rows of a packed group; `kv_bytes` is
    the cache once, `reread_bytes` what a kernel reads that does not share it among the query heads of a group.
    """

    ctas: Number
    splits: Number
    waves: Number
    crowded: Number
    tokens_per_part: Number
    blocks: Number
    head_dim: Number
    group_tiles: Number
    kv_bytes: Number
    reread_bytes: Number


def is_decode(op: Attention) -> bool:
    """Whether the op is one new token per sequence that attends to a cache."""
    return (op.q_len == DECODE_Q_LEN) & (op.kv_len > op.q_len)


def attended_pairs(op: Attention) -> Number:
    """(query, key) pairs of one head of one sequence that are not masked away."""
    if not op.causal:
        return 1.0 * op.q_len * op.kv_len
    maths = maths_for(op.q_len, op.kv_len)
    first = maths.maximum(0, op.kv_len - op.q_len) + 1
    rows = maths.minimum(op.q_len, op.kv_len)
    if op.window is not None and first + rows - 1 > op.window:
        growing = max(0, op.window - first)
        return growing * (first + op.window - 1) / 2.0 + float(rows - growing) * op.window
    return rows * (first + maths.minimum(op.kv_len, first + rows - 1)) / 2.0


def within_window(op: Attention) -> Attention:
    """The op without the keys that none of its queries attends to; a decode step is one of a shorter cache then.

    That kernels read and multiply no other tiles of keys is what FlashAttention's `window_size` and the paged kernels
    of serving engines do (github Dao-AILab/flash-attention); no windowed kernel was measured here.
    """
    if op.window is None:
        return op
    whole = is_decode(op) or op.window >= op.kv_len
    return replace(op, kv_len=op.seen_len, window=None if whole else op.window)


def attention_flops(op: Attention) -> Number:
    """Floating-point operations of both products over the unmasked pairs."""
    return 4.0 * op.batch * op.num_heads * op.head_dim * attended_pairs(op)


def prefill_work(op: Attention, tiling: Tiling, num_sms: int) -> PrefillWork:
    """Cuts a prefill (or a chunk of one) into tiles; causal tiles skip the keys they may not see.

    A chunk that fills less than half of the SMs is split along the keys, as FlashAttention's split-KV does.
    """
    q_tiles = -(-op.q_len // tiling.q_tile)
    kv_tiles = -(-op.kv_len // tiling.kv_tile)
    steps, longest = _causal_steps(op, tiling, q_tiles) if op.causal else (q_tiles * kv_tiles, kv_tiles)
    heads = op.batch * op.num_heads
    minimum = maths_for(heads, q_tiles, op.kv_len).minimum
    splittable = (op.q_len < op.kv_len) & (2 * heads * q_tiles <= num_sms)
    splits = where(splittable, minimum(num_sms // (heads * q_tiles), longest), 1)
    q_rows = minimum(tiling.q_tile, _granules(op.q_len))
    item = op.dtype.num_bytes
    q_elements = 1.0 * op.batch * op.q_len * op.num_heads * op.head_dim
    kv_elements = 2.0 * op.batch * op.kv_len * op.num_kv_heads * op.head_dim
    new_kv_elements = kv_elements * minimum(1.0, op.q_len / op.kv_len)
    return PrefillWork(
        tiles=1.0 * (heads * q_tiles * splits),
        steps=1.0 * (heads * steps),
        longest=1.0 * -(-longest // splits),
        q_rows=1.0 * q_rows,
        kv_rows=1.0 * minimum(tiling.kv_tile, _granules(op.kv_len)),
        fill=q_rows / tiling.q_tile,
        head_dim=1.0 * op.head_dim,
        num_bytes=(2.0 * q_elements + kv_elements) * item,
        serving_q_bytes=2.0 * q_elements * item,
        serving_kv_bytes=new_kv_elements * (item + op.kv_num_bytes),
    )


def _causal_steps(op: Attention, tiling: Tiling, q_tiles: Number) -> tuple[Number, Number]:
    """Key tiles seen by all query tiles of one head, and by the one that sees most."""
    offset = op.kv_len - op.q_len
    last = -(-op.kv_len // tiling.kv_tile)
    q, kv = tiling.q_tile, tiling.kv_tile
    if op.window is not None:
        ends = [min(last, max(1, -(-(offset + (index + 1) * q) // kv))) for index in range(q_tiles)]
        counts = [end - max(0, offset + index * q - op.window + 1) // kv for index, end in enumerate(ends)]
        return sum(counts), max(counts)
    if q % kv == 0 and least(offset) >= 0:
        # ceil((offset + (i + 1) q) / kv) is linear in i
        first, step = -(-(offset + q) // kv), q // kv
        full = q_tiles - 1
        return full * first + step * full * (full - 1) // 2 + last, last
    counts = [min(last, max(1, -(-(offset + (index + 1) * q) // kv))) for index in range(q_tiles)]
    return sum(counts), max(counts)


def _granules(rows: Number) -> Number:
    """Rows that tensor cores compute for `rows` of them."""
    return -(-rows // _ROW_GRANULE) * _ROW_GRANULE


def _padded(head_dim: int) -> int:
    """Elements that decode kernels compute for a head: a power of two."""
    return max(_LEAST_HEAD_DIM, 1 << (head_dim - 1).bit_length())


def packs_group(op: Attention, num_sms: int, max_group: int, serving: bool) -> bool:
    """Whether a CTA serves several query heads of a key/value head.

    FlashAttention's decode kernels always do: they take the query heads of a group for rows of a tile
    (`seqlenq_ngroups_swapped` of FlashAttention-2 and PyTorch, `PackGQA` of FlashAttention-3), whatever their number.
    TensorRT-LLM, as public tables have it, keeps its one-CTA-a-query-head kernel while the packed one has too few
    CTAs (`xqaDispatcher`/`decoderXQARunner.h`, `mayHavePerfGain`), and for groups larger than `max_group`.
    """
    group = op.num_heads // op.num_kv_heads
    if not serving:
        return bool(same(group > 1))
    if group <= 1:
        return False
    if group > max_group:
        return False
    blocks = op.batch * op.num_kv_heads * max(1, op.kv_len // _BLOCK_TOKENS)
    return _ENOUGH_BLOCKS_PER_SM * blocks >= num_sms


def decode_work(
    op: Attention,
    packed: bool,
    num_sms: int,
    splits_per_sm: float,
    tokens_per_split: float,
    max_group: int = _MOST_PACKED_ROWS,
) -> DecodeWork:
    """Cuts the cached tokens of a decode step into parallel parts.

    Streams are split while there are fewer than `splits_per_sm` CTAs an SM and each part keeps at least
    `tokens_per_split` tokens; the kernel with one CTA a query head splits only when it leaves SMs idle. A packed group
    of more than `max_group` query heads takes several tiles, each a CTA of its own that walks over the same tokens.
    """
    group = op.num_heads // op.num_kv_heads
    tiles = -(-group // max_group) if packed else group
    ctas = op.batch * op.num_kv_heads * tiles
    maths = maths_for(ctas, op.kv_len)
    wanted = maths.minimum(whole_part(splits_per_sm * num_sms / ctas), whole_part(op.kv_len / tokens_per_split))
    splits = where(packed | (ctas < num_sms), maths.maximum(1, wanted), 1)
    launched = ctas * splits
    kv_bytes = 2.0 * op.batch * op.num_kv_heads * op.kv_len * op.head_dim * op.kv_num_bytes
    rows = _PACKED_ROWS
    while packed and same(rows < -(-group // tiles)):
        rows *= 2
    return DecodeWork(
        ctas=1.0 * ctas,
        splits=1.0 * splits,
        # packed CTAs fill an SM each and come in whole waves, the small ones trickle
        waves=1.0 * -(-launched // num_sms) if packed else launched / num_sms,
        crowded=1.0 * (ctas > _CROWDED_CTAS_PER_SM * num_sms),
        tokens_per_part=op.kv_len / splits,
        blocks=1.0 * (ctas * -(-op.kv_len // _BLOCK_TOKENS)) if packed else 0.0,
        head_dim=float(_padded(same(op.head_dim))),
        group_tiles=float(rows // _PACKED_ROWS - 1) if packed else 0.0,
        kv_bytes=kv_bytes,
        reread_bytes=kv_bytes * (tiles - 1) if packed else kv_bytes * group,
    )


def shared_work(op: Attention, num_sms: int, splits_per_sm: float, tokens_per_split: float) -> DecodeWork:
    """The same of the shared kernel, which takes as long for a group of query heads as for one."""
    tiles = -(-(op.num_heads // op.num_kv_heads) // _SHARED_ROWS)
    alone = replace(op, num_heads=op.num_kv_heads * tiles, num_kv_heads=op.num_kv_heads * tiles)
    work = decode_work(alone, False, num_sms, splits_per_sm, tokens_per_split)
    kv_bytes = work.kv_bytes / tiles
    return work._replace(kv_bytes=kv_bytes, reread_bytes=work.kv_bytes - kv_bytes)
