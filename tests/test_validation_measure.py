from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from kraken_sim.errors import InputError  # noqa: E402
from kraken_sim.measurements.records.kernels import AllReduceCase, AllReduceRecord, AttentionCase, GemmCase, GemmRecord  # noqa: E402
from kraken_sim.measurements.records.launched import KernelsCase, LaunchRecord  # noqa: E402
from kraken_sim.measurements.records.loads import SustainedCase  # noqa: E402
from kraken_sim.measurements.records.passes import PassCase  # noqa: E402
from kraken_sim.measurements.records.record import NoteRecord  # noqa: E402
from kraken_sim.measurements.records.together import PairCase, PairRecord  # noqa: E402
from kraken_sim.measurements.schema import (  # noqa: E402
    CONDITIONS,
    CPU_CONDITION,
    DEFAULT_CONDITION,
    condition_named,
    read_measurements,
)
from kraken_sim.models.presets import PRESETS  # noqa: E402 - torch decides whether any of this can be imported
from kraken_sim.program.ops import DType  # noqa: E402
from kraken_sim.scenario.spec import Launch  # noqa: E402
from validation import measure  # noqa: E402
from validation.control import Control  # noqa: E402
from validation.job import Job  # noqa: E402
from validation.machine import worst_link  # noqa: E402
from validation.microbench import gemm, shapes  # noqa: E402
from validation.microbench.bench import Arena, Bench, Outcome, SkipCase, chain_length  # noqa: E402
from validation.microbench.blocks import Block, Machine, remaining  # noqa: E402
from validation.microbench.kernels import kernels_by_label  # noqa: E402
from validation.microbench.plan import default_conditions, plan  # noqa: E402
from validation.microbench.runners import Attempt, Ranks, attempt, record_of  # noqa: E402
from validation.passes import weights_key  # noqa: E402
from validation.timing import Clock, quartiles, time_eager, time_graph, time_host  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.measurements.schema import MeasurementFile

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[1]
SOME = (
    r"gemm/.*/(1|16)x768x768|all_reduce/.*/(1024|16384)$|pair/.*/65536/(gemm|norm)"
    r"|launch/(gloo|round_trip|host_kernel/add)"
)
HOST_SOME = (("host_layer", "standard"), ("host_layer", "llama"), ("round_trip", ""))


def all_cases(suite: str, machine: Machine) -> list[Any]:
    blocks = plan(suite, machine, default_conditions(suite, machine, CONDITIONS))
    return list(chain.from_iterable(block.cases for block in blocks))


def full(num_devices: int = 2) -> list[Any]:
    return all_cases("full", Machine("cuda", num_devices))


def cpu_bench() -> Bench:
    return Bench(Clock(torch.device("cpu")), Control(), CPU_CONDITION, l2_bytes=1 << 20, free_bytes=1 << 30)


@pytest.mark.parametrize("suite", ["quick", "full", "host"])
@pytest.mark.parametrize("machine", [Machine("cuda", 2), Machine("cuda", 1), Machine("cpu", 2), Machine("cuda", 8)])
def test_no_two_cases_of_a_suite_share_a_key(suite: str, machine: Machine) -> None:
    keys = Counter(case.key for case in all_cases(suite, machine))
    assert keys.most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    "suite", ["llama-passes", "llama-microbench", "chains", "power", "fp8-passes", "fp8-microbench"]
)
@pytest.mark.parametrize("machine", [Machine("cuda", 1), Machine("cpu", 1)])
def test_no_two_cases_of_a_suite_of_one_device_share_a_key(suite: str, machine: Machine) -> None:
    keys = Counter(case.key for case in all_cases(suite, machine))
    assert keys.most_common(1)[0][1] == 1


@pytest.mark.parametrize("machine", [Machine("cuda", 2), Machine("cuda", 1), Machine("cpu", 2)])
def test_the_host_suite_measures_the_same_in_two_processes(machine: Machine) -> None:
    first, again = default_conditions("host", machine, CONDITIONS)
    blocks = plan("host", machine, [first, again])
    by_process = [
        {(case.quantity, case.detail) for block in blocks if block.condition == name for case in block.cases}  # type: ignore[attr-defined]
        for name in (first, again)
    ]
    assert by_process[0] == by_process[1] >= {("host_kernel", "gemm"), ("host_layer", "standard")}
    assert (("host_all_reduce", "blocking") in by_process[0]) == (machine.num_devices > 1)
    assert condition_named(first) == condition_named(again) == CONDITIONS[first]


def test_passes_of_one_device_are_refused_on_two() -> None:
    with pytest.raises(InputError, match="one device"):
        all_cases("llama-passes", Machine("cuda", 2))


@pytest.mark.parametrize("suite", ["llama-passes", "fp8-passes"])
def test_the_profiler_comes_behind_all_passes_because_it_stays_and_slows_launches(suite: str) -> None:
    blocks = plan(suite, Machine("cuda", 1), [DEFAULT_CONDITION])
    assert {block.kind for block in blocks} == {"pass"}
    profiled = [any(isinstance(case, KernelsCase) for case in block.cases) for block in blocks]
    assert any(profiled)
    assert profiled == sorted(profiled)
    passes = {case.key: case for block in blocks for case in block.cases if isinstance(case, PassCase)}
    for block in blocks[profiled.index(True) :]:
        targets = [passes[case.of] for case in block.cases if isinstance(case, KernelsCase)]
        assert len(targets) == len(block.cases)
        assert len({weights_key(case) for case in targets}) == 1


def test_the_full_suite_has_every_preset_at_every_way() -> None:
    cases = [case for case in full() if isinstance(case, GemmCase)]
    measured = {(case.n, case.k) for case in cases}
    for name, (_, hidden_size, _) in PRESETS.items():
        if hidden_size < PRESETS["1.3B"][1]:
            continue
        for ways in (1, 2, 4, 8):
            assert measured.issuperset(shapes.layer_matrices(hidden_size, ways))
            if ways > 1:
                assert measured.issuperset(shapes.kraken_matrices(shapes.kraken_width(name, ways)))
    assert {case.m for case in cases} >= set(shapes.ROWS)
    assert sum(case.origin == "odd" for case in cases) >= 250


def test_the_full_suite_covers_what_attention_and_all_reduce_can_be() -> None:
    attentions = [case for case in full() if isinstance(case, AttentionCase)]
    assert {case.num_heads for case in attentions} >= set(shapes.HEADS)
    assert {case.head_dim for case in attentions} >= {64, 80, 96, 112, 128}
    assert any(case.q_len == 1 and not case.causal for case in attentions)
    sizes = {
        case.num_bytes for case in full() if isinstance(case, AllReduceCase) and case.condition == DEFAULT_CONDITION
    }
    assert sizes >= {1 << exponent for exponent in range(10, 30)}


def test_pairs_run_in_every_condition_and_in_both_orders() -> None:
    pairs = [case for case in full() if isinstance(case, PairCase)]
    assert {case.condition for case in pairs} == set(CONDITIONS) - {CPU_CONDITION}
    by_condition = Counter(case.condition for case in pairs)
    assert by_condition[DEFAULT_CONDITION] >= 200
    for condition in by_condition:
        mine = [case for case in pairs if case.condition == condition]
        assert {case.order for case in mine} == {"collective_first", "compute_first"}
        assert {case.family for case in mine} == {"gemm", "attention", "memory_bound", "mixed"}


def test_one_device_has_no_collectives() -> None:
    assert not any(case.collective for case in full(1))
    without_nccl = plan("full", Machine("cuda", 2, has_collectives=False), [DEFAULT_CONDITION])
    assert not any(block.collective for block in without_nccl)


def test_what_is_cut_short_has_some_of_every_kind() -> None:
    blocks = plan("full", Machine("cuda", 2), [DEFAULT_CONDITION])
    first = {block.kind for block in blocks[:10]}
    assert first >= {"launch", "gemm", "all_reduce", "attention", "memory_bound", "pair"}


def test_sustained_load_runs_on_all_devices_at_once() -> None:
    for block in plan("full", Machine("cuda", 4), [DEFAULT_CONDITION]):
        if block.kind == "sustained":
            assert [case.device_index for case in block.cases if isinstance(case, SustainedCase)] == [0, 1, 2, 3]


def test_odd_shapes_are_the_same_in_every_run_and_bounded() -> None:
    found = shapes.odd_gemms(250)
    assert found == shapes.odd_gemms(250)
    for m, n, k, _ in found:
        assert 1 <= m <= 8192
        assert 64 <= n <= 16384
        assert 64 <= k <= 16384
        assert n % 8 == 0
        assert k % 8 == 0


def test_remaining_work_is_the_plan_without_what_is_done() -> None:
    machine = Machine("cpu", 2)
    blocks = plan("quick", machine, [CPU_CONDITION])
    keys = [case.key for block in blocks for case in block.cases]
    left = remaining(blocks, set(keys[::2]), only="^(gemm|pair)/")
    assert {case.key for block in left for case in block.cases} == {
        key for key in keys[1::2] if key.startswith(("gemm/", "pair/"))
    }
    assert all(block.cases for block in left)


def test_a_job_arrives_as_it_was_sent() -> None:
    job = Job(
        "full", "channels-4", ("nccl-default", "channels-4"), "m.jsonl", "cuda", 2, True, "x/1", "^pair", 12.5, 3.0
    )
    assert Job.from_line(job.to_line()) == job
    assert {block.condition for block in job.blocks_left(set())} == {"channels-4"}


def test_quartiles_of_a_known_sample() -> None:
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)


def test_chains_are_long_where_calls_are_short() -> None:
    assert chain_length(2e-6) == 40
    assert chain_length(5e-4) == 4
    assert chain_length(1.4e-3) == 2, "a burst stays below 3 ms"
    assert chain_length(1e-1) == 1
    lengths = [chain_length(10.0**exponent) for exponent in range(-7, 1)]
    assert lengths == sorted(lengths, reverse=True)


def test_a_timed_call_takes_as_long_as_it_sleeps() -> None:
    import time

    clock, repeats = Clock(torch.device("cpu")), 3
    for timed in (time_eager, time_graph):
        samples = timed(clock, [lambda: time.sleep(2e-3)] * 3, repeats)
        assert len(samples) == repeats
        assert min(samples) >= 2e-3
    assert min(time_host(clock, lambda: time.sleep(1e-3), 2, repeats)) >= 1e-3


def test_buffers_are_distinct_until_the_arena_is_used_up() -> None:
    arena = Arena(1 << 16, torch.float32, torch.device("cpu"))
    buffers = [arena.take(64, 64) for _ in range(4)]
    assert len({buffer.data_ptr() for buffer in buffers}) == 4
    assert arena.take(64, 64).data_ptr() == buffers[0].data_ptr()
    assert all(float(buffer.std()) == pytest.approx(1.0, abs=0.1) for buffer in buffers)
    with pytest.raises(SkipCase, match="needs a buffer"):
        arena.take(1 << 15)


def test_every_call_of_a_chain_reads_weights_that_are_not_in_the_cache() -> None:
    bench = cpu_bench()
    for num_bytes in (1 << 10, 1 << 18, 1 << 21, 1 << 24):
        for calls in (1, 5, 40):
            distinct = bench.cold_count(num_bytes, calls)
            assert distinct == calls or (distinct - 1) * num_bytes >= 2 * bench.l2_bytes


@pytest.mark.parametrize("epilogue", ["bias", "none", "accumulate"])
def test_a_gemm_computes_the_product_it_is_named_after(epilogue: str) -> None:
    bench = cpu_bench()
    m, n, k = 5, 16, 24
    call = gemm.calls(bench, m, n, k, DType.FLOAT32, epilogue, 1)[0]
    bench.rewind()
    x, y = bench.inputs(DType.FLOAT32).take(m, k), bench.outputs(DType.FLOAT32).take(m, n)
    bias, weight = bench.weights(DType.FLOAT32).take(n), bench.weights(DType.FLOAT32).take(n, k)
    added = {"bias": bias, "none": torch.zeros(n), "accumulate": y.clone()}[epilogue]
    expected = x.double() @ weight.double().t() + added.double()
    call()
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def gemm_case() -> GemmCase:
    return GemmCase(m=4, n=64, k=64, dtype=DType.FLOAT32, launch=Launch.EAGER)


def test_an_error_in_a_case_becomes_a_note() -> None:
    def fail() -> Outcome:
        raise RuntimeError("CUDA error: out of luck")

    def skip() -> Outcome:
        raise SkipCase("too large")

    for measure_it, status, text in ((fail, "failed", "out of luck"), (skip, "skipped", "too large")):
        tried = Attempt.from_json(attempt(cpu_bench(), measure_it).to_json())
        note = record_of(gemm_case(), Ranks({1: tried}))
        assert isinstance(note, NoteRecord)
        assert (note.of, note.status, note.rank) == (gemm_case().key, status, 1)
        assert text in note.message


def test_a_record_averages_the_ranks_of_each_repeat() -> None:
    case = AllReduceCase(
        num_bytes=1024, num_devices=2, dtype=DType.FLOAT32, launch=Launch.EAGER, condition=CPU_CONDITION
    )
    both = {
        rank: Attempt(Outcome({"time_s": times}, {"calls": 2, "repeats": 3}))
        for rank, times in enumerate(([1.0, 2.0, 3.0], [3.0, 2.0, 5.0]))
    }
    record = record_of(case, Ranks(both))
    assert isinstance(record, AllReduceRecord)
    assert record.time_s == (2.0, 2.0, 3.0)
    assert record.key == case.key


def test_kernels_belong_to_the_case_whose_range_launched_them() -> None:
    def kernel(name: str, ts: float, correlation: int) -> dict[str, Any]:
        details = {"grid": [2, 66, 1], "block": [384, 1, 1], "correlation": correlation, "registers per thread": 168}
        return {"cat": "kernel", "name": name, "ts": ts, "dur": 54.0, "args": details}

    def launched(ts: float, correlation: int) -> dict[str, Any]:
        return {"cat": "cuda_runtime", "name": "cudaLaunchKernelExC", "ts": ts, "args": {"correlation": correlation}}

    events = [
        {"cat": "user_annotation", "name": "case:a", "ts": 10.0, "dur": 5.0},
        {"cat": "user_annotation", "name": "case:b", "ts": 20.0, "dur": 5.0},
        launched(11.0, 1),
        launched(12.0, 2),
        launched(17.0, 3),
        launched(21.0, 4),
        kernel("second", 40.0, 2),
        kernel("first", 30.0, 1),
        kernel("between", 50.0, 3),
        kernel("third", 60.0, 4),
        kernel("unknown", 70.0, 99),
    ]
    found = kernels_by_label(events)
    assert {key: [one.name for one in seen] for key, seen in found.items()} == {
        "a": ["first", "second"],
        "b": ["third"],
    }
    assert found["a"][0].grid == (2, 66, 1)
    assert found["a"][0].busy_s == pytest.approx(54e-6)


def test_the_worst_link_of_a_topology() -> None:
    rows = ["GPU0\t X \tNV18\tSYS\t0-15", "GPU1\tNV18\t X \tNV4\t0-15", "GPU2\tSYS\tNV4\t X \t0-15"]
    text = "\n".join(["\tGPU0\tGPU1\tGPU2\tCPU Affinity", *rows])
    assert worst_link(text, 2) == "NV18"
    assert worst_link(text, 3) == "SYS"
    assert worst_link("nothing here", 2) is None


def run_measure(out: Path, num_ranks: int, *more: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={num_ranks}"] if num_ranks > 1 else []
    suite = () if "--suite" in more else ("--suite", "quick")
    command = [sys.executable, *launcher, "-m", "validation.measure", *suite, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeasurementFile, str]:
    """A file measured by two processes, cut in the middle of a line, and continued."""
    out = tmp_path_factory.mktemp("measured") / "two.jsonl"
    first = run_measure(out, 2, "--only", r"gemm/.*/16x768x768|pair/.*/65536/gemm")
    assert first.returncode == 0, first.stderr
    out.write_bytes(out.read_bytes()[:-25])
    second = run_measure(out, 2, "--only", SOME)
    assert second.returncode == 0, second.stderr
    return out, read_measurements(out), second.stderr


def test_two_processes_measure_and_a_cut_run_goes_on(two_ranks: tuple[Path, MeasurementFile, str]) -> None:
    _, found, said = two_ranks
    machine = Machine("cpu", 2)
    wanted = {
        case.key for block in remaining(plan("quick", machine, [CPU_CONDITION]), set(), SOME) for case in block.cases
    }
    assert {record.key for record in found.records} == wanted
    assert not found.notes
    assert "half written" in said
    assert f"of {len(wanted)} cases are there" in said


def test_a_laptop_is_recorded_as_a_laptop(two_ranks: tuple[Path, MeasurementFile, str]) -> None:
    _, found, said = two_ranks
    assert (found.header.device_type, found.header.num_devices) == ("cpu", 2)
    assert found.header.conditions == {CPU_CONDITION: None}
    assert "gloo on CPUs" in said
    launches = {record.launch for record in found.records if isinstance(record, GemmRecord | PairRecord)}
    assert launches == {Launch.EAGER}


def test_measured_times_are_physical(two_ranks: tuple[Path, MeasurementFile, str]) -> None:
    _, found, _ = two_ranks
    for record in found.select(GemmRecord):
        q1, median, q3 = record.time_s
        assert 0 < q1 <= median <= q3 < 1
        assert 2 * record.m * record.n * record.k / median < 1e14
    for pair in found.select(PairRecord):
        together = pair.together_s.median
        assert math.isfinite(together)
        assert pair.compute_span_s is not None
        assert together >= pair.compute_span_s.q1
    assert {record.quantity for record in found.select(LaunchRecord)} == {
        "host_all_reduce",
        "round_trip",
        "host_kernel",
    }


def test_a_laptop_measures_its_host(tmp_path: Path) -> None:
    """A layer and a round trip in each of two processes, neither of which takes the other's for done."""
    out = tmp_path / "host.jsonl"
    assert run_measure(out, 1, "--suite", "host", "--only", "host_layer|round_trip").returncode == 0
    found = read_measurements(out)
    wanted = {(name, detail, process) for name, detail in HOST_SOME for process in (1, 2)}
    assert {(record.quantity, record.detail, record.process) for record in found.select(LaunchRecord)} == wanted
    assert all(0 < record.time_s[1] < 1 for record in found.select(LaunchRecord))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--conditions", "chanels-4"], "channels-4"),
        (["--conditions", "channels-4"], "none of them can be measured here"),
        (["--only", "("], "regular expression"),
        (["--deadline", "-3"], "positive"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_sentence(
    arguments: Sequence[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure.main(["--out", str(tmp_path / "m.jsonl"), *arguments]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said


def test_a_file_of_another_machine_is_refused(
    two_ranks: tuple[Path, MeasurementFile, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _, _ = two_ranks
    before = out.read_bytes()
    assert measure.main(["--out", str(out)]) == 2
    assert "header.num_devices" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_nothing_is_started_when_the_deadline_is_too_near(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["--out", str(tmp_path / "m.jsonl"), "--deadline", "0.5"]) == 0
    said = capsys.readouterr().err
    assert "left in gloo" in said
    assert read_measurements(tmp_path / "m.jsonl").records == ()


def test_blocks_of_one_kind_stay_together() -> None:
    for block in plan("full", Machine("cuda", 2), list(CONDITIONS)[:2]):
        assert isinstance(block, Block)
        assert len({case.kind for case in block.cases}) == 1
        assert len({case.collective for case in block.cases}) == 1
