"""Where a run stands, on the disk: every rank's part of it, and last a small file that says that all of it is there.

    checkpoint/step-1200/rank-0.pt ...   what each rank of one model holds
    checkpoint/latest.json               step, ranks, recipe, corpus; written whole and after all parts

A process that is killed at any moment leaves the checkpoint before or the one after, never half of one.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from pydantic import ValidationError

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole
from validation.quality.recipe import Recipe, refuse_other

if TYPE_CHECKING:
    from pathlib import Path

    from validation.quality.corpus import Corpus
    from validation.quality.place import Place

FOLDER = "checkpoint"
LATEST = "latest.json"


@dataclass(frozen=True, slots=True)
class Latest:
    """What `latest.json` says."""

    step: int
    ranks: int
    recipe: Recipe
    corpus_digest: str


def save(run: Path, place: Place, step: int, recipe: Recipe, corpus: Corpus, state: dict[str, Any]) -> None:
    """Every rank calls it; when it returns the checkpoint is on the disk, and the one before is gone."""
    folder = run / FOLDER / f"step-{step}"
    if place.data.rank == 0:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(folder / f"rank-{place.model.rank}.pt", buffer.getvalue())
    if place.world.size > 1:
        dist.barrier()
    if not place.leads:
        return
    data = {"step": step, "ranks": place.model.size, "corpus": corpus.digest, "recipe": recipe.model_dump()}
    write_whole(run / FOLDER / LATEST, json.dumps(data, indent=1).encode())
    for other in (run / FOLDER).glob("step-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def latest(run: Path) -> Latest | None:
    """The last checkpoint of a run, if it has one.

    Raises:
        InputError: there is one that cannot be read.
    """
    path = run / FOLDER / LATEST
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        return Latest(int(data["step"]), int(data["ranks"]), Recipe.model_validate(data["recipe"]), data["corpus"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"cannot be read ({type(error).__name__}); remove the folder to begin anew"
        raise InputError.single("--out", message, str(path)) from None


def load(run: Path, found: Latest, rank: int, device: torch.device) -> dict[str, Any]:
    """One rank's part of a checkpoint.

    Raises:
        InputError: it is missing or damaged.
    """
    path = run / FOLDER / f"step-{found.step}" / f"rank-{rank}.pt"
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises what its readers raise: zip, pickle, runtime and OS errors
        message = f"cannot be read ({type(error).__name__}); remove the folder to begin anew"
        raise InputError.single("--out", message, str(path)) from None
    return state


def check(run: Path, recipe: Recipe, corpus: Corpus) -> Latest | None:
    """The last checkpoint of a run, if it has one, which is of this recipe and this text.

    Raises:
        InputError: it is of another.
    """
    found = latest(run)
    if found is None:
        return None
    refuse_other(found.recipe, recipe, str(run / FOLDER))
    if found.corpus_digest != corpus.digest:
        message = "is not the text that the checkpoint was trained on"
        raise InputError.single("--data", message, str(corpus.folder))
    return found


def resume(run: Path, place: Place, recipe: Recipe, corpus: Corpus) -> tuple[int, dict[str, Any]] | None:
    """Step and state to go on from, or None where the run is new.

    Raises:
        InputError: the run was another one: recipe, text or ranks differ.
    """
    found = check(run, recipe, corpus)
    if found is None:
        return None
    if found.ranks != place.model.size:
        message = f"the checkpoint is of {found.ranks} devices that share a model"
        raise InputError.single("--devices-per-model", message, place.model.size, str(found.ranks))
    return found.step, load(run, found, place.model.rank, place.device)
