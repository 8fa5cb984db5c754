"""Grid files: what they may say, what is wrong with them, and what the shipped what-ifs answer."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.files.shipped import data_dir
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.paper.experiment import geomean_percent, load_grid, run_grid
from kraken_sim.paper.grid import Grid, InterconnectSpec, OverlapModel
from kraken_sim.paper.machine import machine_of, with_interconnect
from kraken_sim.paper.summary import speedups_percent
from kraken_sim.profiles.load import load_profile
from validation import paper_page

if TYPE_CHECKING:
    from pathlib import Path

A100 = "a100-sxm4-40gb-x8"
SMALL = f"""
name: small
hardware: {A100}
models: [{{preset: 1.3B}}]
context_lengths: [128]
num_devices: [4]
"""
SHIPPED = sorted(path.stem for path in data_dir("scenarios").glob("paper_grid*.yaml"))


def written(folder: Path, text: str, name: str = "grid.yaml") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def problems(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as error:
        load_grid(written(folder, text))
    return str(error.value)


def nvlink(bandwidth: str, count: int) -> InterconnectSpec:
    return InterconnectSpec.model_validate({"name": "links", "link": "nvlink", "bandwidth": bandwidth, "count": count})


def test_what_ifs_ship() -> None:
    assert {"paper_grid_h100", "paper_grid_h200", "paper_grid_l40s", "paper_grid_interconnects"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_grid_is_the_papers_grid_of_cells(name: str) -> None:
    grid, paper = load_grid(name), load_grid()
    assert grid.name == f"kraken-{name.replace('_', '-')}"
    assert (grid.models, grid.context_lengths, grid.num_devices) == (
        paper.models,
        paper.context_lengths,
        paper.num_devices,
    )
    assert (grid.reported is None) == (name != "paper_grid")


def test_all_problems_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    text = problems(tmp_path, f"name: x\nhardware: {A100}\nmodels: []\ncontxt_lengths: [1]\nnum_devices: [4]\n")
    for words in ("contxt_lengths", "did you mean 'context_lengths'", "context_lengths: is required", "line 4"):
        assert words in text


def test_a_wrong_item_does_not_make_its_list_empty(tmp_path: Path) -> None:
    text = problems(tmp_path, SMALL.replace("{preset: 1.3B}", "{preset: 1.3B, layers_fraction: 2}"))
    assert text.count("\n  - ") == 1
    assert "models: line 4: must not be empty" in problems(tmp_path, SMALL.replace("{preset: 1.3B}", ""))


def test_errors_of_a_cell_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        (SMALL.replace("1.3B", "175B"), 3, "standard 175B, 128 tokens on 4 devices: the model does not fit"),
        (SMALL.replace("[4]", "[16]"), 2, "on 16 devices: a100-sxm4-40gb-x8 has 8 devices"),
        (SMALL.replace("[128]", "[4096]"), 2, "standard 1.3B, 4096 tokens on 4 devices: the model has 2048"),
        (SMALL.replace("1.3B", "1.3B, kraken_hidden_size: {4: 1283}"), 2, "kraken 1.3B, 128 tokens"),
    ]
    for text, code, words in asked:
        assert main(["paper", "--grid", written(tmp_path, text)]) == code
        assert words in capsys.readouterr().err


def test_unknown_machines_and_models_are_named_with_a_guess(tmp_path: Path) -> None:
    text = problems(tmp_path, SMALL.replace(A100, "a100-sxm-40gb-x8").replace("1.3B", "1.2B"))
    assert f"did you mean '{A100}'" in text
    assert "models.0.preset" in text


def test_quantities_need_units_and_sources(tmp_path: Path) -> None:
    text = problems(tmp_path, SMALL + "launch_costs: {eager_kernel_s: 3.8}\n")
    assert "launch_costs.eager_kernel_s" in text
    assert "launch_costs.source" in text
    assert "3.8 us" in text


def test_an_assumption_changes_the_set_up_or_one_above_it(tmp_path: Path) -> None:
    first = "assumptions:\n  - {name: nccl, description: all by NCCL, runtime: {collective: {library: nccl}}}\n"
    chained = "  - {name: graph, description: and a graph, change_of: ncl, runtime: {launch: graph}}\n"
    text = problems(tmp_path, SMALL + first + chained)
    assert "assumptions.1.change_of" in text
    assert "did you mean 'nccl'" in text
    assert "names two assumptions" in problems(tmp_path, SMALL + first + first.removeprefix("assumptions:\n"))


def test_an_assumption_keeps_what_it_does_not_change() -> None:
    setups = {assumption.name: setup for assumption, setup in load_grid().setups()}
    main_setup, nccl = load_grid().setup, setups["nccl"]
    assert (nccl.runtime.launch, nccl.runtime.overlap_copies) == ("eager", 2)
    assert nccl.runtime.collective.library == "nccl"
    assert nccl.launch_costs == main_setup.launch_costs
    assert setups["nccl-eager-ideal"].runtime.collective.library == "nccl"
    assert setups["nccl-eager-ideal"].overlap_model is OverlapModel.IDEAL
    assert setups["pytorch-launch"].launch_costs is None


def test_a_grid_extends_another_and_not_itself(tmp_path: Path) -> None:
    written(tmp_path, SMALL, "base.yaml")
    grid = load_grid(written(tmp_path, "extends: base.yaml\nname: other\ncontext_lengths: [256]\n"))
    assert (grid.name, grid.context_lengths, grid.num_devices) == ("other", (256,), (4,))
    assert "in a circle" in problems(tmp_path, "extends: grid.yaml\nname: x\n")
    assert "no such grid" in problems(tmp_path, "extends: bse.yaml\nname: x\n")


def test_unknown_grids_are_named_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--grid", "paper_grid_h10"]) == 2
    assert "did you mean 'paper_grid_h100'" in capsys.readouterr().err


def test_widths_of_a_users_own_are_used() -> None:
    model = {"preset": "1.3B", "kraken_hidden_size": {"4": 1152}}
    data = {"name": "x", "hardware": A100, "models": [model], "context_lengths": [128], "num_devices": [4, 8]}
    widths = {
        cell.num_devices: cell.as_dict()["kraken_hidden_size"] for cell in run_grid(Grid.model_validate(data)).cells
    }
    assert widths == {4: 1152, 8: 896}


def test_launch_costs_and_nccl_latency_replace_those_of_the_profile_only() -> None:
    profile = load_profile(A100)
    grid = load_grid()
    machine = machine_of(profile, grid.setup)
    assert machine.launch.eager_kernel_s == pytest.approx(3.8e-6)
    assert machine.launch.eager_kernel_gap_s == profile.launch.eager_kernel_gap_s
    assert machine.collectives == profile.collectives
    slower = machine_of(profile, {assumption.name: setup for assumption, setup in grid.setups()}["nccl-eager"])
    assert slower.collectives.nccl_call_s > profile.collectives.nccl_call_s


def test_the_machines_own_links_change_nothing() -> None:
    profile = load_profile(A100)
    same = with_interconnect(profile, nvlink("25 GB/s", 12))
    for num_devices in (2, 4, 8):
        assert same.topology.interconnect(num_devices) == profile.topology.interconnect(num_devices)


def test_without_nvlink_gpus_meet_over_pcie_at_the_generations_rate() -> None:
    data = {"name": "x", "link": "pcie", "gen": 5, "bandwidth": "63 GB/s"}
    machine = with_interconnect(load_profile(A100), InterconnectSpec.model_validate(data))
    found = machine.topology.interconnect(8)
    assert (found.kind, found.pcie_gen, found.bandwidth_bytes_per_s) == (InterconnectKind.PCIE, 5, 63e9)
    assert machine.device == load_profile(A100).device


def test_a_machine_without_nvlink_cannot_lend_its_latency() -> None:
    with pytest.raises(InputError, match="no nvlink links"):
        with_interconnect(load_profile("l40s-x8"), nvlink("25 GB/s", 12))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{name: a, link: pcie, bandwidth: 31.5 GB/s}", "needs its generation"),
        ("{name: a, link: nvlink, gen: 4, bandwidth: 25 GB/s}", "is for pcie only"),
        ("{name: a, link: nvlnk, bandwidth: 25 GB/s}", "did you mean 'nvlink'"),
        ("{name: a, link: nvlink, bandwidth: 25 us}", "interconnects.0.bandwidth"),
    ],
)
def test_a_wrong_interconnect_is_named(tmp_path: Path, spec: str, words: str) -> None:
    assert words in problems(tmp_path, SMALL + f"interconnects: [{spec}]\n")


def test_slower_links_pay_more_for_hiding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "out.json", tmp_path / "out.html"
    assert main(["paper", "--grid", "paper_grid_interconnects", "--json", str(file), "--html", str(page)]) == 0
    runs = json.loads(file.read_text(encoding="utf-8"))["interconnects"]
    for kind in ("NV", "PCIe"):
        chosen = [run for run in runs if run["name"].startswith(kind)]
        chosen.sort(key=lambda run: run["device_bytes_per_s"])
        means = [run["geomean_kraken_speedup_percent"] for run in chosen]
        assert len(means) >= 4
        assert all(before > after for before, after in pairwise(means))
    assert "Kraken is faster in every cell over" in capsys.readouterr().out
    assert "After figure" not in page.read_text(encoding="utf-8")


def test_kraken_gains_on_every_machine_and_most_without_nvlink() -> None:
    means = {}
    for name in ("paper_grid_h100", "paper_grid_l40s"):
        grid = load_grid(name).model_copy(update={"assumptions": ()})
        cells = run_grid(grid).cells
        assert min(speedups_percent(cells)) > 0.0
        assert geomean_percent(cells, "parallel") > 0.0
        means[name] = geomean_percent(cells)
    assert means["paper_grid_l40s"] > means["paper_grid_h100"]


def test_the_page_is_filled_between_its_markers() -> None:
    page = "# Title\n<!-- cells -->\nold\n<!-- end of cells -->\nprose\n"
    once = paper_page.filled(page, {"cells": "| new |"})
    assert once == "# Title\n<!-- cells -->\n| new |\n<!-- end of cells -->\nprose\n"
    assert paper_page.filled(once, {"cells": "| new |"}) == once
    with pytest.raises(InputError, match="effects"):
        paper_page.filled(page, {"effects": ""})


def test_the_page_of_the_papers_experiment_has_every_table() -> None:
    page = paper_page.PAGE.read_text(encoding="utf-8")
    for name in ("cells", "effects", "machines", "interconnects"):
        assert len(page.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0].splitlines()) > 4
    names = [assumption.name for assumption in load_grid().assumptions]
    assert all(f"`{name}`" in page for name in names)
