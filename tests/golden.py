"""End times of varied scenarios, in picoseconds: what a change of the code alone must leave as it is.

A change that is meant to change numbers writes the file anew and says in its message why they moved:

    python tests/golden.py write       # tests/data/golden-end-times.csv
    python tests/golden.py check       # bit for bit, naming every difference
"""

from __future__ import annotations

import csv
import sys
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kraken_sim import KrakenSimError, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parent / "data" / "golden-end-times.csv"
MACHINES = {
    "h200-sxm-x2": 2,
    "h200-sxm-x8": 8,
    "h100-sxm-x8": 8,
    "a100-sxm4-40gb-x8": 8,
    "a100-sxm4-80gb-x8": 8,
    "l40s-x8": 8,
    "b200-sxm-x8": 8,
    "gb200-nvl72": 8,
    "h100-sxm-2x8": 16,
    "h100-sxm-4x8": 32,
    "a100-pcie-80gb-x4": 4,
    "h100-pcie-x4": 4,
    "v100-dgx1-x8": 8,
    "rtx4090-x8": 8,
}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
QWEN = LLAMA | {"model_type": "qwen3", "head_dim": 128, "num_attention_heads": 64, "tie_word_embeddings": False}
PLACEMENTS = {
    "l40s-x8": ["0,4", "4,5", "0,1,4,5", "7,3,1,0"],
    "v100-dgx1-x8": ["0,4", "0,5", "0,1,2,3", "0,3,4,7"],
    "h100-sxm-2x8": ["0,8", "0,1,8,9", "3,11"],
    "a100-pcie-80gb-x4": ["0,1", "1,2", "0,2"],
}
COLLECTIVES: list[dict[str, Any]] = [
    {"channels": 1},
    {"channels": 4},
    {"channels": 16},
    {"algorithm": "ring"},
    {"algorithm": "tree"},
    {"algorithm": "ring", "protocol": "ll"},
    {"algorithm": "ring", "protocol": "ll128"},
    {"algorithm": "ring", "protocol": "simple"},
    {"algorithm": "nvls"},
    {"transport": "shm"},
    {"transport": "shm", "channels": 2},
    {"library": "custom"},
    {"library": "custom", "algorithm": "one_shot"},
    {"library": "custom", "algorithm": "two_shot"},
    {"library": "custom", "selection": "vllm"},
    {"library": "custom", "selection": "tensorrt_llm_legacy"},
]
ARCHITECTURES: list[dict[str, Any]] = [{"kind": "standard"}, {"kind": "parallel"}, {"kind": "kraken"}]
RIVALS = (
    *("ladder", "desync", "parallel_track", "sync_point_drop", "caat_net", "sequence_parallel", "domino"),
    "token_weave",
)


def scenarios() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every scenario with its name: what varies in it."""
    models = cycle([{"preset": "1.3B"}, {"preset": "6.7B"}, LLAMA, {"preset": "350M"}, QWEN, {"preset": "13B"}])
    lengths, batches = cycle([128, 512, 2048, 1000, 1]), cycle([1, 1, 4, 1, 16])
    for (hardware, most), phase, launch, architecture in product(
        MACHINES.items(), ("prefill", "decode"), ("graph", "eager"), ARCHITECTURES
    ):
        data = {
            "hardware": hardware,
            "model": next(models),
            "architecture": architecture,
            "num_devices": most if phase == "prefill" else min(2, most),
            "phase": phase,
            "batch_size": next(batches),
            "context_length": next(lengths),
            "runtime": {"launch": launch},
        }
        yield f"{hardware} {phase} {launch} {architecture['kind']}", data
    base = {"model": {"preset": "1.3B"}, "context_length": 512}
    for hardware, placements in PLACEMENTS.items():
        for placement, architecture in product(placements, ARCHITECTURES):
            where = {"hardware": hardware, "placement": placement, "architecture": architecture}
            yield f"{hardware} on {placement} {architecture['kind']}", {**base, **where}
    for hardware, collective, architecture in product(
        ("h200-sxm-x2", "h100-sxm-x8", "l40s-x8"), COLLECTIVES, ARCHITECTURES[::2]
    ):
        words = " ".join(f"{key}={value}" for key, value in collective.items())
        asked = {"hardware": hardware, "architecture": architecture, "num_devices": 2}
        asked |= {"model": {"preset": "6.7B", "num_hidden_layers": 8}, "context_length": 1024, "dtype": "bfloat16"}
        yield f"{hardware} {words} {architecture['kind']}", {**asked, "runtime": {"collective": collective}}
    for ways, num_devices, copies, overlap in product((1, 2, 4, 8), (1, 2, 8), (0, 1, 2), (True, False)):
        kraken = {"kind": "kraken", "ways": ways}
        asked = {**base, "hardware": "h100-sxm-x8", "architecture": kraken, "num_devices": num_devices}
        runtime = {"overlap": overlap, "overlap_copies": copies, "launch": "graph"}
        yield f"ways {ways} on {num_devices} copies {copies} overlap {overlap}", {**asked, "runtime": runtime}
    for launch, architecture in product(("graph", "eager"), ARCHITECTURES):
        asked = {**base, "hardware": "h200-sxm-x2", "architecture": architecture, "runtime": {"launch": launch}}
        yield f"exact {launch} {architecture['kind']}", {**asked, "exact": True}
    yield from rivals()


def rivals() -> Iterator[tuple[str, dict[str, Any]]]:
    """The other architectures, with collectives that run on into the next layer among them."""
    steps = (("prefill", "graph", 2, 1024), ("decode", "graph", 16, 2048), ("prefill", "eager", 4, 300))
    sets = cycle(("serving", "pytorch", "compiled"))
    for hardware, kind, (phase, launch, batch, length) in product(
        ("h100-sxm-x8", "l40s-x8", "h100-sxm-2x8", "h200-sxm-x2"), RIVALS, steps
    ):
        data = {
            "hardware": hardware,
            "model": LLAMA,
            "architecture": {"kind": kind},
            "phase": phase,
            "batch_size": batch,
            "context_length": length,
            "dtype": "bfloat16",
            "runtime": {"launch": launch, "kernels": next(sets)},
        }
        yield f"{hardware} {phase} {launch} {kind} of {batch} x {length}", data


def end_ps(data: dict[str, Any]) -> str:
    """When the pass ends, in picoseconds, or the name of the error that it ends with."""
    asked = dict(data)
    exact = bool(asked.pop("exact", False))
    try:
        return str(round(simulate(asked, exact=exact).latency_s * 1e12))
    except KrakenSimError as error:
        return type(error).__name__


def recorded() -> dict[str, str]:
    """The file: end by name."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return {row["scenario"]: row["end_ps"] for row in csv.DictReader(file)}


def main() -> int:
    """Write the file or hold today's ends against it."""
    found = {name: end_ps(data) for name, data in scenarios()}
    if sys.argv[1:] == ["write"]:
        with FILE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("scenario", "end_ps"))
            writer.writerows(found.items())
        return 0
    kept = recorded()
    different = [name for name in {**kept, **found} if kept.get(name) != found.get(name)]
    for name in different:
        sys.stdout.write(f"{name}: {kept.get(name)} is now {found.get(name)}\n")
    sys.stdout.write(f"{len(different)} of {len(found)} differ\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
