"""Benchmarks of a trained model by EleutherAI's lm-eval (`pip install "kraken_sim[lm-eval]"`).

    python -m validation.quality.benchmark out/run --tasks super-glue-lm-eval-v1 --num-fewshot 0
    python -m validation.quality.benchmark out/run --tasks mine --include-path tasks/

Tasks of lm-eval's own fetch their data, for which they need a network; a task of yours, in the same YAML format with
local files, needs none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.report.page import TextTable
from validation.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence


def evaluate(
    run: Path, tasks: Sequence[str], *, include_path: Path | None, num_fewshot: int | None, limit: int | None
) -> TextTable:
    """Metrics of a run's last checkpoint.

    Args:
        run: folder of a run of one device.
        tasks: names that lm-eval knows.
        include_path: folder of tasks of one's own.
        num_fewshot: examples in the prompt; default: the task's.
        limit: questions of each task; default: all.

    Raises:
        InputError: lm-eval is not installed, it does not know a task, or the run cannot be used.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from validation.quality.language_model import TrainedModel, scores_of
    except ImportError as error:
        message = f"needs lm-eval: pip install 'kraken_sim[lm-eval]' ({error.name} is missing)"
        raise InputError.single("--tasks", message) from None
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    if unknown := [task for task in tasks if not manager.match_tasks([task])]:
        raise InputError.single("--tasks", "lm-eval knows no such task", ", ".join(unknown), "super-glue-lm-eval-v1")
    model = TrainedModel(run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    results = simple_evaluate(
        model=model, tasks=list(tasks), num_fewshot=num_fewshot, limit=limit, task_manager=manager, bootstrap_iters=0
    )
    rows = [
        (task, metric, f"{value:.4f}", "-" if error is None else f"{error:.4f}")
        for task, metric, value, error in scores_of(results)
    ]
    return TextTable(f"{model.recipe.name} by lm-eval", ("task", "metric", "value", "standard error"), rows, num_left=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="validation.quality.benchmark", description="Runs lm-eval on a run of ours.")
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="names that lm-eval knows")
    parser.add_argument("--include-path", type=Path, help="folder of tasks of your own")
    parser.add_argument("--num-fewshot", type=int, help="examples in the prompt (default: the task's)")
    parser.add_argument("--limit", type=int, help="questions of each task (default: all)")
    given = parser.parse_args(argv)
    try:
        table = evaluate(
            given.run,
            given.tasks,
            include_path=given.include_path,
            num_fewshot=given.num_fewshot,
            limit=given.limit,
        )
    except KrakenSimError as error:
        say(f"error: {error}")
        return error.exit_code
    Console().print(table.rich())
    return 0


if __name__ == "__main__":
    sys.exit(main())
