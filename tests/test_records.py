"""Every answer of the API has flat rows under one name, and becomes a DataFrame."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from explore_support import asked

from kraken_sim import (
    best_channels,
    best_degree,
    compare,
    dataframe,
    load_procure_request,
    procure,
    search_designs,
    sweep,
    worthwhile_bandwidth,
)
from kraken_sim.errors import InputError
from kraken_sim.explore.design.request import DesignRequest
from kraken_sim.predict.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.predict.records import HasRecords

SCENARIOS = Path(__file__).parent.parent / "scenarios"
BASE: dict[str, Any] = {"hardware": "h200-sxm-x2", "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
ANSWERS: dict[str, Callable[[], HasRecords]] = {
    "best_channels": lambda: best_channels(asked(), perturb=False),
    "best_degree": lambda: best_degree(asked(), perturb=False),
    "compare": lambda: compare(asked()),
    "procure": lambda: procure(load_procure_request(SCENARIOS / "assistant_purchase.yaml")),
    "search_designs": lambda: search_designs(
        DesignRequest.model_validate({"base": BASE, "search": {"num_hidden_layers": [16, 24], "head_dim": [64]}})
    ),
    "sweep": lambda: sweep({**BASE, "batch_size": [1, 2, 100_000_000]}, jobs=1),
    "worthwhile_bandwidth": lambda: worthwhile_bandwidth(asked(), factors=(0.5, 1.0), perturb=False),
}


@pytest.fixture(scope="module", params=list(ANSWERS))
def answer(request: pytest.FixtureRequest) -> HasRecords:
    return ANSWERS[request.param]()


def test_the_rows_of_an_answer_are_flat_and_have_the_same_columns(answer: HasRecords) -> None:
    rows = answer.records
    assert isinstance(rows, Records)
    assert len(rows) > 1
    assert all(list(row) == list(rows[0]) for row in rows)
    plain = (str, int, float, bool, type(None))
    assert not [value for row in rows for value in row.values() if type(value) not in plain]
    assert json.loads(json.dumps(rows)) == rows


def test_records_may_be_written_as_a_call(answer: HasRecords) -> None:
    assert answer.records() == answer.records


def test_an_answer_becomes_a_dataframe_with_a_row_for_each_record(answer: HasRecords) -> None:
    pytest.importorskip("pandas")
    frame, rows = dataframe(answer), answer.records
    assert list(frame.columns) == list(rows[0])
    assert len(frame) == len(rows)
    for name in rows[0]:
        for value, row in zip(frame[name], rows, strict=True):
            # pandas has no null in a column of numbers but NaN.
            assert value == row[name] or (row[name] is None and (value is None or value != value))


def test_a_sweeps_dataframe_is_that_of_its_table() -> None:
    pd = pytest.importorskip("pandas")
    result = sweep({**BASE, "batch_size": [1, 2, 100_000_000]}, jobs=1)
    assert result.records[2]["error_kind"] == "input"
    assert dataframe(result)["tpot_s"].dtype == "float64"
    pd.testing.assert_frame_equal(dataframe(result), result.to_pandas())


def test_the_rows_of_a_comparison_say_the_architecture_and_its_speedup_over_the_first() -> None:
    predictions = compare(asked(), architectures=["parallel", "kraken"])
    rows = predictions.records
    assert [row["architecture"] for row in rows] == ["standard", "parallel", "kraken"]
    assert [row["latency_s"] for row in rows] == [prediction.latency_s for prediction in predictions]
    assert rows[0]["speedup_percent"] == 0.0
    assert 1.0 + rows[2]["speedup_percent"] / 100.0 == pytest.approx(rows[0]["latency_s"] / rows[2]["latency_s"])


def test_without_pandas_a_dataframe_is_refused_and_records_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pandas is not installed.*answer\.records"):
        dataframe(ANSWERS["sweep"]())
