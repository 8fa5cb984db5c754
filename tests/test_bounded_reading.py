"""What is read is bounded first: hostile files of every kind are errors that name the limit, and soon."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.calibration.samples import gemm_samples, too_many_to_fit
from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.errors import InputError
from kraken_sim.explore.design.request import load_design_request
from kraken_sim.explore.procure.request import load_procure_request
from kraken_sim.explore.sweep.plan import load_plan
from kraken_sim.files.bounded import MAX_DEPTH, MAX_DIGITS, YAML_FILE, Limit, read_bytes
from kraken_sim.files.problems import words_of
from kraken_sim.files.strict_json import parse_json
from kraken_sim.files.strict_yaml import parse_yaml, plain_value, read_yaml
from kraken_sim.measurements.lines import StoredRecords
from kraken_sim.measurements.nccl_tests import read_collectives
from kraken_sim.measurements.records.kernels import GemmRecord
from kraken_sim.measurements.schema import MOST_HELD, MeasurementFile, read_measurements
from kraken_sim.models.hf import config_from_hf
from kraken_sim.paper.grid import load_grid
from kraken_sim.profiles.load import check_profile, load_profile
from kraken_sim.scenario.spec import load_scenario

if TYPE_CHECKING:
    from collections.abc import Callable

SOON_S = 5.0
"""A second on an idle machine."""


def checked(path: Path) -> object:
    if problems := check_profile(path):
        raise InputError(problems)
    return None


READERS: dict[str, Callable[[Path], object]] = {
    "YAML": read_yaml,
    "scenario": load_scenario,
    "sweep": load_plan,
    "cases": lambda path: load_plan(_with_cases(path)),
    "grid": lambda path: load_grid(str(path)),
    "profile": load_profile,
    "check": checked,
    "config": config_from_hf,
    "measurements": read_measurements,
    "times": lambda path: read_collectives(path, collective_kind("all_reduce"), 2),
    "design": load_design_request,
    "purchase": load_procure_request,
}
"""Everything that reads a file of somebody else's."""


def _with_cases(path: Path) -> Path:
    home = Path(os.environ["CASES_HOME"])
    file = home / "with_cases.yaml"
    question = {"hardware": "h200-sxm-x8", "model": {"preset": "125M"}, "sweep": {"cases": str(path)}}
    file.write_text(json.dumps(question), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASES_HOME", str(tmp_path))


def refused(read: Callable[[Path], object], path: Path) -> str:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.monotonic() - began < SOON_S
    assert len(str(caught.value)) < 10_000
    return str(caught.value)


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_opens_what_is_no_regular_file(kind: str, tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.yaml", tmp_path / "loop.yaml"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    (tmp_path / "folder.yaml").mkdir()
    for path in (Path("/dev/zero"), Path("/dev/null"), pipe, loop, tmp_path / "folder.yaml"):
        refused(READERS[kind], path)


@pytest.mark.parametrize("kind", READERS)
def test_names_that_no_file_can_have_are_errors(kind: str, tmp_path: Path) -> None:
    for name in ("\0.yaml", "x" * 300 + ".yaml", "y/" * 3_000 + ".yaml"):
        refused(READERS[kind], tmp_path / name)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind not in ("check", "profile")])
def test_no_reader_takes_a_file_beyond_the_limit_of_its_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(5 << 30)  # takes no room on the disk
    assert "larger than" in refused(READERS[kind], path)


def test_a_file_that_grows_while_it_is_read_is_held_to_the_limit_too() -> None:
    # Files under /proc are regular and have no size.
    with pytest.raises(InputError, match="larger than"):
        read_bytes("/proc/self/maps", Limit("a small file", 0))


def test_nesting_and_values_are_counted_before_they_are_composed() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    parse_yaml(deepest)
    parse_json(deepest)
    for deep in ("[" * 900 + "]" * 900, "{a: " * 900 + "}" * 900, "- " * 900 + "a", f"[{deepest}]"):
        with pytest.raises(InputError, match=f"deeper than {MAX_DEPTH}"):
            parse_yaml(deep)
    with pytest.raises(InputError, match=r"deeper than|maximum nesting depth"):  # libyaml may be the first to refuse
        parse_yaml("[" * 100_000)
    for deep in ("[" * 900 + "]" * 900, "[" * 100_000 + "]" * 100_000, f"[{deepest}]", '{"a":' * 65 + "1" + "}" * 65):
        with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
            parse_json(deep)
    with pytest.raises(InputError, match="more than 200000 values"):
        parse_yaml("- 1\n" * 400_000)


def test_long_keys_above_many_values_take_no_gigabytes() -> None:
    key = "k" * 1_000_000
    with pytest.raises(InputError, match="characters of paths"):
        parse_yaml(f"{'{'}? {key}\n: [{'1, ' * 1_000}]{'}'}")


@pytest.mark.parametrize("sign", ["", "-"])
def test_numbers_of_thousands_of_digits_are_refused_in_our_words(sign: str) -> None:
    number = sign + "1" * 4_301
    with pytest.raises(InputError, match=f"a.b: line 1: a number of .* digits; {MAX_DIGITS} are the most"):
        parse_yaml("a: {b: " + number + "}")
    for refuse in (plain_value, parse_json):
        with pytest.raises(ValueError, match=f"{MAX_DIGITS} are the most"):
            refuse(number)
    with pytest.raises(InputError, match="are the most"):
        parse_yaml("a: 0x" + "f" * 4_301)


@pytest.mark.parametrize("text", ["!!int abc", "!!int ''", "!!float x", "!!bool perhaps", "!!null x", "!!int 1_000"])
def test_a_tag_that_its_text_contradicts_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="which its tag says it is"):
        parse_yaml(f"a: {text}")
    with pytest.raises(InputError, match="tags such as"):
        parse_yaml("a: !!set {x: null}")


def test_tags_that_agree_and_anchors_mean_what_they_mean_in_yaml() -> None:
    data = parse_yaml("{a: &x !!str 1, b: *x, c: !!int '7', d: !!float 2, e: &y [1, 2], f: *y, g: ! z}").data
    assert data == {"a": "1", "b": "1", "c": 7, "d": 2.0, "e": [1, 2], "f": [1, 2], "g": "z"}
    assert type(data["d"]) is float
    for wrong in ("a: *nothing", "{a: &x 1, b: &x 2}"):
        with pytest.raises(InputError, match="not valid YAML"):
            parse_yaml(wrong)


def test_twenty_megabytes_of_yaml_are_refused_by_their_size(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: 1\n" * 4_000_000, encoding="utf-8")
    assert f"{YAML_FILE.max_bytes >> 20} MiB" in refused(read_yaml, path)


HEADER = {
    "kind": "header",
    "schema_version": 1,
    "started_at": "2026-01-01T00:00:00Z",
    "suite": "full",
    "device_type": "cuda",
    "device_name": "NVIDIA H200",
    "num_devices": 2,
    "torch": "2.8",
    "host": {"num_cpus": 8, "platform": "Linux", "python": "3.11"},
}


def long_file(folder: Path, records: int) -> Path:
    path = folder / "long.jsonl"
    rest = '"n":4096,"k":1024,"dtype":"float16","launch":"graph","calls":10,"repeats":5,"time_s":[1e-5,2e-5,3e-5]}\n'
    note = '{"kind":"note","of":"gone","status":"skipped","message":"no"}\n'
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(HEADER) + "\n")
        file.writelines('{"kind":"gemm","m":' + f"{number + 1}," + rest for number in range(records - 1))
        file.write(note)
    return path


def test_a_long_measurement_file_is_read_in_little_memory(tmp_path: Path) -> None:
    records = 60_000
    path = long_file(tmp_path, records)
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from kraken_sim.measurements.schema import read_measurements\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\nfound = read_measurements(Path(sys.argv[1]))\n"
        "print(before, peak(), len(found.records), sum(1 for _ in found.notes))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    before, after, count, notes = map(int, done.stdout.split())
    assert (count, notes) == (records, 1)
    # 40 MB for the records that are held before they are too many; of every record its place and the hash of its key.
    assert after - before < 60e6 + 250 * records


def test_records_that_stay_in_their_file_are_those_that_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = long_file(tmp_path, 50)
    held = read_measurements(path)
    assert isinstance(held.records, tuple)
    assert len(held.records) < MOST_HELD
    monkeypatch.setattr("kraken_sim.measurements.schema.MOST_HELD", 49)
    stored = read_measurements(path)
    assert isinstance(stored.records, StoredRecords)
    assert tuple(stored.records) == held.records
    assert (stored.records[-1], stored.records[3:5]) == (held.records[-1], [*held.records[3:5]])
    first = held.records[0]
    assert stored.select(type(first)) == held.select(type(first))
    assert stored.notes == held.notes
    assert stored.sample(type(first)) == held.sample(type(first)) == held.select(type(first))


def test_a_fit_takes_so_many_of_a_long_file_and_from_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = long_file(tmp_path, 1_000)
    monkeypatch.setattr("kraken_sim.measurements.schema.MOST_HELD", 100)
    monkeypatch.setattr("kraken_sim.calibration.samples.MOST_HELD", 100)
    stored = read_measurements(path)
    every = stored.select(GemmRecord)
    taken = stored.sample(GemmRecord)
    assert (len(every), len(taken)) == (999, 100)
    places = [every.index(record) for record in taken]
    assert places == sorted(set(places))
    assert all(any(tenth <= place < tenth + 200 for place in places) for tenth in range(0, 999, 200))
    assert read_measurements(path).sample(GemmRecord) == taken
    part, device = MeasurementFile("part", stored.header, taken), load_profile("h200-sxm-x2").device
    assert gemm_samples(stored, device, 0.0) == gemm_samples(part, device, 0.0)
    assert too_many_to_fit(stored) == ["of 999 records of kind gemm 100 are fitted"]
    assert too_many_to_fit(part) == []


def test_measurement_files_full_of_mistakes_say_how_many_and_show_the_first(tmp_path: Path) -> None:
    path = long_file(tmp_path, 3)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "gemm", "m": -1}\n' * 200_000)
    text = refused(read_measurements, path)
    assert "line 5.gemm.m: must be at least 1" in text
    assert len(text.splitlines()) == 22
    path.write_text(json.dumps(HEADER) + "\n" + "[" * (3 << 20) + "\n{}\n", encoding="utf-8")
    assert "is longer than 1048576 bytes" in refused(read_measurements, path)
    path.write_text(json.dumps(HEADER) + "\n" + '{"kind":"gemm","m":' + "1" * 5_000 + "}\n", encoding="utf-8")
    assert "line 2" in refused(read_measurements, path)


def test_pydantic_never_speaks_itself() -> None:
    # Kinds of errors that this package's models can raise, with words of pydantic's own in `msg`.
    unknown = {"type": "decimal_type", "loc": (), "msg": "Decimal input should be an integer", "input": 1}
    assert words_of(unknown) == "is not right"  # type: ignore[arg-type]
    ours = {"type": "quantity", "loc": (), "msg": "has no unit", "input": 1}
    assert words_of(ours) == "has no unit"  # type: ignore[arg-type]


def test_a_file_of_the_kernel_s_that_has_nothing_to_read_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(io.BytesIO):
        def read(self, _: int | None = -1) -> Any:
            return None  # as of /proc/kmsg, opened so that nobody waits

    (tmp_path / "waits.yaml").touch()
    monkeypatch.setattr("kraken_sim.files.bounded._opened", lambda *_: Waits())
    assert read_bytes(tmp_path / "waits.yaml", YAML_FILE) == b""
