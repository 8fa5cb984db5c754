"""A measurement that is killed, or whose disk is full: what is measured is kept, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from measurement_support import header
from process_support import ENOUGH_S, family_of, files_limited_to, wait_for

from kraken_sim.errors import InputError
from kraken_sim.measurements.records.kernels import GemmRecord
from kraken_sim.measurements.schema import CPU_CONDITION, MeasurementWarning, read_measurements
from validation.microbench.blocks import Machine, remaining
from validation.microbench.plan import plan
from validation.store import append, resume

ROOT = Path(__file__).resolve().parents[1]
SMALL = "gemm/.*768|memory_bound|norm"
GEMM = {"n": 768, "k": 768, "dtype": "float16", "launch": "graph", "calls": 10, "repeats": 5, "time_s": [1e-5] * 3}


def started(out: Path) -> subprocess.Popen[str]:
    """A measurement in one process, which leads a group of its own."""
    command = [sys.executable, "-m", "validation.measure", "--suite", "quick", "--out", str(out), "--only", SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.torch
def test_a_killed_measurement_leaves_no_process_and_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "m.jsonl"
    process = started(out)
    try:
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") > 2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=ENOUGH_S)
        wait_for(lambda: not family_of(process.pid))
    finally:
        if family_of(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    kept = len(read_measurements(out).records)
    process = started(out)
    said = process.communicate(timeout=ENOUGH_S)[1]
    assert process.returncode == 0, said
    wanted = remaining(plan("quick", Machine("cpu", 1, False), [CPU_CONDITION]), set(), SMALL)
    keys = [case.key for block in wanted for case in block.cases]
    assert f"{kept} of {len(keys)} cases are there" in said
    assert sorted(record.key for record in read_measurements(out).records) == sorted(keys)
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_only_a_regular_file_is_measured_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/full")):
        with pytest.raises(InputError, match="--out: is no regular file"):
            resume(path, header())


def test_a_full_disk_ends_a_measurement_with_a_sentence_and_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    resume(out, header())
    records = [GemmRecord.model_validate({**GEMM, "m": m}) for m in range(1, 40)]
    append(out, records[:1])
    with files_limited_to(out.stat().st_size + 100), pytest.raises(InputError, match="what is measured is kept"):
        append(out, records[1:])
    with pytest.warns(MeasurementWarning, match="half written"):
        assert resume(out, header()) == records[:1]
    append(out, records[1:])
    assert resume(out, header()) == records
    with files_limited_to(100), pytest.raises(InputError, match="cannot be written: File too large"):
        resume(tmp_path / "other.jsonl", header())
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]
