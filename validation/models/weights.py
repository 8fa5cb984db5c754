"""Whole models as plain dictionaries of tensors, and the part of them that a rank's model holds.

Names: `embeddings.tokens`, `embeddings.positions`, `layers.{layer}.{way}.{part}.{weight|bias}` with the parts
attention_norm, query, key, value, query_norm, key_norm, out, ffn_norm, gate, up, down as far as the model has them,
then `concat.*` (Kraken), `final_norm.*` and `unembedding.weight` (untied). Standard and parallel models have way 0
only. Matrices are [outputs, inputs].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kraken_sim.models.counts import has_output_bias
from validation.models.kraken import KrakenDecoder
from validation.models.parallel import ParallelDecoder
from validation.models.sharding import split_heads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kraken_sim.models.config import TransformerConfig
    from validation.models.decoder import Decoder


def weight_shapes(architecture: str, config: TransformerConfig, num_ways: int = 1) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a whole model, biases included where it has them.

    `config` is the shape of the model; of a Kraken, that of one sub-layer.
    """
    d = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.tokens": (config.vocab_size, d),
    }
    if config.position_embeddings:
        shapes["embeddings.positions"] = (config.max_position_embeddings, d)
    for layer in range(config.num_hidden_layers):
        for way in range(num_ways):
            block = _block_shapes(architecture, config)
            shapes |= {f"layers.{layer}.{way}.{name}": shape for name, shape in block.items()}
    if architecture == "kraken":
        shapes["concat.weight"] = (d, num_ways * d)
        if config.mlp_bias:
            shapes["concat.bias"] = (d,)
    shapes |= {f"final_norm.{part}": (d,) for part in _norm_parts(config)}
    if not config.tie_word_embeddings:
        shapes["unembedding.weight"] = (config.vocab_size, d)
    return shapes


def _norm_parts(config: TransformerConfig) -> tuple[str, ...]:
    return ("weight", "bias") if config.norm_bias else ("weight",)


def _block_shapes(architecture: str, config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    d, f, e = config.hidden_size, config.intermediate_size, config.head_dim
    query, kv = config.num_attention_heads * e, config.num_key_value_heads * e
    matrices = {"query": (query, d), "key": (kv, d), "value": (kv, d), "out": (d, query), "up": (f, d)}
    matrices["down"] = (d, f)
    if config.gated_ffn:
        matrices["gate"] = (f, d)
    parallel = architecture == "parallel"
    norms = ["attention_norm"] if parallel else ["attention_norm", "ffn_norm"]
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    has_bias = dict.fromkeys(("query", "key", "value"), config.attention_bias)
    has_bias |= {"out": has_output_bias(config), "gate": config.mlp_bias, "up": config.mlp_bias}
    # A parallel layer has one output bias, which W_out carries.
    has_bias["down"] = config.mlp_bias and not parallel
    shapes |= {f"{name}.bias": (matrices[name][0],) for name in matrices if has_bias[name]}
    if config.qk_norm:
        shapes |= {"query_norm.weight": (e,), "key_norm.weight": (e,)}
    return shapes | {f"{name}.{part}": (d,) for name in norms for part in _norm_parts(config)}


def shard_weights(whole: Mapping[str, Tensor], model: Decoder) -> dict[str, Tensor]:
    """The state dict of this rank's `model`, cut out of a whole model's weights (or gradients)."""
    state: dict[str, Tensor] = {}
    rows = model.embeddings.tokens.num_embeddings
    state["embeddings.tokens.weight"] = _pad_rows(whole["embeddings.tokens"], rows)
    if model.embeddings.positions is not None:
        state["embeddings.positions.weight"] = whole["embeddings.positions"]
    for placement in model.placements():
        prefix = f"layers.{placement.layer}.{placement.way}."
        block = {name[len(prefix) :]: x for name, x in whole.items() if name.startswith(prefix)}
        state |= {f"{placement.module}.{name}": x for name, x in _block(block, model).items()}
    if isinstance(model, KrakenDecoder):
        state |= _concat(whole, model)
    state |= {f"head.norm.{part}": whole[f"final_norm.{part}"] for part in _norm_parts(model.config)}
    if model.head.unembedding is not None:
        padded = _pad_rows(whole["unembedding.weight"], rows)
        state["head.unembedding.weight"] = padded.chunk(model.world.size)[model.world.rank]
    return state


def load_weights(whole: Mapping[str, Tensor], model: Decoder) -> None:
    """Puts a whole model's weights into this rank's part."""
    model.load_state_dict(shard_weights(whole, model))


def _block(block: Mapping[str, Tensor], model: Decoder) -> dict[str, Tensor]:
    """One (sub-)layer: heads and FFN width are cut for the tensor group, norms are whole."""
    config, tensor = model.config, model.tensor
    heads, e = split_heads(config, tensor.rank, tensor.size), config.head_dim
    queries = slice(heads.first_head * e, (heads.first_head + heads.num_heads) * e)
    kv = slice(heads.first_kv_head * e, (heads.first_kv_head + heads.num_kv_heads) * e)
    width = config.intermediate_size // tensor.size
    inner = slice(tensor.rank * width, (tensor.rank + 1) * width)
    parallel = isinstance(model, ParallelDecoder)
    state = {}
    for part in ("weight", "bias"):
        if f"query.{part}" in block:
            qkv = [block[f"query.{part}"][queries], block[f"key.{part}"][kv], block[f"value.{part}"][kv]]
            state[f"attention.qkv.{part}"] = torch.cat(qkv)
        if f"up.{part}" in block:
            rows = [block[f"{name}.{part}"][inner] for name in ("gate", "up") if f"{name}.{part}" in block]
            state[f"ffn.up.{part}"] = torch.cat(rows)
    for part in _norm_parts(config):
        state[("norm." if parallel else "attention_norm.") + part] = block[f"attention_norm.{part}"]
        if not parallel:
            state[f"ffn_norm.{part}"] = block[f"ffn_norm.{part}"]
    if config.qk_norm:
        state |= {f"attention.{name}.weight": block[f"{name}.weight"] for name in ("query_norm", "key_norm")}
    state["attention.out.weight"] = block["out.weight"][:, queries]
    state["ffn.down.weight"] = block["down.weight"][:, inner]
    for name, module in (("out", "attention.out"), ("down", "ffn.down")):
        if f"{name}.bias" in block:
            state[f"{module}.bias"] = _on_first(block[f"{name}.bias"], tensor.rank)
    return state


def _concat(whole: Mapping[str, Tensor], model: KrakenDecoder) -> dict[str, Tensor]:
    d, tensor = model.config.hidden_size, model.tensor
    width = d // tensor.size
    state = {}
    for i, way in enumerate(model.layout.ways):
        start = way * d + tensor.rank * width
        state[f"concat.{i}.weight"] = whole["concat.weight"][:, start : start + width]
    if "concat.bias" in whole:
        state["concat.0.bias"] = _on_first(whole["concat.bias"], model.world.rank)
    return state


def _on_first(bias: Tensor, rank: int) -> Tensor:
    """Of summed outputs only the first rank adds the bias."""
    return bias if rank == 0 else torch.zeros_like(bias)


def _pad_rows(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(rows - x.shape[0], x.shape[1])])
