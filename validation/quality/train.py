"""Trains one model: from a recipe and a corpus to checkpoints, a log and its curves.

    python -m validation.quality.train RECIPE.yaml --data out/corpus --out out/run
    torchrun --nproc-per-node=4 -m validation.quality.train RECIPE.yaml --data out/corpus --out out/run

Several processes share a model (`--devices-per-model`, default all), as the architecture says: heads and FFN width, or
the sub-layers of a Kraken. What is more is data parallel. The same command goes on where a run stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from validation.command import check_positive, exit_code
from validation.models import ARCHITECTURES
from validation.progress import say
from validation.quality.corpus import open_corpus
from validation.quality.curves import write_curves
from validation.quality.log import read_log
from validation.quality.place import join
from validation.quality.recipe import read_recipe
from validation.quality.trainer import Result, Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="validation.quality.train", description="Trains one model.")
    parser.add_argument("recipe", type=Path, help="YAML file of the model and its training")
    parser.add_argument("--data", type=Path, required=True, help="corpus, made by validation.quality.corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, begun or continued")
    parser.add_argument("--devices-per-model", type=int, help="processes that share a model (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: what there is")
    parser.add_argument(
        "--peak-flops", type=float, metavar="FLOP/S", help="a device's peak, which the MFU is a part of"
    )
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="stop before; the run can go on later")
    given = parser.parse_args(argv)
    return exit_code(lambda: _train(given), given.out, "the run is as of its last checkpoint, the same command goes on")


def _train(given: argparse.Namespace) -> None:
    check_positive(given, "--devices-per-model", "--deadline", "--peak-flops")
    stop_at_s = time.monotonic() + given.deadline if given.deadline else None
    recipe = read_recipe(given.recipe, ARCHITECTURES)
    with join(given.devices_per_model, given.device) as place:
        result = Trainer(recipe, open_corpus(given.data), given.out, place, given.peak_flops).run(stop_at_s)
        if place.leads:
            write_curves(given.out / "curves.html", recipe.name, {recipe.name: read_log(given.out)})
            _tell(result, given.out)


def _tell(result: Result | None, run: Path) -> None:
    if result is None:
        say("the time is up; the same command goes on")
    elif result.diverged:
        say("the loss is no number any more: try a lower learning rate")
    else:
        say(f"perplexity {result.perplexity:.3f}, {result.bits_per_byte:.4f} bits a byte; see {run / 'curves.html'}")


if __name__ == "__main__":
    sys.exit(main())
