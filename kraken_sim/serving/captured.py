"""The batches that decode steps are padded to where they are launched as graphs."""

from __future__ import annotations

from typing import Final

CAPTURED: Final = (1, 2, 4)
"""Batches below 8 that engines capture graphs of; from 8 on every multiple of 8 up to 256, then of 16: vLLM 0.11's
`cudagraph_capture_sizes` (vllm/config/vllm.py)."""


def captured(batch: int) -> int:
    """The batch of the graph that a decode step of so many sequences is padded to."""
    for size in CAPTURED:
        if batch <= size:
            return size
    granule = 8 if batch <= 256 else 16
    return -(-batch // granule) * granule
