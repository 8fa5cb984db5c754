"""Sweeps that are killed, resumed, run on several processes or on a Dask cluster: nothing lost, the same file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import joblib
import pyarrow.parquet as pq
import pytest
from joblib.parallel import ThreadingBackend
from process_support import module_command, running, wait_for

from kraken_sim.cli import main
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.sweep import reach, runners
from kraken_sim.explore.sweep.plan import Plan, load_plan
from kraken_sim.explore.sweep.reach import unreachable
from kraken_sim.explore.sweep.store import opened
from kraken_sim.explore.sweep.sweep import run_to_file
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import profile_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario

QUESTION = """
hardware: [h200-sxm-x8, a100-sxm4-80gb-x8]
model: {preset: [125M, 1.3B]}
architecture: [{kind: standard}, {kind: kraken, ways: [2, 4, 8]}]
num_devices: 4
context_length: {start: 16, stop: 1025, step: 24}
batch_size: [1, 2]
"""


@pytest.fixture
def question(tmp_path: Path) -> Path:
    file = tmp_path / "question.yaml"
    file.write_text(QUESTION, encoding="utf-8")
    return file


@pytest.fixture
def plan(question: Path) -> Plan:
    return load_plan(question)


@pytest.fixture
def small_plan(tmp_path: Path) -> Plan:
    file = tmp_path / "small.yaml"
    lengths = list(range(16, 416))
    file.write_text(f"hardware: h200-sxm-x2\nmodel: {{preset: 125M}}\nnum_devices: 2\ncontext_length: {lengths}\n")
    return load_plan(file)


def parts_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.part")}


def has_parts(folder: Path, enough: int) -> bool:
    return len(parts_in(folder)) >= enough


def test_a_killed_sweep_goes_on_where_it_was_and_ends_in_the_same_file(
    tmp_path: Path, question: Path, plan: Plan
) -> None:
    out, parts = tmp_path / "killed.parquet", tmp_path / "killed.parquet.parts"
    command = [sys.executable, "-m", "kraken_sim.cli", "sweep", str(question), "--out", str(out), "--jobs", "1"]
    for enough in (3, 9):
        with running(command) as (process,):
            wait_for(partial(has_parts, parts, enough))
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not out.exists()
    kept = parts_in(parts)
    assert 9 <= len(kept) < plan.num_chunks
    (parts / "0000099.tmp").write_bytes(b"half a part")

    with opened(out, plan) as store:
        assert store.missing() == [n for n in range(plan.num_chunks) if f"{n:07d}.part" not in kept]
    done = run_to_file(plan, out, jobs=1)
    assert done.num_found == plan.num_points - done.num_run
    assert done.num_found == sum(min(plan.chunk_size, plan.num_points - int(n[:7]) * plan.chunk_size) for n in kept)

    undisturbed = tmp_path / "undisturbed.parquet"
    run_to_file(plan, undisturbed, jobs=2)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert pq.read_table(out)["point"].to_pylist() == list(range(plan.num_points))
    assert sorted(path.name for path in tmp_path.glob("*parquet*")) == ["killed.parquet", "undisturbed.parquet"]


def test_without_a_name_results_are_called_like_the_question(
    tmp_path: Path, question: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(question), "--jobs", "1"]) == 0
    assert pq.read_table(tmp_path / "question.parquet").num_rows == plan.num_points


def test_unfinished_results_of_another_sweep_are_kept_apart(tmp_path: Path, plan: Plan) -> None:
    out = tmp_path / "r.parquet"
    with opened(out, plan) as store:
        store.add(0, b"kept")
        with pytest.raises(InputError, match="another sweep is writing there"), opened(out, plan):
            pass
    (tmp_path / "other.yaml").write_text(QUESTION.replace("[1, 2]", "[1, 3]"), encoding="utf-8")
    other = load_plan(tmp_path / "other.yaml")
    with pytest.raises(InputError, match="unfinished results of another sweep"), opened(out, other):
        pass
    assert store.read(0) == b"kept"


def test_a_changed_profile_is_another_sweep(tmp_path: Path) -> None:
    profile, file = tmp_path / "mine.yaml", tmp_path / "q.yaml"
    text = profile_path("h200-sxm-x8").read_text(encoding="utf-8")
    profile.write_text(text, encoding="utf-8")
    question = {"hardware": "./mine.yaml", "model": {"preset": "125M"}, "context_length": [16, 32], "num_devices": 2}
    file.write_text(json.dumps(question), encoding="utf-8")
    before = load_plan(file).fingerprint
    assert load_plan(file).fingerprint == before
    profile.write_text(text + "# changed\n", encoding="utf-8")
    assert load_plan(file).fingerprint != before


@pytest.mark.parametrize("address", ["dask://127.0.0.1:9", "spark://127.0.0.1:9", "dask://"])
def test_an_unreachable_cluster_is_said_and_nothing_is_lost(
    address: str,
    tmp_path: Path,
    question: Path,
    plan: Plan,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "r.parquet"
    with opened(out, plan) as store:
        store.add(0, b"kept")
    assert main(["sweep", str(question), "--out", str(out), "--cluster", address]) == 2
    assert "--cluster" in capsys.readouterr().err
    assert store.read(0) == b"kept"


class AllAtOnce(ThreadingBackend):  # type: ignore[misc]  # joblib has no types
    """A backend like Ray's: it returns what a call was given, and nothing before."""

    supports_return_generator = False


def test_a_backend_that_cannot_stream_gets_waves_and_ends_in_the_same_file(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def all_at_once(_: str) -> Iterator[None]:
        with joblib.parallel_config(AllAtOnce(), n_jobs=2):
            yield

    monkeypatch.setattr(runners, "_cluster_backend", all_at_once)
    run_to_file(plan, tmp_path / "waves.parquet", cluster="ray://head:10001")
    run_to_file(plan, tmp_path / "here.parquet", jobs=1)
    assert (tmp_path / "waves.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def workers_of_this_process() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if b"LokyProcess" in file.read() and f"\nPPid:\t{os.getpid()}\n" in status_of(name):
                found.append(int(name))
    return found


def status_of(process: str) -> str:
    with open(f"/proc/{process}/status", encoding="utf-8") as file:
        return file.read()


def test_a_sweep_whose_worker_is_ended_from_outside_says_so_and_goes_on(tmp_path: Path, small_plan: Plan) -> None:
    plan = small_plan
    out, alone = tmp_path / "r.parquet", tmp_path / "alone.parquet"

    def kill_one(_: int, __: int) -> None:
        # Progress may come before the first worker or after the last one.
        for worker in workers_of_this_process()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    with pytest.raises(InfeasibleError, match=r"ended from outside.*what is done is kept"):
        run_to_file(plan, out, jobs=2, progress=kill_one)
    run_to_file(plan, out, jobs=1)
    run_to_file(plan, alone, jobs=1)
    assert out.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "no memory left"), (OSError(24, "Too many open files"), "Too many open files")]
)
def test_what_a_machine_lacks_for_a_moment_is_no_result_of_a_point(
    error: Exception, words: str, tmp_path: Path, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan
    out, alone = tmp_path / "r.parquet", tmp_path / "alone.parquet"
    predict, calls = Predictor.predict, count()

    def short_once(self: Predictor, scenario: Scenario) -> Prediction:
        if next(calls) == 20:
            raise error
        return predict(self, scenario)

    monkeypatch.setattr(Predictor, "predict", short_once)
    with pytest.raises(InfeasibleError, match=words):
        run_to_file(plan, out, jobs=1)
    run_to_file(plan, out, jobs=1)
    run_to_file(plan, alone, jobs=1)
    assert out.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0" * 8])
def test_whoever_is_no_scheduler_is_found_out_before_a_client_asks(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert unreachable(place, greets=True) == "what answers is no Dask scheduler"


def test_a_dead_host_is_no_cluster_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unreachable("127.0.0.1:1", greets=False) == "Connection refused"
    assert unreachable("a" * 70 + ".b:1", greets=True) == "no host can have such a name"
    monkeypatch.setattr(reach, "CONNECT_S", 0.1)
    asked, over = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        asked.set()
        over.wait(60.0)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", slow)
    start = time.monotonic()
    assert unreachable("slow.name:1", greets=False) == "its name is not found"
    assert time.monotonic() - start < 3.0
    assert asked.is_set()
    over.set()


def test_a_dask_cluster_that_loses_a_worker_loses_no_point(tmp_path: Path, plan: Plan) -> None:
    pytest.importorskip("distributed")
    out, alone = tmp_path / "dask.parquet", tmp_path / "alone.parquet"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10"}
    scheduler_file = tmp_path / "scheduler.json"
    where = ["--scheduler-file", str(scheduler_file), "--no-dashboard"]
    scheduler = module_command("distributed.cli.dask_scheduler", *where, "--host", "127.0.0.1", "--port", "0")
    worker = module_command("distributed.cli.dask_worker", *where, "--nthreads", "1", "--no-nanny")
    with running(scheduler, worker, worker, env=environment, cwd=tmp_path) as (_, *workers):
        wait_for(scheduler_file.exists)
        address = json.loads(scheduler_file.read_text(encoding="utf-8"))["address"].replace("tcp://", "dask://")
        wait_for_workers(address.replace("dask://", "tcp://"), 2)
        killed: list[int] = []

        def kill_one(done: int, _: int) -> None:
            if done > 300 and not killed:
                os.kill(workers[0].pid, signal.SIGKILL)
                killed.append(workers[0].wait())

        run_to_file(plan, out, cluster=address, progress=kill_one)
        assert killed == [-signal.SIGKILL]
        assert workers[1].poll() is None
    run_to_file(plan, alone, jobs=1)
    assert out.read_bytes() == alone.read_bytes()


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=30)
