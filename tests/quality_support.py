"""Small texts and recipes for the tests of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from validation.quality.corpus import Corpus, prepare
from validation.quality.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "vocab_size": 258,
    "max_position_embeddings": 16,
}
TRAINING = {
    "tokens": 12 * 4 * 16,
    "sequences_per_step": 4,
    "learning_rate": 0.01,
    "dtype": "float32",
    "log_every_steps": 2,
    "validate_every_steps": 6,
    "validation_tokens": 400,
    "checkpoint_every_steps": 5,
}
KRAKEN = {"kind": "kraken", "ways": 2}


def recipe(architecture: dict[str, Any] | None = None, **training: Any) -> Recipe:
    data = {
        "name": "tiny",
        "model": SHAPE,
        "architecture": architecture or {},
        "training": TRAINING | training,
    }
    return Recipe.model_validate(data)


def write_texts(folder: Path, count: int = 60) -> Path:
    """Files of a few hundred bytes that repeat themselves, so that there is something to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        words = [f"word{(index * 7 + place) % 11}" for place in range(40)]
        (folder / f"{index}.txt").write_text(" ".join(words))
    return folder


def byte_corpus(folder: Path) -> Corpus:
    return prepare([write_texts(folder / "texts")], folder / "corpus", vocab_size=None, validation_share=0.2)
