"""A small question about a purchase, and changes of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import yaml

from kraken_sim.explore.procure.request import ProcureRequest

if TYPE_CHECKING:
    from pathlib import Path

PRICE = {"per_hour": 8.0, "source": "example price", "date": "2026-01-01"}
SMALL: dict[str, Any] = {
    "currency": "EUR",
    "sla": {"ttft": "60 ms"},
    "load": {"prompts_per_s": 400},
    "workloads": [{"name": "chat", "share": 1.0, "model": {"preset": "1.3B"}, "prompt_tokens": 512}],
    "candidates": [{"name": "two", "hardware": "h200-sxm-x2", "num_devices": [2], "price": PRICE}],
}


def request(**changes: Any) -> ProcureRequest:
    """The question with some fields changed."""
    return ProcureRequest.model_validate({**copy.deepcopy(SMALL), **changes})


def with_file(tmp_path: Path, **changes: Any) -> Path:
    """The same as a file."""
    path = tmp_path / "request.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(SMALL), **changes}), encoding="utf-8")
    return path
