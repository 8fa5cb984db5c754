"""The model of a recipe, ready to train, and what a step of it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kraken_sim.errors import InputError
from validation.models import build_model
from validation.models.communication import Group
from validation.models.kraken import KrakenDecoder
from validation.quality.batched_kraken import BatchedKraken
from validation.quality.recipe import KRAKEN

if TYPE_CHECKING:
    from validation.models.decoder import Decoder
    from validation.quality.recipe import Recipe


class AllPositions(nn.Module):
    """A decoder that answers with every token's logits."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T] to this rank's columns [B, T, V/N]."""
        logits: Tensor = self.decoder(input_ids, all_positions=True)
        return logits


def build_network(recipe: Recipe, group: Group, device: torch.device | str) -> nn.Module:
    """This rank's part of the recipe's model, in float32, from ids [B, T] to logits [B, T, V/N].

    A Kraken on one device runs its sub-layers batched.

    Raises:
        InputError: a shape that does not fit the ranks, or an experiment that only one device can do.
    """
    architecture, config = recipe.architecture, recipe.config
    if architecture.kind == KRAKEN and group.size > 1:
        _check_spread(recipe, group.size)
    seed = recipe.training.seed
    decoder = build_model(
        architecture.kind,
        config,
        num_ways=architecture.ways,
        dtype=torch.float32,
        device=device,
        seed=seed,
        world=group,
    )
    if isinstance(decoder, KrakenDecoder) and group.size == 1:
        return BatchedKraken(decoder, architecture.received).train()
    return AllPositions(decoder).train()


def _check_spread(recipe: Recipe, ranks: int) -> None:
    if recipe.num_ways % ranks:
        message = f"must be a multiple of the {ranks} devices that share a model in training"
        raise InputError.single("architecture.ways", message, recipe.num_ways, str(ranks))
    if recipe.architecture.received != "norm":
        message = "is tried on one device only"
        raise InputError.single("architecture.received", message, recipe.architecture.received, "norm")


def num_parameters(recipe: Recipe) -> int:
    """All parameters of the whole model; tied embeddings count once."""
    network = build_network(recipe, Group(), "meta")
    return sum(parameter.numel() for parameter in network.parameters())


def flops_per_token(recipe: Recipe) -> float:
    """Floating-point operations of training on one token: three times those of a forward pass.

    Two a weight of every matrix, the unembedding among them, and 2 T d a (sub-)layer for causal attention
    (Chowdhery et al., "PaLM", arXiv 2204.02311, appendix B, with half of the scores).
    """
    config, ways = recipe.config, recipe.num_ways
    d, f = config.hidden_size, config.intermediate_size
    blocks = config.num_hidden_layers * ways
    matrices = blocks * (4 * d * d + 2 * d * f) + config.vocab_size * d
    matrices += ways * d * d if recipe.architecture.kind == KRAKEN else 0
    return 3.0 * (2.0 * matrices + 2.0 * blocks * config.max_position_embeddings * d)


def check_vocabulary(recipe: Recipe, vocab_size: int) -> None:
    """A model needs a row for every token of the text.

    Raises:
        InputError: it has fewer.
    """
    if recipe.model.vocab_size < vocab_size:
        message = f"is less than the {vocab_size} tokens of the corpus"
        raise InputError.single("model.vocab_size", message, recipe.model.vocab_size, str(vocab_size))
