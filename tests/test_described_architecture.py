"""An architecture that a file describes: equal layers give an equal program, what is wrong is named at its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
import yaml
from layout_support import layout_of

from kraken_sim import best_degree, compare, simulate, sweep
from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.description import read_description
from kraken_sim.architectures.from_file import described_layout
from kraken_sim.architectures.kraken import KRAKEN_WIRING
from kraken_sim.architectures.ladder import LADDER_WIRING
from kraken_sim.architectures.parallel import PARALLEL_WIRING
from kraken_sim.architectures.registry import architecture
from kraken_sim.architectures.sequence_parallel import SEQUENCE_PARALLEL_WIRING
from kraken_sim.architectures.standard import STANDARD_WIRING
from kraken_sim.architectures.two_parts import DOMINO_WIRING
from kraken_sim.architectures.wiring_check import wiring_problems
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.presets import preset
from kraken_sim.scenario.spec import load_scenario

LADDER: Final = """\
name: my-ladder
description: each block reads a residual without the one before it
layers:
  - period:
      - - take: {of: all_reduce_attention, name: residual_attention, layers_back: 1}
        - norm: norm_attention
        - attention
        - begin: all_reduce_attention
        - take: {of: all_reduce_ffn, name: residual_ffn, layers_back: 1}
        - norm: norm_ffn
        - ffn
        - begin: all_reduce_ffn
end:
  - take: {of: all_reduce_attention, name: residual_attention}
  - take: {of: all_reduce_ffn, name: residual_ffn}
"""
CAAT: Final = """\
name: half-channels
layers:
  - period:
      - - norm: norm_attention
        - attention
        - residual: {name: residual_attention, by: {name: all_reduce_attention, share: 0.5}}
        - norm: norm_ffn
        - ffn:
        - residual: {name: residual_ffn, by: {name: all_reduce_ffn, share: 0.5}}
"""
DESYNC: Final = """\
name: rarely
layers:
  - period:
      - &quiet
        - norm: norm_attention
        - attention
        - residual: residual_attention
        - norm: norm_ffn
        - ffn
        - residual: residual_ffn
      - - norm: norm_attention
        - attention
        - residual: residual_attention
        - norm: norm_ffn
        - ffn
        - residual: residual_ffn
        - send_stream: all_reduce
"""
DOMINO: Final = """\
name: halves
two_parts: true
layers:
  - period:
      - - part_0: [{take: {of: f, name: r, layers_back: 1}}, {norm: n}, attention, {begin: a}]
        - part_1: [{take: {of: f, name: r, layers_back: 1}}, {norm: n}, attention, {begin: a}]
        - part_0: [{take: {of: a, name: r}}, {norm: n}, ffn, {begin: f}]
        - part_1: [{take: {of: a, name: r}}, {norm: n}, ffn, {begin: f}]
end:
  - part_0: [{take: {of: f, name: r}}]
  - part_1: [{take: {of: f, name: r}}]
"""
GPT_J: Final = """\
name: gpt-j
layers:
  - period: [[{norm: norm}, attention, {ffn: {onto: true}}, {residual: {name: residual, by: all_reduce}}]]
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def asked(path: str, **fields: Any) -> dict[str, Any]:
    base = {"hardware": "h100-sxm-x8", "model": {"preset": "1.3B"}, "num_devices": 4, "context_length": 512}
    return {**base, "architecture": {"kind": "file", "path": path}, **fields}


def problems(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as raised:
        read_description(write(folder, text))
    return "\n".join(map(str, raised.value.problems))


@pytest.mark.parametrize(
    ("text", "kind", "own"),
    [
        (LADDER, "ladder", {}),
        (CAAT, "caat_net", {"reduced_share": 0.5}),
        (DESYNC, "desync", {"sync_every": 2}),
        (DOMINO, "domino", {}),
        (GPT_J, "parallel", {}),
    ],
)
def test_a_described_architecture_is_the_one_that_ships(
    tmp_path: Path, text: str, kind: str, own: dict[str, Any]
) -> None:
    path = write(tmp_path, text)
    shipped = simulate(asked(path, batch_size=2, architecture={"kind": kind, **own}))
    described = simulate(asked(path, batch_size=2))
    assert described.latency_s == shipped.latency_s
    assert described.communication_alone_s == shipped.communication_alone_s
    assert described.memory == shipped.memory
    if kind != "desync":
        assert described.num_parameters == shipped.num_parameters


def test_private_norms_count_on_every_device(tmp_path: Path) -> None:
    description = read_description(write(tmp_path, DESYNC.replace("name: rarely", "name: rarely\nprivate_norms: 1")))
    config = preset("1.3B")
    more = parameter_count(config, described_layout(description, config, 4))
    # A LayerNorm has a scale and a bias.
    assert more - parameter_count(config) == config.num_hidden_layers * 3 * 2 * config.hidden_size


def test_it_runs_compares_sweeps_and_explores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, LADDER)
    scenario = tmp_path / "question.yaml"
    scenario.write_text(yaml.safe_dump(asked("mine.yaml")), encoding="utf-8")
    page = tmp_path / "page.html"
    assert main(["run", str(scenario), "--json", "-", "--html", str(page)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["architecture"] == "my-ladder"
    assert "One layer: my-ladder" in page.read_text(encoding="utf-8")
    found = compare(load_scenario(scenario), architectures=["ladder", "file"])
    assert [prediction.resolved.kind for prediction in found] == ["standard", "ladder", "my-ladder"]
    assert found[1].latency_s == found[2].latency_s
    out = tmp_path / "points.parquet"
    files = [str(tmp_path / "mine.yaml"), write(tmp_path, GPT_J, "other.yaml")]
    data = asked("mine.yaml") | {"architecture": {"kind": "file", "path": files}}
    rows = sweep(data, out=out, jobs=1).records
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["ttft_s"] == found[2].latency_s
    degree = best_degree(load_scenario(scenario), perturb=False, architectures=["standard", "file"])
    assert {row.kind for row in degree.rows} == {"standard", "my-ladder"}


def test_a_scenario_without_the_path_or_with_a_wrong_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"architecture\.path: is required for kind file"):
        simulate(asked("") | {"architecture": {"kind": "file"}})
    with pytest.raises(InputError, match=r"architecture\.path: .*there is no file"):
        simulate(asked(str(tmp_path / "none.yaml")))
    wrong = write(tmp_path, LADDER.replace("begin: all_reduce_ffn", "begin: all_reduce_fn"))
    with pytest.raises(InputError, match=r"architecture\.path: mine\.yaml: .*line 9: waits for what nothing begins"):
        simulate(asked(wrong))


@pytest.mark.parametrize("number", [3, 5])
def test_layers_of_a_number_are_as_many_as_the_model_has(tmp_path: Path, number: int) -> None:
    file = write(tmp_path, LADDER.replace("  - period:", f"  - number: {number}\n    period:"))
    with pytest.raises(InputError, match=f"{number} layers are described, the model has 4"):
        simulate(asked(file) | {"model": {"preset": "1.3B", "num_hidden_layers": 4}})
    assert simulate(asked(file) | {"model": {"preset": "1.3B", "num_hidden_layers": number}}).latency_s > 0.0


TAKE_FFN: Final = "{of: all_reduce_ffn, name: residual_ffn, layers_back: 1}"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("begin: all_reduce_ffn", "begin: all_reduce_fn", "line 9: waits for what nothing begins.*'all_reduce_fn'"),
        (TAKE_FFN, TAKE_FFN.replace("1", "0"), "line 9: waits for all_reduce_ffn, which is begun only behind it: a cy"),
        (TAKE_FFN, TAKE_FFN.replace("1", "2"), "line 9: must be at most 1"),
        ("        - attention\n", "", "line 5: a layer has one attention and one FFN"),
        ("        - norm: norm_attention\n", "", "line 6: reads a norm, and none stands before it"),
        ("        - begin: all_reduce_ffn\n", "", "line 11: its output is never added"),
        (
            "begin: all_reduce_ffn",
            "begin: {by: {name: all_reduce_ffn, share: 0.5}}",
            "line 12: a share of the channels",
        ),
        ("- attention\n", "- attenton\n", "line 7: a step is one of .*did you mean 'attention'"),
        ("norm: norm_ffn", "norm: {nme: x}", "line 10: unknown field.*did you mean 'name'"),
        ("  - period:", "  - period: [[{norm: a}, attention, {residual: b}, ffn]]\n  - period:", "goes on to the last"),
        ("end:\n", "end:\n  - attention\n", "line 14: stands behind the last layer"),
        ("name: my-ladder", "nam: my-ladder", "line 1: unknown field.*did you mean 'name'"),
        ("name: my-ladder", "name: my-ladder\nprivate_norms: 3", "line 2: a layer has 2 norms .got 3"),
    ],
)
def test_what_is_wrong_is_named_at_its_line(tmp_path: Path, before: str, after: str, words: str) -> None:
    text = LADDER.replace(before, after, 1)
    assert text != LADDER
    found = problems(tmp_path, text)
    assert re.search(words, found), found


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("{name: a, share: 5}", r"residual\.by\.share: line 3: must be at most 1\.0"),
        ("{nme: a}", r"residual\.by\.nme: line 3: unknown field; .*did you mean 'name'"),
        ("5", r"residual\.by: line 3: must be a mapping of fields"),
    ],
)
def test_a_field_of_two_forms_is_read_as_the_one_that_was_meant(tmp_path: Path, by: str, words: str) -> None:
    path = write(tmp_path, GPT_J.replace("by: all_reduce", f"by: {by}"))
    with pytest.raises(InputError, match=words) as raised:
        simulate(asked(path))
    assert all("Described" not in problem.path and "str" not in problem.path for problem in raised.value.problems)


def test_a_sum_that_nobody_takes_is_named(tmp_path: Path) -> None:
    text = LADDER.replace("        - take: {of: all_reduce_ffn, name: residual_ffn, layers_back: 1}\n", "")
    text = text.replace("  - take: {of: all_reduce_ffn, name: residual_ffn}\n", "")
    assert "line 11: nobody waits for all_reduce_ffn" in problems(tmp_path, text)


def test_the_wirings_that_ship_have_no_such_problem() -> None:
    shipped = [STANDARD_WIRING, PARALLEL_WIRING, KRAKEN_WIRING, LADDER_WIRING, SEQUENCE_PARALLEL_WIRING, DOMINO_WIRING]
    assert [list(wiring_problems(wiring)) for wiring in shipped] == [[] for _ in shipped]


def test_the_layout_is_that_of_the_model(tmp_path: Path) -> None:
    config, record = preset("1.3B"), architecture("file")
    layout = record.layout(Question(config, 4, record.own(path=write(tmp_path, LADDER))))
    standard = layout_of("ladder", config, 4)
    assert (layout.block, layout.share, layout.live_streams) == (standard.block, standard.share, standard.live_streams)


def test_a_grid_of_the_paper_takes_it_beside_the_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, LADDER)
    grid = {
        "name": "rivals", "hardware": "a100-sxm4-40gb-x8", "models": [{"preset": "1.3B"}], "context_lengths": [128],
        "num_devices": [4, 8],
        "architectures": [{"kind": "file", "path": "mine.yaml"}, {"kind": "desync", "sync_every": 2}],
    }  # fmt: skip
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(grid), encoding="utf-8")
    assert main(["paper", "--grid", str(path), "--json", "-"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [set(cell["other_speedups_percent"]) for cell in cells] == [{"my-ladder", "desync"}] * 2
    ladder = simulate(asked("", hardware="a100-sxm4-40gb-x8", context_length=128, architecture={"kind": "ladder"}))
    assert cells[0]["ttft_s"]["my-ladder"] == pytest.approx(ladder.latency_s, rel=0.2)
    assert main(["paper", "--grid", str(path)]) == 0
    assert "my-ladder" in capsys.readouterr().out


DOCS: Final = Path(__file__).parent.parent / "docs" / "architectures.md"


def of_docs(name: str) -> str:
    """The YAML of the page that begins with its file's name."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return next(str(block) for block in blocks if block.startswith(f"# {name}"))


@pytest.fixture
def sub_layers(tmp_path: Path) -> Path:
    for name in ("my-kraken.yaml", "sub-layers.yaml"):
        (tmp_path / name).write_text(of_docs(name), encoding="utf-8")
    return tmp_path / "sub-layers.yaml"


@pytest.mark.parametrize("ways", [2, 4, 8])
def test_the_kraken_of_the_docs_is_kraken(sub_layers: Path, ways: int) -> None:
    question = yaml.safe_load(sub_layers.read_text(encoding="utf-8"))
    path = str(sub_layers.parent / "my-kraken.yaml")
    described, shipped = (
        simulate({**question, "architecture": {"kind": kind, "ways": ways, **own}})
        for kind, own in (("sub_layer_file", {"path": path}), ("kraken", {}))
    )
    assert described.prepared.program.segments == shipped.prepared.program.segments
    assert (described.num_parameters, described.memory) == (shipped.num_parameters, shipped.memory)
    assert described.latency_s == shipped.latency_s


def test_sub_layers_go_through_every_verb(
    sub_layers: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sub_layers.parent)

    def asked(*command: str) -> Any:
        assert main([*command, "--json", "-"]) == 0
        return json.loads(capsys.readouterr().out)

    run = asked("run", "sub-layers.yaml", "--html", "run.html")
    assert run["architecture"] == "my-kraken"
    assert run["sub_layer_file"]["ways"] == 8
    assert "One layer: my-kraken" in Path("run.html").read_text(encoding="utf-8")
    # Without `ways` both have as many sub-layers as there are devices.
    question = ("sub-layers.yaml", "--architecture", "my-kraken.yaml")
    (answer,) = asked("explore", "architecture", *question, "--architectures", "sub_layer_file,kraken")
    own, kraken = (row for row in answer["architectures"] if row["architecture"] != "standard")
    assert own["equal_parameters"] is not None
    assert own["equal_parameters"] == kraken["equal_parameters"]
    assert own["speedup_at_equal_parameters_percent"] == kraken["speedup_at_equal_parameters_percent"]
    assert asked("run", *question)["sub_layer_file"]["ways"] == 4
    (degrees,) = asked("explore", "degree", "sub-layers.yaml", "--architectures", "standard,sub_layer_file")
    assert "sub_layer_file" in degrees["best_by_architecture"]
    grid = {
        "name": "own", "hardware": "a100-sxm4-40gb-x8", "models": [{"preset": "1.3B"}], "context_lengths": [128],
        "num_devices": [4], "architectures": [{"kind": "sub_layer_file", "path": "my-kraken.yaml"}],
    }  # fmt: skip
    Path("grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    (cell,) = asked("paper", "--grid", "grid.yaml")["cells"]
    assert set(cell["other_speedups_percent"]) == {"my-kraken"}


def test_a_sweep_has_ways_of_sub_layers_as_an_axis(sub_layers: Path, tmp_path: Path) -> None:
    question = yaml.safe_load(sub_layers.read_text(encoding="utf-8"))
    path = str(sub_layers.parent / "my-kraken.yaml")
    swept = {**question, "architecture": {"kind": "sub_layer_file", "path": path, "ways": [2, 4, 8]}}
    sweep(swept, out=tmp_path / "points.parquet", jobs=1)
    rows = pq.read_table(tmp_path / "points.parquet").to_pylist()
    assert [row["sub_layer_file.ways"] for row in rows] == [2, 4, 8]
    assert len({row["ttft_s"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("        - receive: all_reduce\n", "", "line 15: nobody receives all_reduce in this layer"),
        ("- receive: all_reduce", "- receive: all_reduced", "waits for what nothing begins.*did you mean 'all_reduce'"),
        ("            - residual: receive\n", "", "its output is never added"),
        (
            "        - each_block:\n            - residual: receive\n",
            "        - residual: receive\n        - each_block:\n",
            "line 22: a device may have several sub-layers.*stands in each_block",
        ),
        ("over: blocks", "over: block", "by.over: line 15: must be one of group, blocks, all .*did you mean 'blocks'"),
    ],
)
def test_what_is_wrong_with_sub_layers_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = of_docs("my-kraken.yaml")
    assert old in text
    assert re.search(words, problems(tmp_path, text.replace(old, new)))


def test_files_of_layers_and_of_sub_layers_are_told_apart(sub_layers: Path) -> None:
    own = str(sub_layers.parent / "my-kraken.yaml")
    with pytest.raises(InputError, match=r"architecture\.kind: .*for example sub_layer_file"):
        simulate(asked(own))
    whole = write(sub_layers.parent, LADDER)
    with pytest.raises(InputError, match=r"architecture\.kind: the file describes whole layers.*for example file"):
        simulate(asked("", architecture={"kind": "sub_layer_file", "path": whole}))
    with pytest.raises(InputError, match=r"architecture\.ways: 3 ways do not fit 4 devices"):
        simulate(asked("", architecture={"kind": "sub_layer_file", "path": own, "ways": 3}))
    with pytest.raises(InputError, match=r"architecture\.path: is required for kind sub_layer_file"):
        simulate(asked("", architecture={"kind": "sub_layer_file"}))
