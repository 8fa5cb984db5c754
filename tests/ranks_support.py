"""Processes with torch, side by side, that tests start as the ranks of one run."""

from __future__ import annotations

from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def run_ranks(function: Callable[..., None], size: int, *arguments: object) -> None:
    """Calls `function(rank, *arguments)` in `size` processes and waits; an error in one is raised here.

    They begin as copies of one process that has imported torch, which takes as long as what a rank does here.
    """
    import torch.multiprocessing as mp

    get_context("forkserver").set_forkserver_preload(["torch.distributed", "validation.passes"])
    start: Any = mp.start_processes  # type: ignore[attr-defined]  # torch lists no types for it
    start(function, args=arguments, nprocs=size, start_method="forkserver")
