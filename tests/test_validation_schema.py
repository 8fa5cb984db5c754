from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.costs.collectives.policy import Library, Transport
from kraken_sim.errors import InputError
from kraken_sim.measurements.records.base import Quartiles
from kraken_sim.measurements.records.kernels import AllReduceRecord, GemmRecord
from kraken_sim.measurements.records.launched import KernelsRecord, LaunchRecord
from kraken_sim.measurements.records.loads import SustainedRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.records.record import NoteRecord, Record
from kraken_sim.measurements.records.together import PairRecord
from kraken_sim.measurements.schema import (
    CONDITIONS,
    CPU_CONDITION,
    DEFAULT_CONDITION,
    Header,
    Host,
    MeasurementWarning,
    read_measurements,
    to_line,
    to_text,
)
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation.store import append, resume

if TYPE_CHECKING:
    from pathlib import Path

TIMES = Quartiles(1.1e-5, 1.2e-5, 1.4e-5)


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "started_at": "2025-01-01T00:00:00+00:00",
        "suite": "full",
        "device_type": "cuda",
        "device_name": "NVIDIA H200",
        "num_devices": 2,
        "torch": "2.11.0",
        "cuda": "13.0",
        "nccl": "2.28.9",
        "driver": "580.1",
        "host": Host(num_cpus=32, platform="Linux", python="3.12"),
    }
    return Header(**{**fields, **changes})


def gemm(m: int = 512, **changes: Any) -> GemmRecord:
    fields: dict[str, Any] = {"m": m, "n": 4096, "k": 1024, "dtype": DType.FLOAT16, "launch": Launch.GRAPH}
    fields |= {"calls": 20, "repeats": 7, "time_s": TIMES}
    return GemmRecord(**{**fields, **changes})


def one_of_each() -> list[Record]:
    pair = {
        "family": "mixed",
        "compute": [
            {"op": "norm", "num_tokens": 512, "hidden_size": 3584},
            {"op": "gemm", "m": 512, "n": 10752, "k": 3584},
            {"op": "attention", "batch": 1, "q_len": 512, "num_heads": 28, "num_kv_heads": 28, "head_dim": 128},
        ],
        "num_bytes": 3670016,
        "num_devices": 2,
        "order": "collective_first",
        "dtype": "float16",
        "launch": "graph",
        "condition": "channels-4",
        "calls": 5,
        "repeats": 7,
        **dict.fromkeys(("together_s", "compute_alone_s", "collective_alone_s", "compute_span_s"), TIMES),
    }
    work = {"num_devices": 2, "dtype": "float16", "launch": "graph", "condition": DEFAULT_CONDITION}
    counted = {"calls": 20, "repeats": 7}
    kernel = {"name": "nvjet_hsh_256x128", "grid": (2, 66, 1), "block": (384, 1, 1), "busy_s": 5.4e-5}
    whole = {"architecture": {"kind": "kraken", "ways": 2}, "model": {"preset": "6.7B"}, "phase": "prefill"}
    return [
        gemm(),
        AllReduceRecord.model_validate({"num_bytes": 1024, "time_s": TIMES, **work, **counted}),
        PairRecord.model_validate(pair),
        SustainedRecord.model_validate(
            {
                "shapes": [(4096, 4096, 4096)],
                "idle_before_s": 1.0,
                "duration_s": 2.5,
                "dtype": "float16",
                "device_index": 1,
                "chunk_end_s": [0.1, 0.2],
                "chunk_flops": [7e14, 6.9e14],
                "samples": [(0.05, 1.98e9, 690.0, 55.0)],
            }
        ),
        LaunchRecord(quantity="graph_node_gap", calls=120, repeats=9, time_s=(-1e-8, 9e-7, 1e-6)),
        KernelsRecord.model_validate({"of": gemm().key, "kernels": [kernel]}),
        PassRecord.model_validate(
            {**whole, **work, **counted, "batch_size": 1, "context_length": 512, "overlap": True, "time_s": TIMES}
        ),
        NoteRecord(of="gemm/graph/float16/bias/1x2x3", status="skipped", message="too little memory"),
    ]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_measurements(path)
    assert caught.value.source == str(path)
    return [str(problem) for problem in caught.value.problems]


def test_every_kind_of_record_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    resume(path, header())
    append(path, one_of_each())
    found = read_measurements(path)
    assert found.header == header()
    assert list(found.records) == one_of_each()
    assert [record.m for record in found.select(GemmRecord)] == [512]
    assert [note.status for note in found.notes] == ["skipped"]
    assert not found.truncated


def test_keys_of_different_cases_differ() -> None:
    records = [*one_of_each(), gemm(513), gemm(dtype=DType.BFLOAT16), gemm(launch=Launch.EAGER), gemm(epilogue="none")]
    one = next(record for record in one_of_each() if isinstance(record, PassRecord))
    records += [
        one.model_copy(update={"kernels": KernelSet.COMPILED}),
        one.model_copy(update={"load": CardLoad.RESTED}),
    ]
    for record in (one, gemm()):
        fp8 = record.model_copy(update={"quantization": Quantization.FP8})
        records += [fp8, *(fp8.model_copy(update={"activation_scheme": scheme}) for scheme in ActivationScheme)]
    assert len({record.key for record in records}) == len(records)


@given(st.floats(min_value=1e-9, max_value=10.0, allow_nan=False))
def test_times_keep_six_significant_digits(seconds: float) -> None:
    line = to_line(gemm(time_s=Quartiles(seconds, seconds, seconds)))
    kept = json.loads(line)["time_s"]
    assert kept == pytest.approx([seconds] * 3, rel=1e-5)
    assert all(len(repr(value)) <= 12 for value in kept)


def test_a_pass_without_kernel_set_and_load_keeps_the_key_that_older_files_gave_it() -> None:
    one = next(record for record in one_of_each() if isinstance(record, PassRecord))
    assert one.key.endswith("/graph/overlap/kind=kraken,ways=2/preset=6.7B")
    assert "kernels" not in to_line(one)
    assert "load" not in to_line(one)
    assert "quantization" not in to_line(one)
    loaded = one.model_copy(update={"kernels": KernelSet.COMPILED, "load": CardLoad.SUSTAINED})
    assert "/graph/overlap/compiled/sustained/" in loaded.key


def test_a_record_without_defaults_is_short() -> None:
    assert len(to_line(gemm())) < 200


def test_conditions_say_the_same_to_nccl_and_to_a_scenario() -> None:
    for name, condition in CONDITIONS.items():
        if name == CPU_CONDITION:
            assert condition.collective is None
            continue
        assert condition.collective is not None
        assert Library(str(condition.collective["library"])) is Library.NCCL
        channels = condition.collective["channels"]
        limits = {condition.environment.get(f"NCCL_{end}_NCHANNELS") for end in ("MIN", "MAX")}
        assert limits == ({None} if channels is None else {str(channels)})
        shared_memory = Transport(str(condition.collective["transport"])) is Transport.SHM
        assert (condition.environment.get("NCCL_P2P_DISABLE") == "1") is shared_memory
        assert "NCCL_NVLS_ENABLE" not in condition.environment


def test_reading_measurements_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from kraken_sim.measurements import schema; "
        "print(len(schema.CONDITIONS))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(CONDITIONS)


def test_a_half_written_last_line_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(to_text([header(), gemm(1), gemm(2)])[:-30], encoding="utf-8")
    with pytest.warns(MeasurementWarning, match="half written"):
        found = read_measurements(path)
    assert found.truncated
    assert [record.key for record in found.records] == [gemm(1).key]


def test_another_schema_version_is_refused_by_name(tmp_path: Path) -> None:
    line = to_line(header()).replace('"schema_version":1', '"schema_version":7')
    (problem,) = problems_of(write(tmp_path / "m.jsonl", line))
    assert "line 1.schema_version" in problem
    assert "7" in problem


@pytest.mark.parametrize("first", ["", "[1, 2]", "hello", '{"kind": "gemm"}'])
def test_a_file_without_a_header_is_refused(tmp_path: Path, first: str) -> None:
    (problem,) = problems_of(write(tmp_path / "m.jsonl", first))
    assert "header" in problem


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "none.jsonl")
    assert "cannot read" in problem


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    wrong_m = to_line(gemm()).replace('"m":512', '"m":0')
    unknown = to_line(gemm(3)).replace('"repeats"', '"repeat"')
    strange = '{"kind":"gem","m":1}'
    path = write(tmp_path / "m.jsonl", to_line(header()), wrong_m, unknown, strange, "{", to_line(gemm(9)))
    problems = "\n".join(problems_of(path))
    for expected in ("line 2.gemm.m", "line 3.gemm.repeats", "line 3.gemm.repeat:", "line 4", "line 5: no JSON"):
        assert expected in problems
    assert "line 6" not in problems


def test_a_repeated_case_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", to_line(header()), to_line(gemm()), to_line(gemm(calls=3)))
    (problem,) = problems_of(path)
    assert "line 3" in problem
    assert "line 2" in problem


def test_resuming_keeps_records_and_drops_failures_and_the_half_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    failed = NoteRecord(of="pair/x", status="failed", message="NCCL error")
    skipped = NoteRecord(of="pair/y", status="skipped", message="too large")
    text = to_text([header(), gemm(1), failed, skipped, gemm(2)])
    path.write_text(text[:-20], encoding="utf-8")
    with pytest.warns(MeasurementWarning, match="half written"):
        kept = resume(path, header(started_at="later", suite="quick"))
    assert [record.key for record in kept] == [gemm(1).key, "pair/y"]
    append(path, [gemm(2)])
    found = read_measurements(path)
    assert found.header.started_at == header().started_at
    assert [record.key for record in found.records] == [gemm(1).key, "pair/y", gemm(2).key]


def test_a_last_line_without_its_newline_is_kept_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(to_text([header(), gemm(1)]).rstrip("\n"), encoding="utf-8")
    assert [record.key for record in resume(path, header())] == [gemm(1).key]
    append(path, [gemm(2)])
    assert len(read_measurements(path).records) == 2


def test_a_half_written_header_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(to_line(header())[:50], encoding="utf-8")
    with pytest.warns(MeasurementWarning, match="begins anew"):
        assert resume(path, header()) == []
    assert read_measurements(path).header == header()


def test_another_machine_cannot_continue_a_file_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(to_text([header(), gemm(1)]), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        resume(path, header(device_name="NVIDIA A100-SXM4-80GB", num_devices=4))
    assert {problem.path for problem in caught.value.problems} == {"header.device_name", "header.num_devices"}
    assert path.read_bytes() == before


def test_a_file_that_is_no_measurement_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.txt", "", "my notes")
    with pytest.raises(InputError):
        resume(path, header())
    assert "my notes" in path.read_text(encoding="utf-8")


def test_another_driver_is_only_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    resume(path, header())
    with pytest.warns(MeasurementWarning, match="driver"):
        resume(path, header(driver="590.0"))
