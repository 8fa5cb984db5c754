"""`python -m validation.serving --out FILE`: microbenchmarks, then traces at fractions of what it takes.

Lines of JSON as they come: a header, microbenchmarks, then of each trace its requests and its steps. A run that is
stopped keeps what it has done, and small enough to repeat.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kraken_sim.errors import InputError
from kraken_sim.files.ours import check_replaceable
from kraken_sim.files.whole import is_special
from kraken_sim.models.hf import config_from_fields
from kraken_sim.serving.arrivals import Lengths, Requests, drawn_requests
from validation.command import check_positive, exit_code
from validation.models import build_model
from validation.models.communication import Group
from validation.serving.bench import attention_lines, host_lines, launch_lines
from validation.serving.engine import Part, ServingEngine
from validation.serving.server import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from validation.serving.server import Log

LLAMA_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
"""Llama 3.1 8B's sizes (its config.json)."""

TINY = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
"""A model for CPUs, where decisions count and times do not."""

_BEGINS = b'{"kind": "header", "device_name": '
"""What a file of this begins with."""

PROMPT, OUTPUT = Lengths(512, 0.7, 16, 1536), Lengths(128, 0.7, 2, 500)
TINY_PROMPT, TINY_OUTPUT = Lengths(48, 0.7, 4, 128), Lengths(12, 0.7, 1, 48)


def build_engine(fields: dict[str, Any], device: str, num_rows: int, row: int, most_tokens: int) -> ServingEngine:
    """The engine of a model with random weights, alone on a device."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = config_from_fields(fields, at="model")
    model: Any = build_model("standard", config, dtype=dtype, device=device, world=Group())
    return ServingEngine(model, num_rows, row, most_tokens=most_tokens)


def drawn(rate_per_s: float, seconds: float, seed: int, *, tiny: bool) -> Requests:
    """A trace of so many seconds."""
    prompt, output = (TINY_PROMPT, TINY_OUTPUT) if tiny else (PROMPT, OUTPUT)
    return drawn_requests(max(2, round(rate_per_s * seconds)), rate_per_s, prompt, output, seed)


def trace_line(fraction: float | None, requests: Requests, log: Log) -> dict[str, Any]:
    """What is written of a trace at that fraction of what the server can take; None: all requests at once.

    A step is its start, its end, the device's part, decoding sequences, tokens in their caches, and chunks (request,
    tokens before, tokens).
    """
    count = range(len(requests))
    return {
        "kind": "trace",
        "fraction": fraction,
        "arrival_s": requests.arrival_s.tolist(),
        "prompt_tokens": requests.prompt_tokens.tolist(),
        "output_tokens": requests.output_tokens.tolist(),
        "first_token_s": [round(log.first_token_s[index], 6) for index in count],
        "finish_s": [round(log.finish_s[index], 6) for index in count],
        "steps": [
            [
                *(round(step[name], 6) for name in ("start_s", "end_s", "device_s")),
                len(step["decoding"]),
                step["cached"],
                step["chunks"],
            ]
            for step in log.steps
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a model for CPUs")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.3, 0.6, 0.85], help="of what it can take")
    parser.add_argument("--burst", type=int, default=400, help="requests at once that say what it can take")
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--max-num-batched-tokens", type=int, default=1024)
    parser.add_argument("--most-seconds", type=float, default=270.0, help="no further trace is begun after these")
    parser.add_argument("--force", action="store_true", help="replace a file that this did not write")
    args = parser.parse_args(argv)
    return exit_code(lambda: _measure(args), args.out, "what is written is kept, the same command begins anew")


def _measure(args: argparse.Namespace) -> None:
    check_positive(args, "--burst", "--seconds", "--max-num-seqs", "--max-num-batched-tokens", "--most-seconds")
    for fraction in args.fractions:
        if not 0.0 < fraction < math.inf:
            raise InputError.single("--fractions", "must be positive numbers", fraction, "0.3 0.6 0.85")
    check_replaceable(args.out, "--out", force=args.force, ours=_is_ours(args.out))
    begun = time.perf_counter()
    row = 192 if args.tiny else 2048
    fields = TINY if args.tiny else LLAMA_8B
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as file:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        engine = build_engine(fields, args.device, args.max_num_seqs, row, args.max_num_batched_tokens)
        write(_header(args, engine, fields))
        _warm(engine, args.max_num_batched_tokens)
        write({"kind": "note", "text": "warm", "elapsed_s": time.perf_counter() - begun, "flash": engine.flash})
        engine.capture()
        write({"kind": "note", "text": "captured", "elapsed_s": time.perf_counter() - begun})
        for lines in (attention_lines, launch_lines, host_lines):
            for line in lines(engine):
                write(line)
        write({"kind": "note", "text": "microbenchmarks", "elapsed_s": time.perf_counter() - begun})
        burst = _at_once(drawn(args.burst / args.seconds, args.seconds, 0, tiny=args.tiny))
        log = replay(engine, burst, max_num_batched_tokens=args.max_num_batched_tokens)
        write(trace_line(None, burst, log))
        capacity_per_s = len(burst) / max(log.finish_s.values())
        write({"kind": "note", "text": f"takes {capacity_per_s:.2f}/s", "elapsed_s": time.perf_counter() - begun})
        for number, fraction in enumerate(args.fractions):
            if time.perf_counter() - begun + args.seconds > args.most_seconds:
                break
            requests = drawn(fraction * capacity_per_s, args.seconds, number + 1, tiny=args.tiny)
            log = replay(engine, requests, max_num_batched_tokens=args.max_num_batched_tokens)
            write(trace_line(fraction, requests, log))
            write({"kind": "note", "text": f"{fraction:g} of it", "elapsed_s": time.perf_counter() - begun})


def _is_ours(path: Path) -> bool:
    """Whether a file begins as those do that this writes."""
    if is_special(path) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGINS)) in (_BEGINS, b"")


def _at_once(requests: Requests) -> Requests:
    return Requests(0.0 * requests.arrival_s, requests.prompt_tokens, requests.output_tokens)


def _header(args: argparse.Namespace, engine: ServingEngine, fields: dict[str, Any]) -> dict[str, Any]:
    cuda = engine.device.type == "cuda"
    return {
        "kind": "header",
        "device_name": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "model": fields,
        "dtype": "bfloat16" if cuda else "float32",
        "kernels": "compiled",
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "row": engine.row,
        "prompt": asdict(TINY_PROMPT if args.tiny else PROMPT),
        "output": asdict(TINY_OUTPUT if args.tiny else OUTPUT),
    }


def _warm(engine: ServingEngine, most_tokens: int) -> None:
    """Every kind of step once, so that nothing is compiled or chosen later; without flash where that is refused."""

    def steps() -> None:
        engine.step([], [Part(0, 0, (1,) * 8)])
        engine.step([Part(0, 8, (1,))], [Part(1, 0, (1,) * 16)])
        engine.step([Part(0, 9, (1,)), Part(1, 16, (1,))], [])
        engine.step([Part(0, 10, (1,))], [])
        for size in (most_tokens, most_tokens // 2, 100):
            length = min(size, most_tokens, engine.row)
            engine.step([], [Part(0, 0, (1,) * length)])

    _or_without_flash(engine, steps)
    steps()


def _or_without_flash(engine: ServingEngine, call: Callable[[], None]) -> None:
    try:
        call()
    except RuntimeError as error:
        print(f"without flash attention: {error}", flush=True)
        engine.flash = False
        call()


if __name__ == "__main__":
    sys.exit(main())
