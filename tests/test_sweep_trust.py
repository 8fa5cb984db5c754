"""What a resumed sweep trusts: files that have not changed, parts that are as they were written, its own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from process_support import files_limited_to

from kraken_sim import sweep
from kraken_sim.errors import InputError
from kraken_sim.explore.sweep.parts import sealed, unsealed
from kraken_sim.explore.sweep.plan import Plan, load_plan
from kraken_sim.explore.sweep.runners import run_chunks
from kraken_sim.explore.sweep.store import Store, opened
from kraken_sim.explore.sweep.sweep import run_to_file
from kraken_sim.profiles.load import load_profile

FASTER = """
description: An H100 node with other memory
base: {base}
device: {{hbm_bandwidth_bytes_per_s: {{value: 3.6 TB/s, kind: assumed, source: a what-if}}}}
"""
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def written(folder: Path, **changes: Any) -> Path:
    question = {
        "hardware": "h200-sxm-x8",
        "model": {"preset": "125M"},
        "context_length": {"start": 16, "stop": 1616, "step": 16},
        "num_devices": 2,
        **changes,
    }
    file = folder / "question.yaml"
    file.write_text(json.dumps(question), encoding="utf-8")
    return file


def own_base(folder: Path) -> Path:
    """A datasheet over a copy of a shipped profile, both in `folder`."""
    text = (Path(__file__).parent.parent / "hardware_profiles" / "h100-sxm-x8.yaml").read_text(encoding="utf-8")
    (folder / "base.yaml").write_text(text, encoding="utf-8")
    (folder / "mine.yaml").write_text(FASTER.format(base="./base.yaml"), encoding="utf-8")
    return folder / "base.yaml"


def config_in(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}), encoding="utf-8")
    return path


def half_done(plan: Plan, out: Path) -> None:
    """Parts of all chunks but the last, and beside them the whole file."""
    with opened(out, plan) as store:
        for chunk, _, data in run_chunks(plan, range(plan.num_chunks - 1), jobs=1):
            store.add(chunk, data)
    run_to_file(plan, out.with_name("whole.parquet"), jobs=1)


def test_a_changed_base_of_a_datasheet_is_another_sweep_and_another_machine(tmp_path: Path) -> None:
    base = own_base(tmp_path)
    file = written(tmp_path, hardware="./mine.yaml")
    before, machine = load_plan(file).fingerprint, load_profile(tmp_path / "mine.yaml")
    assert load_plan(file).fingerprint == before
    base.write_text(base.read_text(encoding="utf-8").replace("value: 132", "value: 131", 1), encoding="utf-8")
    os.utime(base, ns=(1, 1))
    assert load_plan(file).fingerprint != before
    assert load_profile(tmp_path / "mine.yaml").device.num_sms == machine.device.num_sms - 1


def test_a_changed_config_given_as_a_folder_is_another_sweep(tmp_path: Path) -> None:
    config = config_in(tmp_path / "llama")
    file = written(tmp_path, model={"config": "llama"})
    before = load_plan(file).fingerprint
    config_in(config.parent, num_hidden_layers=5)
    assert load_plan(file).fingerprint != before


@pytest.mark.parametrize(
    "named",
    [
        {"architecture": {"kind": "file", "path": "own.yaml"}},
        {"architecture": [{"kind": "file", "path": "own.yaml"}, {"kind": "standard"}]},
        {"runtime": {"host": "own.yaml"}},
        {"runtime": {"host": {"file": "own.yaml"}}},
    ],
)
def test_a_changed_file_of_an_architecture_or_a_host_is_another_sweep(named: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("before: 1\n", encoding="utf-8")
    file = written(tmp_path, **named)
    before = load_plan(file).fingerprint
    (tmp_path / "own.yaml").write_text("after: 2\n", encoding="utf-8")
    assert load_plan(file).fingerprint != before


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    config_in(tmp_path / "a")
    second = config_in(tmp_path / "b", num_hidden_layers=8)
    file = written(tmp_path, model={"config": ["a/config.json", "b/config.json"]})
    code = f"from pathlib import Path; from kraken_sim.explore.sweep.plan import load_plan\n" \
           f"print(load_plan(Path({str(file)!r})).fingerprint)"  # fmt: skip
    seeded = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in range(4)]
    command = [sys.executable, "-c", code]
    found = {subprocess.run(command, env=env, check=True, capture_output=True).stdout for env in seeded}
    assert len(found) == 1
    before = load_plan(file).fingerprint
    second.write_text(json.dumps({**CONFIG, "num_hidden_layers": 9}), encoding="utf-8")
    assert load_plan(file).fingerprint != before


def test_a_renamed_folder_goes_on_with_its_sweep(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    own_base(first)
    before = load_plan(written(first, hardware="./mine.yaml")).fingerprint
    first.rename(tmp_path / "second")
    assert load_plan(tmp_path / "second" / "question.yaml").fingerprint == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "swapped", "another sweep's"])
def test_a_damaged_part_is_computed_again(tmp_path: Path, damage: str) -> None:
    plan, out = load_plan(written(tmp_path)), tmp_path / "r.parquet"
    half_done(plan, out)
    with opened(out, plan) as store:
        part, other = store.part(0), store.part(1)
    content = bytearray(part.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "swapped":
        content = bytearray(other.read_bytes())
    else:
        data = unsealed(bytes(content), plan.fingerprint, 0)
        assert data is not None
        content = bytearray(sealed(data, "another", 0))
    part.write_bytes(bytes(content))
    with opened(out, plan) as store:
        assert store.missing() == [0, plan.num_chunks - 1]
    run_to_file(plan, out, jobs=1)
    assert out.read_bytes() == out.with_name("whole.parquet").read_bytes()


def test_a_part_that_is_damaged_while_the_sweep_runs_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = load_plan(written(tmp_path)), tmp_path / "r.parquet"
    half_done(plan, out)
    add = Store.add

    def add_and_damage(self: Store, chunk: int, data: bytes) -> None:
        add(self, chunk, data)
        if chunk == plan.num_chunks - 1:
            self.part(1).write_bytes(b"damaged")

    monkeypatch.setattr(Store, "add", add_and_damage)
    run_to_file(plan, out, jobs=1)
    assert out.read_bytes() == out.with_name("whole.parquet").read_bytes()


def test_a_finished_file_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    plan, out = load_plan(written(tmp_path)), tmp_path / "r.parquet"
    run_to_file(plan, out, jobs=1)
    content = bytearray(out.read_bytes())
    column = pq.ParquetFile(out).metadata.row_group(0).column(2)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    out.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        run_to_file(plan, out, jobs=1)


def test_a_folder_that_no_sweep_made_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    parts = tmp_path / "r.parquet.parts"
    parts.mkdir()
    (parts / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="no sweep made"):
        run_to_file(load_plan(written(tmp_path)), out, jobs=1)
    assert [path.name for path in parts.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["lock", "sweep.json", "0000000.part", "0000001.tmp", "whole.tmp"])
@pytest.mark.parametrize("kind", ["link to a file", "link to a device", "pipe", "folder"])
def test_what_is_no_regular_file_among_the_parts_is_neither_read_nor_written(
    tmp_path: Path, name: str, kind: str
) -> None:
    plan, out, theirs = load_plan(written(tmp_path)), tmp_path / "r.parquet", tmp_path / "theirs"
    theirs.write_text("theirs", encoding="utf-8")
    with opened(out, plan) as store:
        store.add(0, b"results")
    place = store.parts / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(theirs if kind == "link to a file" else "/dev/zero")
    with pytest.raises(InputError, match=f"a folder with '{name}', which is no regular file and of no sweep"):
        run_to_file(plan, out, jobs=1)
    assert theirs.read_text(encoding="utf-8") == "theirs"
    if name.endswith(".part"):
        assert store.read(0) is None


def test_a_folder_in_which_another_version_did_nothing_yet_is_taken_over(tmp_path: Path) -> None:
    plan, out = load_plan(written(tmp_path)), tmp_path / "r.parquet"
    older = json.dumps({"sweep": "of an older version", "name": "s"})
    with opened(out, plan) as store:
        store.label.write_text(older, encoding="utf-8")
    with opened(out, plan) as store:
        assert plan.fingerprint in store.label.read_text(encoding="utf-8")
        store.add(0, b"results")
    store.label.write_text(older, encoding="utf-8")
    with pytest.raises(InputError, match="unfinished results of another sweep"):
        run_to_file(plan, out, jobs=1)
    assert store.read(0) == b"results"


def test_a_file_of_somebody_in_the_folder_of_the_parts_or_beside_it_is_kept(tmp_path: Path) -> None:
    plan, out = load_plan(written(tmp_path)), tmp_path / "r.parquet"
    with opened(out, plan) as store:
        (store.parts / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "r.parquet.tmp").write_text("mine too", encoding="utf-8")
    run_to_file(plan, out, jobs=1)
    assert [path.name for path in store.parts.iterdir()] == ["notes.txt"]
    assert (tmp_path / "r.parquet.tmp").read_text(encoding="utf-8") == "mine too"


def test_a_full_disk_is_an_error_that_says_so_and_the_work_goes_on(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "r.parquet"
    plan = load_plan(file)
    half_done(plan, out)
    with files_limited_to(1_000), pytest.raises(InputError, match="what is done is kept"):
        run_to_file(plan, out, jobs=1)
    with opened(out, plan) as store:
        assert store.missing() == [plan.num_chunks - 1]
    run_to_file(plan, out, jobs=1)
    assert out.read_bytes() == out.with_name("whole.parquet").read_bytes()


def test_results_of_a_finished_file_are_those_of_a_sweep_in_memory(tmp_path: Path) -> None:
    question = {"hardware": "h200-sxm-x8", "model": {"preset": "125M"}, "context_length": [16, 32], "num_devices": 2}
    kept = sweep(question, out=tmp_path / "r.parquet", jobs=1)
    assert kept.records == sweep(question, jobs=1).records
