"""What answers say of a model's quality: published, measured at one size, unknown at another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InputError
from kraken_sim.explore.quality import QualityTable, measured_words, quality_of, read_quality

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction

RESULTS = Path(__file__).parent.parent / "validation" / "quality" / "results"


def prediction_of(kind: str, devices: int = 2) -> Prediction:
    question = {"hardware": "h200-sxm-x8", "model": {"preset": "1.3B"}, "architecture": {"kind": kind}}
    return simulate({**question, "context_length": 128, "num_devices": devices})


def table_of(*experiments: tuple[float, int, float]) -> QualityTable:
    """Of parameters, tokens and the ratio of a Kraken of two ways."""
    return QualityTable.model_validate(
        {
            "experiments": [
                {
                    "num_parameters": int(parameters),
                    "tokens": tokens,
                    "kind": "measured",
                    "source": "a test",
                    "ratios": [
                        {"architecture": "kraken", "ways": 2, "perplexity_ratio": x, "standard_error": 0.01, "seeds": 3}
                    ],
                }
                for parameters, tokens, x in experiments
            ]
        }
    )


def test_what_was_measured_at_another_size_is_unknown_at_this_one() -> None:
    kraken = prediction_of("kraken")
    words = quality_of(kraken, table_of((125e6, 300_000_000, 1.01)))
    assert "measured 1.01 ± 0.01 of standard's perplexity at 125M on 300M tokens; unknown at 1.3" in words
    assert words.startswith("perplexity comparable with GPT-2")
    assert "unknown" not in quality_of(kraken, table_of((1.1e9, 300_000_000, 1.01)))


def test_the_largest_experiment_speaks_and_only_of_its_architecture_and_ways() -> None:
    table = table_of((1e7, 9, 1.5), (125e6, 1, 1.2), (125e6, 2, 1.3))
    assert "measured 1.30" in quality_of(prediction_of("kraken"), table)
    assert "measured" not in quality_of(prediction_of("kraken", 4), table)
    assert quality_of(prediction_of("standard"), table) == "the reference"


def test_one_seed_tells_no_error() -> None:
    table = table_of((1.1e9, 300_000_000, 1.01))
    one = table.experiments[0].ratios[0].model_copy(update={"standard_error": None, "seeds": 1})
    words = measured_words(table.experiments[0], one, 1_100_000_000)
    assert words == "measured 1.01 of standard's perplexity at 1.1B on 300M tokens"


def test_the_figures_that_ship_are_those_of_the_committed_results() -> None:
    for experiment in read_quality().experiments:
        folder = RESULTS.parent.parent.parent / experiment.source.split(" ")[0]
        data = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        rows = {(row["architecture"], row["ways"]): row for row in data["rows"] if row["received"] in (None, "norm")}
        assert {(one.architecture, one.ways) for one in experiment.ratios} == set(rows) - {("standard", None)}
        for one in experiment.ratios:
            row = rows[one.architecture, one.ways]
            assert one.perplexity_ratio == pytest.approx(row["perplexity_ratio"], abs=5e-4)
            if len(row["validation_losses"]) == 1:
                assert one.standard_error is None
            else:
                assert one.standard_error == pytest.approx(row["perplexity_ratio_error"], abs=5e-4)
            assert one.seeds == len(row["validation_losses"])
            assert row["tokens"] == experiment.tokens
            assert row["parameters"] == pytest.approx(experiment.num_parameters, rel=0.01)


def test_compare_shows_it_in_table_json_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    asked = ["compare", "kraken-6.7b-on-two-h200", "--architectures", "kraken", "--html", str(page), "--json", "-"]
    assert main(asked) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "of standard's perplexity at" in rows[1]["quality"]
    assert "unknown at 6." in rows[1]["quality"]
    assert "of standard&#39;s perplexity at" in page.read_text(encoding="utf-8")


def test_a_table_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "quality.yaml"
    path.write_text("experiments:\n  - {num_parameters: 1, tokens: 1, kind: guessed, source: me, ratios: []}\n")
    with pytest.raises(InputError, match=r"(?s)experiments\.0\.kind.*line 2"):
        read_quality(path)
