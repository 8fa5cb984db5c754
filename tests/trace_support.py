"""Chrome traces made for tests: of measured kernels, and of whatever a test says.

`python tests/trace_support.py write` makes the files tests/data/h200-*.trace.json anew, out of the kernels that
validation/measurements recorded on an H200: real names, grids and times, the first 48 kernels of one replay of a graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).parent.parent
DATA: Final = Path(__file__).parent / "data"
FIRST: Final = ROOT / "validation" / "measurements" / "h200-sxm-x1-llama-passes.jsonl"
SECOND: Final = ROOT / "validation" / "measurements" / "h200-sxm-x1-llama-passes-2.jsonl"
COMMITTED: Final[Mapping[str, tuple[Path, int]]] = {
    "h200-llama-8b-decode": (FIRST, 2),
    "h200-qwen3-8b-prefill-compiled": (FIRST, 22),
    "h200-llama-8b-decode-composed": (SECOND, 2),
}
"""By name, the measurement file and which of its profiled passes, from 1."""


def kernel(name: str, start_us: float, duration_us: float, **args: Any) -> dict[str, Any]:
    """A kernel's event; `args` may say the correlation, the stream, the device."""
    category = {"Memset": "gpu_memset", "Memcpy": "gpu_memcpy"}.get(name[:6], "kernel")
    device, stream = args.get("device", 0), args.get("stream", 7)
    details = {"device": device, "context": 1, "stream": stream, **args}
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": device,
        "tid": stream,
        "ts": start_us,
        "dur": duration_us,
        "args": details,
    }


def host(category: str, name: str, start_us: float, duration_us: float, **args: Any) -> dict[str, Any]:
    """An event of the host."""
    where = {"pid": 4711, "tid": 4711}
    return {"ph": "X", "cat": category, "name": name, **where, "ts": start_us, "dur": duration_us, "args": args}


def document(events: Iterable[Mapping[str, Any]], device: str = "NVIDIA H200", **beside: Any) -> dict[str, Any]:
    """A whole trace as torch.profiler writes it."""
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": number, "name": device} for number in range(8)],
        **beside,
        "traceEvents": list(events),
        "traceName": "trace.json",
    }


def written(path: Path, events: Iterable[Mapping[str, Any]], device: str = "NVIDIA H200", **beside: Any) -> Path:
    """A trace's file."""
    path.write_text(json.dumps(document(events, device, **beside)), encoding="utf-8")
    return path


def profiled(path: Path, number: int) -> tuple[KernelsRecord, PassRecord]:
    """The profiled pass of that number, from 1, and its times."""
    measurements = read_measurements(path)
    records = [one for one in measurements.select(KernelsRecord) if one.of.startswith("pass/")]
    record = records[number - 1]
    return record, next(one for one in measurements.select(PassRecord) if one.key == record.of)


def events_of(record: KernelsRecord) -> list[dict[str, Any]]:
    """The kernels of a record as events, under one launch of a graph."""
    found = [host("cuda_runtime", "cudaGraphLaunch", 0.0, 9.0, correlation=3)]
    for one in record.kernels:
        begin_us = 10.0 + 1e6 * (one.start_s or 0.0)
        details: dict[str, Any] = {"correlation": 3, "grid": list(one.grid), "block": list(one.block)}
        found.append(kernel(one.name, round(begin_us, 3), round(1e6 * one.busy_s, 3), **details))
    return found


def committed_text(name: str) -> str:
    """What a committed trace holds."""
    path, number = COMMITTED[name]
    record, timed = profiled(path, number)
    note = {
        "made_of": f"{path.relative_to(ROOT)}: {record.key}",
        "is_beginning": True,
        "period_s": timed.time_s.median,
    }
    head = document([], validation=note)
    del head["traceEvents"]
    lines = ",\n".join(json.dumps(event) for event in events_of(record))
    return json.dumps(head)[:-1] + f', "traceEvents": [\n{lines}\n]}}\n'


def repeated(steps: Sequence[Sequence[tuple[str, float]]], gap_us: float = 1.0) -> list[dict[str, Any]]:
    """Steps of (name, duration) one after the other."""
    now, found = 0.0, []
    for step in steps:
        for name, duration_us in step:
            found.append(kernel(name, now, duration_us))
            now += duration_us + gap_us
        now += 100.0
    return found


if __name__ == "__main__" and sys.argv[1:] == ["write"]:
    for name in COMMITTED:
        (DATA / f"{name}.trace.json").write_text(committed_text(name), encoding="utf-8")
