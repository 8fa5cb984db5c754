"""The paper's experiment: its grid, and what must come out of any honest model of it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kraken_sim import predict_op
from kraken_sim.cli import main
from kraken_sim.paper.experiment import GridResult, geomean_percent, load_grid, run_grid, tensor_parallel_predictions
from kraken_sim.paper.gemm import gemm_delays_s
from kraken_sim.paper.grid import KRAKEN, PARALLEL, STANDARD
from kraken_sim.paper.summary import (
    bracket,
    effects,
    gemm_error_points,
    host_bound_share,
    mean_by_degree,
    mean_without_all_reduce,
    speedups_percent,
)
from kraken_sim.program.ops import Gemm
from kraken_sim.program.program import Category
from validation.public_data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kraken_sim.paper.experiment import Cells


@pytest.fixture(scope="module")
def result() -> GridResult:
    return run_grid(load_grid())


@pytest.fixture(scope="module")
def runs(result: GridResult) -> dict[str, Cells]:
    return {assumption.name: cells for assumption, cells in result.assumptions}


def test_the_grid_is_the_papers(result: GridResult) -> None:
    cells = {(cell.model, cell.context_length, cell.num_devices) for cell in result.cells}
    sizes = ("1.3B", "6.7B", "13B", "65B", "175B")
    assert cells == {(size, tokens, n) for size in sizes for tokens in (128, 2048) for n in (4, 8)}
    assert len(result.cells) == 20


def test_65b_and_175b_have_a_quarter_of_their_layers_and_the_width_of_the_whole(result: GridResult) -> None:
    for cell in result.cells:
        layers = {prediction.resolved.config.num_hidden_layers for prediction in cell.predictions.values()}
        assert layers == {{"1.3B": 24, "6.7B": 32, "13B": 40, "65B": 20, "175B": 24}[cell.model]}
    widths = {
        (cell.model, cell.num_devices): cell.predictions[KRAKEN].resolved.layout.block.hidden_size
        for cell in result.cells
    }
    assert widths["65B", 4] == 5120
    assert widths["175B", 8] == 5376


def test_the_documented_set_up_launches_from_the_host_with_legacy_selection_and_two_copies(result: GridResult) -> None:
    runtime = result.grid.runtime
    assert (runtime.launch, runtime.overlap, runtime.overlap_copies) == ("eager", True, 2)
    assert runtime.collective.selection == "tensorrt_llm_legacy"


def test_a_host_that_enqueues_from_cpp_stays_ahead_of_the_device(result: GridResult) -> None:
    assert host_bound_share(result.cells) < 0.01


def test_kraken_is_faster_than_standard_at_eight_ways(result: GridResult) -> None:
    for cell in result.cells:
        if cell.num_devices == 8:
            assert cell.speedup_percent(KRAKEN) > 0.0
            assert cell.speedup_percent(PARALLEL) > 0.0


def test_eight_way_gains_exceed_four_way_ones_under_every_assumption(
    result: GridResult, runs: dict[str, Cells]
) -> None:
    for cells in (result.cells, *runs.values()):
        means = mean_by_degree(cells)
        assert means[8] > means[4]


def test_the_share_of_all_reduce_grows_from_four_to_eight_devices(result: GridResult) -> None:
    shares = {(cell.model, cell.context_length, cell.num_devices): cell.all_reduce_share for cell in result.cells}
    for (model, tokens, devices), share in shares.items():
        if devices == 4:
            assert shares[model, tokens, 8] > share


def test_slower_all_reduces_pay_for_hiding_one(result: GridResult, runs: dict[str, Cells]) -> None:
    """NCCL is slower than the custom kernels at 128 tokens, and slower still in eager calls."""
    means = [geomean_percent(cells) for cells in (result.cells, runs["nccl"], runs["nccl-eager"])]
    assert all(before < after for before, after in pairwise(means))


def test_the_copies_cost_kraken_time_in_every_cell_and_nobody_else(result: GridResult, runs: dict[str, Cells]) -> None:
    for with_copies, without in zip(result.cells, runs["no-copies"], strict=True):
        assert without.ttft_s[KRAKEN] < with_copies.ttft_s[KRAKEN]
        for kind in (STANDARD, PARALLEL):
            assert without.ttft_s[kind] == with_copies.ttft_s[kind]


def test_the_simulated_overlap_lies_between_none_and_an_ideal_one(result: GridResult, runs: dict[str, Cells]) -> None:
    means = [geomean_percent(cells) for cells in (runs["blocking"], result.cells, runs["ideal-overlap"])]
    assert all(before < after for before, after in pairwise(means))


def test_ideal_overlap_hides_at_most_every_all_reduce_but_the_last(runs: dict[str, Cells]) -> None:
    for blocking, ideal in zip(runs["blocking"], runs["ideal-overlap"], strict=True):
        saved_s = blocking.ttft_s[KRAKEN] - ideal.ttft_s[KRAKEN]
        assert 0.0 < saved_s < blocking.breakdown_s[KRAKEN][Category.ALL_REDUCE]
        assert sum(ideal.breakdown_s[KRAKEN].values()) == pytest.approx(ideal.ttft_s[KRAKEN])


def test_narrow_sub_layers_are_faster_than_wide_ones(runs: dict[str, Cells]) -> None:
    assert geomean_percent(runs["narrow"]) > geomean_percent(runs["wide"])
    for narrow, wide in zip(runs["narrow"], runs["wide"], strict=True):
        first, second = (cell.predictions[KRAKEN].resolved.layout.block for cell in (narrow, wide))
        assert first is not None
        assert second is not None
        assert first.hidden_size <= second.hidden_size
        assert first.head_dim in (64, 80, 96, 112, 128)


def test_effects_add_up_along_a_chain_of_changes(result: GridResult) -> None:
    found = {effect.name: effect for effect in effects(result)}
    chain = ("nccl", "nccl-eager", "nccl-eager-ideal", "nccl-eager-ideal-narrow")
    total = result.geomean_kraken_speedup_percent + sum(found[name].points for name in chain)
    assert total == pytest.approx(found[chain[-1]].mean_percent)


def test_the_bracket_holds_the_main_prediction_and_widens_with_changes_on_top(result: GridResult) -> None:
    single, whole = bracket(result, single_changes=True), bracket(result)
    assert single.contains(result.geomean_kraken_speedup_percent)
    assert whole.low_percent <= single.low_percent <= single.high_percent <= whole.high_percent
    each = speedups_percent(result.cells)
    assert whole.contains_cells(min(each), max(each))
    assert not whole.contains_cells(min(each), 1000.0)


def test_the_reported_mean_lies_in_the_bracket_of_all_assumptions(result: GridResult) -> None:
    """A statement of this prediction, not of the paper: no constant is fitted to make it true."""
    assert result.grid.reported is not None
    assert bracket(result).contains(result.grid.reported.geomean_speedup_percent)
    assert bracket(result).contains_cells(
        result.grid.reported.min_speedup_percent, result.grid.reported.max_speedup_percent
    )


def test_an_error_in_the_standard_models_gemms_moves_the_mean_by_less_than_its_size(result: GridResult) -> None:
    residual, points = gemm_error_points(result)
    assert 0.0 < points < 100.0 * residual * (1.0 + result.geomean_kraken_speedup_percent / 100.0)


def gemm_shapes(cells: Cells) -> dict[str, Gemm]:
    """Every GEMM of a grid with more than one row, by its shape."""
    spans = (span for cell in cells for run in cell.predictions.values() for span in run.timeline.simulated)
    ops = {span.op for span in spans if isinstance(span.op, Gemm) and span.op.m > 1}
    return {f"{op.m}x{op.n}x{op.k}": op for op in ops}


def test_slower_gemms_of_some_shapes_delay_what_runs_them_by_their_excess(
    result: GridResult, runs: dict[str, Cells]
) -> None:
    factors = next(spec.gemm_factors for spec, _ in result.assumptions if spec.name == "gemm-anomalies")
    assert set(factors) <= set(gemm_shapes(result.cells))
    for plain, slower in zip(result.cells, runs["gemm-anomalies"], strict=True):
        for kind, prediction in plain.predictions.items():
            delay_s = sum(gemm_delays_s(prediction.timeline, factors).values())
            assert slower.ttft_s[kind] - plain.ttft_s[kind] == pytest.approx(delay_s)
            assert sum(slower.breakdown_s[kind].values()) == pytest.approx(slower.ttft_s[kind])
    standard = result.cells[0].predictions[STANDARD].timeline
    one_percent = dict.fromkeys(gemm_shapes(result.cells), 1.01)
    gemm_s = sum(
        span.alone_s * standard.weight(span)
        for span in standard.simulated
        if span.rank == 0 and isinstance(span.op, Gemm) and span.op.m > 1
    )
    assert sum(gemm_delays_s(standard, one_percent).values()) == pytest.approx(0.01 * gemm_s)


def test_the_anomalies_are_the_shapes_far_off_in_the_published_table(
    public_table: Callable[[str], Path], result: GridResult
) -> None:
    rows = rows_of(public_table("gemm_bf16_a100sxm80_trtllm.csv"))
    published = {f"{row['m']}x{row['n']}x{row['k']}": 1e-3 * float(row["latency_ms"]) for row in rows}
    found = {}
    for shape, op in gemm_shapes(result.cells).items():
        if shape in published:
            sizes = {"m": op.m, "n": op.n, "k": op.k}
            ratio = published[shape] / predict_op("a100-sxm4-80gb-x8", {"op": "gemm", **sizes, "dtype": "float16"})
            if abs(ratio - 1.0) > 0.1:
                found[shape] = ratio
    factors = next(spec.gemm_factors for spec, _ in result.assumptions if spec.name == "gemm-anomalies")
    assert factors == pytest.approx(found, rel=0.01)


def test_hiding_all_reduce_gains_no_more_than_all_reduce_takes(result: GridResult) -> None:
    most = mean_without_all_reduce(result.cells)
    cell = result.cells[0]
    rest_s = cell.ttft_s[STANDARD] - cell.breakdown_s[STANDARD][Category.ALL_REDUCE]
    assert mean_without_all_reduce([cell]) == pytest.approx(100.0 * (cell.ttft_s[STANDARD] / rest_s - 1.0))
    assert result.geomean_kraken_speedup_percent < most


def test_tensor_parallelism_shortens_ttft_although_all_reduce_takes_its_share(result: GridResult) -> None:
    predictions = tensor_parallel_predictions(result, "6.7B", (1, 2, 4, 8))
    for tokens in (128, 2048):
        chosen = [predictions[tokens, degree] for degree in (1, 2, 4, 8)]
        assert all(after.latency_s < before.latency_s for before, after in pairwise(chosen))
        assert chosen[0].breakdown_s[Category.ALL_REDUCE] == 0.0
        assert all(prediction.breakdown_s[Category.ALL_REDUCE] > 0.0 for prediction in chosen[1:])


def test_json_has_the_contracts_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "paper.json", tmp_path / "paper.html"
    assert main(["paper", "--json", str(file), "--html", str(page)]) == 0
    data = json.loads(file.read_text(encoding="utf-8"))
    assert len(data["cells"]) == 20
    assert set(data["cells"][0]["ttft_s"]) == {"standard", "parallel", "kraken"}
    assert data["geomean_kraken_speedup_percent"] > 0
    assert "nccl-eager" in [assumption["name"] for assumption in data["assumptions"]]
    for assumption in data["assumptions"]:
        assert {"name", "geomean_kraken_speedup_percent", "cells"} <= set(assumption)
        assert len(assumption["cells"]) == 20
    text = capsys.readouterr().out
    for words in ("What it rests on", "The mean rests on, in points", "the reported mean", "host"):
        assert words.lower() in text.lower()
    titles = page.read_text(encoding="utf-8")
    assert "Every cell under every assumption" in titles
    assert [number for number in range(1, 9) if f"After figure {number} of the paper" in titles] == [2, 4, 5, 6, 7]
