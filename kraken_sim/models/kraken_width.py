"""The width of a Kraken model that has as many parameters as a base model.

Notation: N ways (sub-layers a layer), L layers, d_k width of a sub-layer, V vocabulary, P_max positions, r
key/value heads a query head, m matrices of an FFN (2, gated 3), FFN width 2 d_k. Parameters:

    P(d_k) = (L N (2 + 2 r + 2 m) + N) d_k² + (V + P_max + biases and norms) d_k + constants

where N d_k² is the concat projection; with multi-head attention and a plain FFN the layers are 8 L N d_k².
The equation extends Prabhakar et al., "Kraken" (arXiv 2408.07802), section 3.2, which leaves out positions,
the concat projection, biases and norms. Its positive root for the base model's count is the width wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from kraken_sim.models.counts import has_output_bias, parameter_count
from kraken_sim.models.hf import closest_divisor
from kraken_sim.models.layout import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.models.config import TransformerConfig

FFN_FACTOR = 2
"""FFN width over sub-layer width (arXiv 2408.07802, section 3.2: 2 where a standard model has 4)."""

SUPPORTED_HEAD_DIMS = (64, 80, 96, 112, 128, 160, 192, 256)
"""Head dimensions that are tried, those of common attention kernels; a choice of ours: FlashAttention-2 takes multiples
of 8 up to 256."""

PREFERRED_HEAD_DIM = 128
"""Where the model's own head dimension does not divide, those nearest to this one come first; a choice of ours."""

ALIGNMENTS = (256, 128, 64)
"""Widths are multiples of the widest GEMM tile (256 x 128 on tensor cores), or of a narrower one; a choice of ours."""

ALIGNMENT_TOLERANCE = 0.05
"""How far alignment may move the width from the budget's; a limit of ours: 5 % of the width is 10 % of a layer."""


@dataclass(frozen=True, slots=True)
class SubLayers:
    """Sub-layers whose width follows from a budget: FFN width over theirs, and whether W_concat joins them."""

    ffn_factor: float = FFN_FACTOR
    concat: bool = True

    def ffn_width(self, hidden_size: int) -> int:
        """The FFN of a sub-layer, to the nearest even number."""
        return 2 * max(1, round(self.ffn_factor * hidden_size / 2))


OF_KRAKEN = SubLayers()
"""Kraken's (arXiv 2408.07802, section 3); a definition."""


@dataclass(frozen=True, slots=True)
class Quadratic:
    """a d² + b d + c, the number of parameters of a Kraken model of width d."""

    a: float
    b: float
    c: float

    def __call__(self, width: float) -> float:
        """Parameters at a width."""
        return (self.a * width + self.b) * width + self.c

    def positive_root(self, value: float) -> float:
        """The positive width at which the quadratic equals `value`; a, b > 0 and value > c."""
        # The form that divides by the sum of two positive numbers does not cancel.
        excess = value - self.c
        return 2.0 * excess / (self.b + math.sqrt(self.b * self.b + 4.0 * self.a * excess))


def kraken_parameters(
    config: TransformerConfig, ways: int, *, biases_and_norms: bool = True, sub_layers: SubLayers = OF_KRAKEN
) -> Quadratic:
    """P(d_k) for `ways` sub-layers a layer that keep the base model's ratio of key/value to query heads."""
    factor = sub_layers.ffn_factor
    ratio = config.num_key_value_heads / config.num_attention_heads
    num_up = 2 if config.gated_ffn else 1
    blocks = config.num_hidden_layers * ways
    a = blocks * (2.0 + 2.0 * ratio + factor * (num_up + 1)) + (ways if sub_layers.concat else 0)
    b = float(config.vocab_size * (1 if config.tie_word_embeddings else 2))
    b += config.max_position_embeddings if config.position_embeddings else 0
    if not biases_and_norms:
        return Quadratic(a, b, 0.0)
    norm = 2.0 if config.norm_bias else 1.0
    per_block = 2.0 * norm
    per_block += 1.0 + 2.0 * ratio if config.attention_bias else 0.0
    per_block += 1.0 if has_output_bias(config) else 0.0
    per_block += num_up * factor + 1.0 if config.mlp_bias else 0.0
    c = float(config.vocab_size if config.lm_head_bias else 0)
    c += 2.0 * config.head_dim * blocks if config.qk_norm else 0.0
    return Quadratic(a, b + blocks * per_block + norm, c)


def budget_width(
    config: TransformerConfig,
    ways: int,
    *,
    budget: int | None = None,
    biases_and_norms: bool = True,
    sub_layers: SubLayers = OF_KRAKEN,
) -> float:
    """The width at which a Kraken model has `budget` parameters, before any rounding.

    Args:
        config: the base model; gives layers, vocabulary, positions and, without `budget`, the budget.
        ways: sub-layers a layer.
        budget: parameters to spend; default: those of the base model as a standard Transformer.
        biases_and_norms: False leaves them out of Kraken's count, as the paper's formula does.
        sub_layers: what they are like.

    Raises:
        ValueError: `ways` is not positive, or the budget does not even pay for the constant part.
    """
    if ways < 1:
        message = f"ways must be at least 1, not {ways}"
        raise ValueError(message)
    parameters = kraken_parameters(config, ways, biases_and_norms=biases_and_norms, sub_layers=sub_layers)
    wanted = parameter_count(config) if budget is None else budget
    if wanted <= parameters.c:
        message = f"a budget of {wanted} parameters is too small for this model"
        raise ValueError(message)
    return parameters.positive_root(wanted)


def kraken_hidden_size(
    config: TransformerConfig,
    ways: int,
    num_attention_heads: int | None = None,
    *,
    budget: int | None = None,
    biases_and_norms: bool = True,
) -> int:
    """The width of a sub-layer for a parameter budget, to the nearest multiple of its heads (a half goes up).

    Args:
        config: the base model.
        ways: sub-layers a layer.
        num_attention_heads: heads of one sub-layer; default: the base model's heads divided by `ways`, as the
            authors do for training.
        budget: parameters to spend; default: those of the base model.
        biases_and_norms: whether Kraken's count includes them.
    """
    heads = num_attention_heads or max(1, config.num_attention_heads // ways)
    width = budget_width(config, ways, budget=budget, biases_and_norms=biases_and_norms)
    return heads * max(1, math.floor(width / heads + 0.5))


def kraken_config_for_latency(
    config: TransformerConfig,
    ways: int,
    *,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    num_key_value_heads: int | None = None,
    intermediate_size: int | None = None,
    devices_per_sub_layer: int = 1,
    alignment: int | None = None,
    budget: int | None = None,
    sub_layers: SubLayers = OF_KRAKEN,
) -> Block:
    """A sub-layer that GEMM tiles and attention kernels fit, of a width near the parameter budget's.

    The width is the multiple of 256 nearest to the budget's, or of 128 or 64 where 256 (128) would move it by
    more than 5 % (`alignment` fixes the multiple). Heads have the base model's head dimension if kernels
    support it and it divides the width, else 128, else the supported one nearest to 128. Any of width, heads
    and key/value heads may be given instead; key/value heads otherwise keep the base model's ratio as nearly
    as divisors of the heads allow. With `devices_per_sub_layer` > 1 the heads divide by it. `intermediate_size` is the
    FFN's width, by default twice the sub-layer's (`sub_layers`); the width derived from the budget takes it to be that.

    Raises:
        ValueError: the given width has no supported head dimension, or does not divide by the given heads.
    """
    if hidden_size is None and num_attention_heads is not None:
        hidden_size = _width_for_heads(config, ways, num_attention_heads, budget, sub_layers)
    if hidden_size is None:
        width = budget_width(config, ways, budget=budget, sub_layers=sub_layers)
        candidates = _aligned_widths(width, alignment or _alignment_for(width))
        found = ((size, _head_dim_for(config, size, devices_per_sub_layer)) for size in candidates)
        hidden_size, head_dim = next((size, dim) for size, dim in found if dim is not None)
        num_attention_heads = hidden_size // head_dim
    elif num_attention_heads is None:
        fitting = _head_dim_for(config, hidden_size, devices_per_sub_layer)
        if fitting is None:
            message = f"no supported head dimension ({_listed_dims()}) divides hidden_size {hidden_size}"
            raise ValueError(message)
        num_attention_heads = hidden_size // fitting
    if hidden_size % num_attention_heads:
        message = f"hidden_size {hidden_size} does not divide by num_attention_heads {num_attention_heads}"
        raise ValueError(message)
    return Block(
        hidden_size,
        num_attention_heads,
        num_key_value_heads or _key_value_heads(config, num_attention_heads),
        hidden_size // num_attention_heads,
        intermediate_size or sub_layers.ffn_width(hidden_size),
    )


def widths_within_tolerance(config: TransformerConfig, ways: int) -> tuple[int, ...]:
    """Widths that one might pick by hand, ascending: multiples of 64 within 5 % of the parameter budget's.

    Each has a head dimension that attention kernels support (64 at least). The narrowest grid may hold none, then
    the nearest multiple stands alone.
    """
    width, step = budget_width(config, ways), ALIGNMENTS[-1]
    low = math.ceil(width * (1.0 - ALIGNMENT_TOLERANCE) / step)
    high = math.floor(width * (1.0 + ALIGNMENT_TOLERANCE) / step)
    return tuple(step * number for number in range(low, high + 1)) or (_nearest_multiple(width, step),)


def _alignment_for(width: float) -> int:
    """The coarsest alignment that moves `width` by no more than the tolerance."""
    for alignment in ALIGNMENTS[:-1]:
        if abs(_nearest_multiple(width, alignment) - width) <= ALIGNMENT_TOLERANCE * width:
            return alignment
    return ALIGNMENTS[-1]


def _nearest_multiple(width: float, step: int) -> int:
    return step * max(1, math.floor(width / step + 0.5))


def _aligned_widths(width: float, step: int) -> Iterator[int]:
    """Multiples of `step`, nearest to `width` first, the larger of two as near first; never ends."""
    start = _nearest_multiple(width, step)
    yield start
    upwards = 1 if start <= width else -1
    for distance in count(1):
        for sign in (upwards, -upwards):
            if (candidate := start + sign * distance * step) > 0:
                yield candidate


def _head_dim_for(config: TransformerConfig, hidden_size: int, devices_per_sub_layer: int) -> int | None:
    """The preferred supported head dimension that divides the width into heads for all devices."""
    preferred = sorted(SUPPORTED_HEAD_DIMS, key=lambda dim: (dim != config.head_dim, abs(dim - PREFERRED_HEAD_DIM)))
    for head_dim in preferred:
        if hidden_size % (head_dim * devices_per_sub_layer) == 0:
            return head_dim
    return None


def _width_for_heads(
    config: TransformerConfig, ways: int, heads: int, budget: int | None, sub_layers: SubLayers
) -> int:
    """The width nearest to the budget's at which `heads` heads have a supported dimension."""
    width = budget_width(config, ways, budget=budget, sub_layers=sub_layers)
    return min((heads * dim for dim in SUPPORTED_HEAD_DIMS), key=lambda size: (abs(size - width), -size))


def _key_value_heads(config: TransformerConfig, num_attention_heads: int) -> int:
    """Key/value heads of a sub-layer at the base model's ratio, as nearly as divisors allow."""
    wanted = num_attention_heads * config.num_key_value_heads / config.num_attention_heads
    return closest_divisor(num_attention_heads, wanted)


def _listed_dims() -> str:
    return ", ".join(str(dim) for dim in SUPPORTED_HEAD_DIMS)
