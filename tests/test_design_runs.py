"""A search that is stopped goes on where it was, and answers the same whoever does its work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

from kraken_sim import search_designs
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.explore.design import bounded, evaluate, search
from kraken_sim.explore.design.batches import search_recipe
from kraken_sim.explore.design.request import DesignRequest
from kraken_sim.explore.sweep import runners

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
SEARCH = {"num_hidden_layers": [12, 16, 20, 24, 28], "channels": [None, 4, 8], "kind": ["standard", "kraken"]}
REQUEST = {"name": "test", "base": BASE, "budget": 1.3e9, "objectives": ["ttft", "energy"], "search": SEARCH}


def request(**changes: Any) -> DesignRequest:
    return DesignRequest.model_validate({**REQUEST, **changes})


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 3)
    monkeypatch.setattr(bounded, "SIMULATED_TOGETHER", 3)
    monkeypatch.setattr(bounded, "TOGETHER", 3)


class KilledError(BaseException):
    """What nobody catches, as nobody catches a signal 9."""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("method", ["all", "bounds"])
def test_a_search_that_was_killed_goes_on_and_ends_as_any_other(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, out, parts = request(method=method), tmp_path / "found.parquet", tmp_path / "found.parquet.parts"
    whole = search_designs(asked)
    computed: list[Any] = []

    def kill(done: int, _: int) -> None:
        if done >= 8:
            raise KilledError

    with pytest.raises(KilledError):
        search.search_to_file(asked, out, progress=kill)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.part")}
    assert kept
    assert not out.exists()
    (parts / "0000001.part").write_bytes(b"damaged")

    def noted(answer: Any, *given: Any) -> Any:
        computed.append(given)
        return answer(*given)

    for module, name in ((evaluate, "answer_designs"), (bounded, "answer_bounds")):
        monkeypatch.setattr(module, name, partial(noted, getattr(module, name)))
    resumed = search_designs(asked, out=out)
    assert resumed.as_dict() == whole.as_dict()
    assert resumed.rejections == whole.rejections
    assert pq.read_table(out).num_rows == len(whole.evaluated)
    assert not parts.exists()
    again = len(computed)
    computed.clear()
    search_designs(asked)
    assert again == len(computed) - len(kept) + 1


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("method", ["all", "bounds"])
def test_processes_find_what_one_finds(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(method=method)
    together: list[int] = []
    as_they_come = runners._as_they_come

    def noted(tasks: Any, jobs: int) -> Any:
        together.append(jobs)
        return as_they_come(tasks, jobs)

    alone = search_designs(asked)
    monkeypatch.setattr(runners, "_as_they_come", noted)
    assert search_designs(asked, jobs=2).as_dict() == alone.as_dict()
    assert 2 in together


def test_unfinished_results_of_another_search_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "found.parquet"
    search_designs(request(), out=out)
    with pytest.raises(InputError, match="results of another search"):
        search_designs(request(budget=1.2e9), out=out)
    assert search_designs(request(), out=out).best.latency_s > 0.0


def test_a_changed_file_of_an_architecture_or_a_host_is_another_search(tmp_path: Path) -> None:
    layers, host = tmp_path / "layers.yaml", tmp_path / "host.yaml"
    for path in (layers, host):
        path.write_text("before: 1\n", encoding="utf-8")
    base = {**BASE, "architecture": {"kind": "file", "path": str(layers)}, "runtime": {"host": str(host)}}
    found = {search_recipe(request(base=base)).fingerprint}
    for path in (layers, host):
        path.write_text("after: 2\n", encoding="utf-8")
        found.add(search_recipe(request(base=base)).fingerprint)
    assert len(found) == 3
    assert search_recipe(request(base=base)).fingerprint in found


def test_the_command_takes_what_sweeps_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "design.yaml", tmp_path / "found.parquet"
    file.write_text(yaml.safe_dump(REQUEST), encoding="utf-8")
    assert main(["explore", "design", str(file), "--out", str(out), "--jobs", "0"]) == 2
    assert "--jobs: must be at least 1" in capsys.readouterr().err
    assert main(["explore", "design", str(file), "--out", str(out), "--cluster", "spark://x:1"]) == 2
    assert "must be dask://host:port or ray://host:port" in capsys.readouterr().err
    assert main(["explore", "design", str(file), "--out", str(out), "-q"]) == 0
    rows = pq.read_table(out).to_pylist()
    assert any(row["on_front"] for row in rows)
    assert not capsys.readouterr().out
