"""Decoder Transformers in PyTorch with torch.distributed: the executable reference of the architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture as registered
from kraken_sim.errors import InputError, closest
from kraken_sim.models.layout import Layout, whole_layer
from validation.models.communication import Group, world_group
from validation.models.kraken import KrakenDecoder
from validation.models.layers import initialise
from validation.models.parallel import ParallelDecoder
from validation.models.standard import StandardDecoder
from validation.models.wired import WiredDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.models.config import TransformerConfig
    from validation.models.decoder import Decoder

_PLAIN = {
    "norm_weight": True,
    "post_norms": False,
    "num_extra_positions": 0,
    "scaled_embedding": False,
    "scaled_residual": False,
    "num_logit_kernels": 0,
    "attention_windows": (),
}
"""Traits of `TransformerConfig` that the models here do not have, at what they are without."""

ARCHITECTURES = (
    *("standard", "parallel", "kraken", "ladder", "desync", "parallel_track", "sync_point_drop", "caat_net"),
    *("sequence_parallel", "domino", "token_weave"),
)


def build_model(
    architecture: str,
    config: TransformerConfig,
    *,
    num_ways: int | None = None,
    fields: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
    device: torch.device | str = "cpu",
    seed: int = 0,
    world: Group | None = None,
) -> Decoder:
    """This rank's part of a model, with random weights filled in on the device itself.

    Every rank of the default process group calls it.

    Args:
        architecture: one of `ARCHITECTURES`.
        config: the model's shape; of a Kraken or a Parallel Track, the shape of one sub-layer.
        num_ways: sub-layers of such a layer; the number of ranks when left out.
        fields: of the architecture's own, as a scenario has them, where it runs by its wiring.
        dtype: of weights and activations.
        device: where they lie; "meta" makes a model without memory, for counting.
        seed: of the random weights; replicas agree on every rank.
        world: the ranks; the default process group when left out.

    Raises:
        InputError: an unknown architecture, traits that no model here has, or shapes that do not fit the ranks.
    """
    if unknown := [name for name, plain in _PLAIN.items() if getattr(config, name) != plain]:
        message = f"the reference models have no {', '.join(unknown)}"
        raise InputError.single("model", message, example="a Llama, Qwen or GPT-like model")
    ranks = world_group() if world is None else world
    with torch.device("meta"):
        model = _construct(architecture, config, num_ways, fields or {}, ranks)
    model.to(dtype)
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
        initialise(model, seed)
    return model.eval()


def _construct(
    architecture: str, config: TransformerConfig, num_ways: int | None, fields: Mapping[str, Any], world: Group
) -> Decoder:
    if architecture == "standard":
        return StandardDecoder(config, world)
    if architecture == "parallel":
        return ParallelDecoder(config, world)
    if architecture == "kraken":
        return KrakenDecoder(config, world.size if num_ways is None else num_ways, world)
    if architecture in ARCHITECTURES:
        record, own = registered(architecture), registered(architecture).own(**fields)
        if record.written is not None:
            own = record.written(own, Layout(whole_layer(config), world.size, num_ways or world.size))
        layout = record.layout(Question(config, world.size, own))
        assert record.wiring is not None
        wiring = record.wiring(layout, config.num_hidden_layers)
        return WiredDecoder(config, wiring, world, layout.blocks_per_layer)
    suggestion = closest(architecture, ARCHITECTURES)
    raise InputError.single("architecture", "unknown", architecture, "standard", suggestion)
