"""Measured collectives beside predicted ones: what nccl-tests says of its run, and whether it answers the question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.cli import main
from kraken_sim.measurements.nccl_tests import read_runs
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.report.collective_html import busbw_figure, time_figure
from kraken_sim.standalone.collective_table import sweep_collective
from kraken_sim.standalone.one_op import collective_spec

if TYPE_CHECKING:
    from pathlib import Path

AR = CollectiveKind.ALL_REDUCE
HEADER = "#  size  count  type  redop  root  time  algbw  busbw #wrong  time  algbw  busbw #wrong"


def output(
    hosts: list[str],
    gpu: str = "NVIDIA H100 80GB HBM3",
    op: str = "all_reduce",
    rows: tuple[str, ...] = ("1048576  262144  float  sum  -1  28.56  36.72  64.25  0  27.99  37.46  65.56  0",),
    per_thread: int = 1,
    version: str = "2.29.2",
) -> str:
    """What nccl-tests prints, one rank for each host named."""
    ranks = [
        f"#  Rank  {rank} Group  0 Pid   {100 + rank} on      {host} device  {rank % 8} [0x53] {gpu}"
        for rank, host in enumerate(hosts)
    ]
    lines = [
        f"# nThread 1 nGpus {per_thread} minBytes 8 maxBytes 1048576 step: 2(factor) warmup iters: 5 graph: 0",
        "# Using devices",
        *ranks,
        f"NCCL version {version}+cuda12.9",
        f"# Collective test starting: {op}_perf",
        HEADER,
        *rows,
        "# Avg bus bandwidth    : 64.9",
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["collective", "all_reduce", *arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], op: str, *arguments: str) -> str:
    assert main(["collective", op, *arguments]) == 2
    return capsys.readouterr().err


H100 = ("--hardware", "h100-sxm-x8", "--num-devices", "8")


def test_a_run_says_its_ranks_machines_gpus_version_and_launches(tmp_path: Path) -> None:
    (run,) = read_runs(tmp_path / write(tmp_path / "a.txt", output(["a", "a", "b", "b"], version="2.27.7")), AR, 4)
    said = run.said
    assert (said.num_ranks, said.num_hosts, said.kind, said.nccl_minor_version) == (4, 2, AR, 27)
    assert (set(said.gpus), said.gpus_per_thread, said.graph_launches) == ({"NVIDIA H100 80GB HBM3"}, 1, 0)
    (row,) = run.rows
    assert (row.count, row.type, row.redop) == (262144, "float", "sum")
    assert row.time_s == pytest.approx(28.56e-6)
    assert row.in_place_s == pytest.approx(27.99e-6)


@pytest.mark.parametrize("tag", ["[1,0]<stdout>:", "[prterun-a-12@1,0]<stdout>:", "0: ", " 3: "])
def test_tags_of_mpirun_and_srun_are_taken_off(tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str) -> None:
    text = output(["a"] * 8)
    tagged = "".join(f"{tag}{line}\n" for line in text.splitlines())
    files = [write(tmp_path / "tagged.txt", "[1,3]<stderr>:a:1:2 [3] NCCL INFO NET, IB\n" + tagged)]
    files.append(write(tmp_path / "plain.txt", text))
    one, other = (compared(capsys, *H100, "--against", file)["rows"] for file in files)
    assert one == other


def test_our_rows_say_what_was_measured_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = compared(capsys, *H100, "--against", write(tmp_path / "a.txt", output(["a"] * 8)))["rows"]
    assert row["measured_in_place_s"] == pytest.approx(27.99e-6)
    assert row["error"] == pytest.approx(row["time_s"] / 28.56e-6 - 1.0)


def test_several_files_and_several_runs_in_one_are_read_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of another collective or number of ranks are left out, and said so."""
    both = output(["a"] * 8) + output(["a"] * 4)
    files = [write(tmp_path / "a.txt", both), write(tmp_path / "b.txt", output(["b"] * 8))]
    found = compared(capsys, *H100, "--against", *files)
    assert len(found["rows"]) == 2
    assert found["warnings"] == [f"{files[0]}: left out, it ran on 4 ranks"]


@pytest.mark.parametrize(
    ("op", "text", "word"),
    [
        ("all_reduce", output(["a"] * 4), "it ran on 4 ranks (got"),
        ("all_reduce", output(["a"] * 4 + ["b"] * 4), "it ran on 2 machines, and these 8 GPUs are on 1"),
        ("all_gather", output(["a"] * 8), "it measured all_reduce"),
        ("all_gather", "1048576 32768 float sum -1 28.5 36 64 0\n", "its rows reduce (sum)"),
        ("all_reduce", "1048576 262144 float none -1 28.5 36 64 0\n", "its rows do not reduce"),
        ("all_gather", "1048576 65536 float none -1 28.5 36 64 0\n", "4 of its counts make a size, as on 4 ranks"),
        ("all_reduce", "1048576 32768 float sum -1 28.5 36 64 0\n", "8 of its counts make a size"),
    ],
)
def test_another_question_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], op: str, text: str, word: str
) -> None:
    assert word in refused(capsys, op, *H100, "--against", write(tmp_path / "a.txt", text))


def test_ranks_on_two_machines_answer_for_a_machine_of_two_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.txt", output(["a"] * 8 + ["b"] * 8))
    assert compared(capsys, "--hardware", "h100-sxm-2x8", "--against", file)["warnings"] == []


@pytest.mark.parametrize(
    ("changes", "options", "word"),
    [
        ({"gpu": "NVIDIA H200"}, (), "measured on NVIDIA H200, predicted for NVIDIA H100 SXM"),
        ({"version": "2.27.7"}, (), "with NCCL 2.27, predicted with the choices of 2.29 (--nccl-version 2.27)"),
        ({"per_thread": 8}, (), "one thread launched for 8 GPUs"),
        ({"rows": ("8  2  float  avg  -1  15.0  0  0  0",)}, (), "measured avg, predicted as sum"),
        ({}, ("-d", "half"), "measured float, asked for half"),
    ],
)
def test_what_differs_within_the_question_is_a_warning(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    options: tuple[str, ...],
    word: str,
) -> None:
    file = write(tmp_path / "a.txt", output(["a"] * 8, **changes))
    (warning,) = compared(capsys, *H100, "--against", file, *options)["warnings"]
    assert word in warning
    assert main(["collective", "all_reduce", *H100, "--against", file, *options]) == 0
    assert f"# Warning              : {warning}"[:100] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("size,time_us", f"{'9' * 5000},5", "line 2: needs a size"),
        ("size,time_us", f"{'9' * 200_000},5", "line 2: is no line of CSV"),
        ("size,time_us", "1_0,5", "line 2: size and time must be numbers"),
        ("size,time_us", "8,٥", "line 2: size and time must be numbers"),
        ("size,time_us,time_us", "8,5,6", "line 1: the column time_us stands there twice"),
        ("size,time_us", "8,5\n" * 10_001, "has 10,001 measurements; 10,000 are the most"),
    ],
)
def test_tables_that_cannot_be_are_refused_with_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, words: str
) -> None:
    file = write(tmp_path / "t.csv", f"{header}\n{row}\n")
    assert main(["collective", "all_reduce", "--hardware", "h200-sxm-x8", "--against", file]) == 2
    assert words in capsys.readouterr().err


def test_the_version_that_was_measured_may_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.txt", output(["a"] * 8, version="2.27.7"))
    assert compared(capsys, *H100, "--against", file, "--nccl-version", "2.27")["warnings"] == []


def test_the_interval_is_that_of_the_fit_and_wider_where_nobody_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Half width 1.645 sqrt(pi / 2) of the mean error; custom kernels of B200 were carried over, so at least 20 %."""
    (row,) = compared(capsys, *H100, "-b", "1M", "-e", "1M")["rows"]
    residual = load_profile("h100-sxm-x8").provenance["collectives.base_s.nvlink.ll"].residual
    assert residual is not None
    assert row["high_s"] / row["time_s"] == pytest.approx(1 + 1.645 * (3.14159 / 2) ** 0.5 * residual, rel=0.01)
    carried = compared(capsys, "--hardware", "b200-sxm-x8", "--library", "custom", "-b", "1M", "-e", "1M")
    assert carried["rows"][0]["high_s"] > 1.35 * carried["rows"][0]["time_s"]
    assert any("custom kernel multimem" in text for text in carried["unmeasured"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("all_reduce", "--hardware", "h100-sxm-2x8"), "nvls_tree over network"),
        (("broadcast", "--hardware", "h100-sxm-x8"), "no broadcast was measured"),
        (("all_reduce", "--hardware", "rtx5090-x8"), "ring simple over host"),
    ],
)
def test_the_table_says_what_was_never_measured(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], word: str
) -> None:
    assert main(["collective", *arguments, "-b", "64M", "-e", "64M"]) == 0
    out = capsys.readouterr().out
    assert any(line.startswith("# Never measured") and word in line for line in out.splitlines())


def test_the_page_draws_the_interval_around_the_prediction() -> None:
    """Both plots: low and high below and above, as a band behind the line."""
    profile = load_profile("h100-sxm-x8")
    table = sweep_collective(
        profile, collective_spec({"op": "all_reduce", "bytes": 8, "num_devices": 8}), [2**20], "float"
    )
    for figure in (time_figure(table), busbw_figure(table)):
        low, high, predicted = (trace.y[0] for trace in figure.data)
        assert low < predicted < high


def test_what_was_measured_is_not_said_to_be_unmeasured(capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(capsys, *H100)["unmeasured"] == []
