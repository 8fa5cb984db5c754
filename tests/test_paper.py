"""The paper's experiment: its grid, and what must come out of any honest model of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.paper import GridResult, load_grid, run_grid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def result() -> GridResult:
    return run_grid(load_grid())


def test_the_grid_is_the_papers(result: GridResult):
    cells = {(cell.model, cell.context_length, cell.num_devices) for cell in result.cells}
    sizes = ("1.3B", "6.7B", "13B", "65B", "175B")
    assert cells == {(size, tokens, n) for size in sizes for tokens in (128, 2048) for n in (4, 8)}
    assert len(result.cells) == 20


def test_65b_and_175b_have_a_quarter_of_their_layers_and_the_width_of_the_whole(result: GridResult):
    for cell in result.cells:
        layers = {prediction.resolved.config.num_hidden_layers for prediction in cell.predictions.values()}
        assert layers == {{"1.3B": 24, "6.7B": 32, "13B": 40, "65B": 20, "175B": 24}[cell.model]}
    widths = {
        (cell.model, cell.num_devices): cell.predictions[ArchitectureKind.KRAKEN].resolved.kraken.hidden_size  # type: ignore[union-attr]
        for cell in result.cells
    }
    assert widths["65B", 4] == 5120
    assert widths["175B", 8] == 5376


def test_kraken_is_faster_than_parallel_is_faster_than_standard_at_eight_ways(result: GridResult):
    for cell in result.cells:
        if cell.num_devices == 8:
            assert cell.speedup_percent(ArchitectureKind.KRAKEN) > 0.0
            assert cell.speedup_percent(ArchitectureKind.PARALLEL) > 0.0


def test_the_share_of_all_reduce_grows_from_four_to_eight_devices(result: GridResult):
    shares = {}
    for cell in result.cells:
        standard = cell.predictions[ArchitectureKind.STANDARD]
        shares[cell.model, cell.context_length, cell.num_devices] = (
            standard.breakdown_s["all_reduce"] / standard.latency_s
        )
    for (model, tokens, devices), share in shares.items():
        if devices == 4:
            assert shares[model, tokens, 8] > share


def test_json_has_the_contracts_names(tmp_path: Path):
    file = tmp_path / "paper.json"
    assert main(["paper", "--json", str(file)]) == 0
    data = json.loads(file.read_text(encoding="utf-8"))
    assert len(data["cells"]) == 20
    assert set(data["cells"][0]["ttft_s"]) == {"standard", "parallel", "kraken"}
    assert data["geomean_kraken_speedup_percent"] > 0
    assert {"name", "geomean_kraken_speedup_percent"} <= set(data["assumptions"][0])


def test_a_wrong_grid_is_named(tmp_path: Path):
    file = tmp_path / "grid.yaml"
    file.write_text("name: x\nhardware: a100-sxm4-40gb-x8\nmodels: []\ncontxt_lengths: [1]\n", encoding="utf-8")
    with pytest.raises(InputError, match="contxt_lengths"):
        load_grid(str(file))
