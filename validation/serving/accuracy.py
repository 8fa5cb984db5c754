"""`python -m validation.serving.accuracy FILE`: what the simulator says of the server's traces, and what they were.

Prints for each trace the mean and percentiles of TTFT and TPOT, predicted over measured, the throughput, and how far
single steps are off.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.serving.arrivals import Requests
from kraken_sim.serving.fleet import ReplicaPool, Served, serve_requests
from kraken_sim.serving.plan import Chunk, SchedulerRules, Sequence
from validation.serving.predicted import ServerSteps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence as Many

    from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True)
class TraceAccuracy:
    """A trace at a fraction of what the server takes: errors of the prediction, as fractions."""

    fraction: float | None
    num_requests: int
    errors: Mapping[str, float]
    """Of `ttft.mean`, `ttft.p50`, ... , `tpot.p99` and `throughput`."""
    decode_errors: NDArray[np.float64]
    mixed_errors: NDArray[np.float64]


def accuracies(path: Path, hardware: str = "h200-sxm-x2") -> list[TraceAccuracy]:
    """Of every trace of a file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    header = lines[0]
    traces = [line for line in lines if line["kind"] == "trace"]
    steps = ServerSteps.of(header, lines, _requests(traces[-1]), hardware)
    return [_accuracy(trace, header, steps) for trace in traces]


def _requests(trace: Mapping[str, Any]) -> Requests:
    return Requests(*(np.array(trace[name]) for name in ("arrival_s", "prompt_tokens", "output_tokens")))


def _accuracy(trace: Mapping[str, Any], header: Mapping[str, Any], steps: ServerSteps) -> TraceAccuracy:
    requests = _requests(trace)
    rules = SchedulerRules(
        num_blocks=header["max_num_seqs"] * header["row"],
        block_size=1,
        max_num_seqs=header["max_num_seqs"],
        max_num_batched_tokens=header["max_num_batched_tokens"],
    )
    ours = serve_requests(requests, ReplicaPool(steps, rules))
    theirs = Served(requests, np.array(trace["first_token_s"]), np.array(trace["finish_s"]), 0, (), ())
    errors = {}
    for name in ("ttft", "tpot"):
        predicted, measured = (_known(getattr(served, f"{name}_s")) for served in (ours, theirs))
        errors[f"{name}.mean"] = predicted.mean() / measured.mean() - 1.0
        for percentile in PERCENTILES:
            pair = [np.percentile(values, percentile) for values in (predicted, measured)]
            errors[f"{name}.p{percentile:g}"] = float(pair[0] / pair[1] - 1.0)
    errors["throughput"] = theirs.span_s / ours.span_s - 1.0
    return TraceAccuracy(trace["fraction"], len(requests), errors, *_step_errors(trace["steps"], steps))


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _step_errors(recorded: Many[Many[Any]], steps: ServerSteps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of every step that the server took: of decode alone, and with prompts."""
    decode, mixed = [], []
    for start_s, end_s, _, decoding, cached, chunks in recorded:
        if chunks:
            parts = [Chunk(Sequence(0, 1, 1), count, before) for _, before, count in chunks]
            mixed.append(steps.mixed(decoding, cached, parts)[0] / (end_s - start_s) - 1.0)
        else:
            decode.append(steps.decode(decoding, cached).first_s / (end_s - start_s) - 1.0)
    return np.array(decode), np.array(mixed)


def main(argv: Many[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--hardware", default="h200-sxm-x2")
    args = parser.parse_args(argv)
    for found in accuracies(args.file, args.hardware):
        load = "all at once" if found.fraction is None else f"{100 * found.fraction:.0f} % load"
        errors = ", ".join(f"{name} {100 * error:+.1f}" for name, error in found.errors.items())
        print(f"{load}, {found.num_requests} requests, %: {errors}")
        for name, values in (("decode", found.decode_errors), ("mixed", found.mixed_errors)):
            if len(values):
                print(
                    f"  {name} steps: {len(values)}, mean error {100 * np.abs(values).mean():.1f} %, "
                    f"bias {100 * values.mean():+.1f} %"
                )


if __name__ == "__main__":
    main()
