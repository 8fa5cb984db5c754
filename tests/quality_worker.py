"""What each process of the training test does: a few runs on several ranks, from the same weights as one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from quality_support import KRAKEN, recipe

from validation.models import build_model
from validation.models.communication import Group
from validation.models.kraken import KrakenDecoder
from validation.models.reference import random_weights
from validation.models.weights import load_weights
from validation.quality.batched_kraken import BatchedKraken
from validation.quality.corpus import open_corpus
from validation.quality.network import AllPositions
from validation.quality.place import join
from validation.quality.trainer import Trainer

if TYPE_CHECKING:
    from validation.quality.place import Place
    from validation.quality.recipe import Recipe

RUNS: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "kraken": (KRAKEN, {}),
    "standard": (None, {"accumulation": 2, "max_gradient_norm": 0.05}),
}
"""By name: architecture, and what is particular in its training."""
DEVICES_PER_MODEL = 2


def recipe_of(name: str) -> Recipe:
    architecture, training = RUNS[name]
    return recipe(architecture, tokens=6 * 64, **training)


def trainer_of(name: str, folder: Path, out: Path, place: Place) -> Trainer:
    """A trainer whose weights do not depend on how the model is spread."""
    one = recipe_of(name)
    trainer = Trainer(one, open_corpus(folder / "corpus"), out, place)
    whole = random_weights(one.architecture.kind, one.config, one.num_ways, std=0.1)
    weights = {key: x.float() for key, x in whole.items()}
    network = trainer.network
    if isinstance(network, AllPositions):
        load_weights(weights, network.decoder)
    else:
        twin = build_model("kraken", one.config, num_ways=one.num_ways, dtype=torch.float32, world=Group())
        assert isinstance(twin, KrakenDecoder)
        load_weights(weights, twin)
        network.load_state_dict(BatchedKraken(twin).state_dict())
    return trainer


def run(rank: int, size: int, folder: str) -> None:
    """One of `size` processes."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (Path(folder) / "port").read_text()}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    with join(DEVICES_PER_MODEL, "cpu") as place:
        for name in RUNS:
            trainer_of(name, Path(folder), Path(folder) / f"{name}-{size}", place).run()
