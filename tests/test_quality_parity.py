"""Experiments: which rate wins, what a ratio of perplexities and its error are, and a tiny one from end to end."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kraken_sim.errors import InputError

torch = pytest.importorskip("torch")

from quality_support import KRAKEN, SHAPE, TRAINING, byte_corpus  # noqa: E402

from validation.models import ARCHITECTURES  # noqa: E402
from validation.quality.experiment import (  # noqa: E402
    Experiment,
    outcome_of,
    perplexity_ratio,
    read_experiment,
    run_folder,
)
from validation.quality.network import num_parameters  # noqa: E402
from validation.quality.parity import main, rows_of  # noqa: E402
from validation.quality.recipe import read_recipe  # noqa: E402
from validation.quality.trainer import Result  # noqa: E402

pytestmark = pytest.mark.torch
QUALITY = Path(__file__).parent.parent / "validation" / "quality"


def data_of(**fields: Any) -> dict[str, Any]:
    training = {key: x for key, x in TRAINING.items() if key != "learning_rate"} | {"tokens": 4 * 64}
    candidates = [
        {"name": "standard", "model": SHAPE},
        {"name": "kraken", "model": SHAPE, "architecture": KRAKEN},
        {"name": "alone", "model": SHAPE, "architecture": KRAKEN | {"received": "nothing"}, "tuned_as": "kraken"},
    ]
    base = {"name": "tiny", "baseline": "standard", "learning_rates": [0.01, 0.1], "seeds": [0, 1, 2]}
    return base | {"training": training, "candidates": candidates} | fields


def put(out: Path, experiment: Experiment, name: str, rate: float, losses: dict[int, float]) -> None:
    candidate = next(one for one in experiment.candidates if one.name == name)
    for seed, loss in losses.items():
        folder = run_folder(out, candidate, rate, seed)
        folder.mkdir(parents=True)
        result = Result(name, 1000, 256, seed, rate, loss, loss / math.log(2), 1.0, loss == math.inf)
        (folder / "result.json").write_text(json.dumps(asdict(result)))


def test_the_best_rate_counts_and_the_ratio_is_that_of_mean_losses(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(data_of())
    put(tmp_path, experiment, "standard", 0.01, {0: 2.0})
    put(tmp_path, experiment, "standard", 0.1, {0: 1.0, 1: 1.1, 2: 1.2})
    put(tmp_path, experiment, "kraken", 0.01, {0: 1.3, 1: 1.1})
    put(tmp_path, experiment, "kraken", 0.1, {0: math.inf})
    put(tmp_path, experiment, "alone", 0.01, {0: 1.5})
    standard, kraken, alone = (outcome_of(experiment, one, tmp_path) for one in experiment.candidates)
    assert standard is not None
    assert kraken is not None
    assert alone is not None
    assert (standard.learning_rate, kraken.learning_rate, alone.learning_rate) == (0.1, 0.01, 0.01)
    ratio, error = perplexity_ratio(kraken, standard)
    assert ratio == pytest.approx(math.exp(0.1))
    # Deviations 0.1 of three and sqrt(0.02) of two runs.
    assert error == pytest.approx(ratio * math.sqrt(0.01 / 3 + 0.02 / 2))
    ratio, error_of_one_seed = perplexity_ratio(alone, standard)
    assert ratio == pytest.approx(math.exp(0.4))
    assert error_of_one_seed is None
    rows = rows_of(experiment, {"standard": standard, "kraken": kraken, "alone": alone})
    assert [row["perplexity_ratio_error"] for row in rows] == [0.0, error, None]
    assert rows[1]["tuning"] == {"0.01": 1.3, "0.1": None}


def test_a_candidate_whose_rates_are_not_all_tried_has_no_outcome(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(data_of())
    put(tmp_path, experiment, "standard", 0.1, {0: 1.0, 1: 1.1})
    put(tmp_path, experiment, "kraken", 0.01, {0: math.inf})
    put(tmp_path, experiment, "kraken", 0.1, {0: math.inf})
    assert [outcome_of(experiment, one, tmp_path) for one in experiment.candidates] == [None, None, None]


def test_an_experiment_names_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    data = data_of(baseline="standart", seeds=[1, 1])
    data["training"]["seed"] = 3
    data["candidates"][2]["tuned_as"] = "krake"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        read_experiment(path, ARCHITECTURES)
    text = str(caught.value)
    for part in (
        "did you mean 'standard'",
        "seeds: line 1: holds a value twice",
        "training.seed: line 1: is what the experiment varies",
        "candidates.2.tuned_as: line 1: is no earlier candidate",
        "did you mean 'kraken'",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["parity-10m", "parity-10m-longer", "tiny"])
def test_candidates_of_an_experiment_have_the_parameters_of_the_baseline(name: str) -> None:
    experiment = read_experiment(QUALITY / "experiments" / f"{name}.yaml", ARCHITECTURES)
    counts = [num_parameters(experiment.recipe(one, 0.1, 0)) for one in experiment.candidates]
    assert counts == pytest.approx([counts[0]] * len(counts), rel=0.01)


@pytest.mark.parametrize("name", ["125m-2", "125m-4", "125m-6", "350m-2", "350m-4", "760m-4"])
def test_the_authors_configurations_have_the_parameters_of_their_budget(name: str) -> None:
    recipe = read_recipe(QUALITY / "recipes" / f"kraken-{name}-way.yaml", ARCHITECTURES)
    count, config = num_parameters(recipe), recipe.config
    d, blocks = config.hidden_size, config.num_hidden_layers * recipe.num_ways
    # Embeddings, and of every sub-layer its matrices, biases and norms; the concat projection and the last norm.
    by_hand = (50304 + 1024) * d + blocks * (8 * d * d + 11 * d) + recipe.num_ways * d * d + d + 2 * d
    assert count == by_hand
    budget = {"125m": 124.4e6, "350m": 354.8e6, "760m": 760e6}[name.split("-")[0]]
    assert count == pytest.approx(budget, rel=0.03)


def test_a_tiny_experiment_runs_draws_and_says_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, path, out = byte_corpus(tmp_path), tmp_path / "experiment.yaml", tmp_path / "parity"
    path.write_text(json.dumps(data_of(seeds=[0, 1])))
    arguments = [str(path), "--data", str(corpus.folder), "--out", str(out), "--workers", "1"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("standard", "kraken", "alone"))
    rows = json.loads((out / "parity.json").read_text())["rows"]
    assert [len(row["validation_losses"]) for row in rows] == [2, 2, 2]
    assert rows[0]["perplexity_ratio"] == 1.0
    assert rows[1]["learning_rate"] == rows[2]["learning_rate"]
    assert rows[1]["validation_losses"] != rows[2]["validation_losses"]
    assert "Validation loss" in (out / "parity.html").read_text()
    path.write_text(json.dumps(data_of(seeds=[0, 1], training=data_of()["training"] | {"tokens": 5 * 64})))
    assert main(arguments) == 2
    assert "training.tokens: is not what the checkpoint was trained with" in capsys.readouterr().err


def test_runs_can_be_sized_to_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, path, out = byte_corpus(tmp_path), tmp_path / "experiment.yaml", tmp_path / "parity"
    path.write_text(json.dumps(data_of(seeds=[0], learning_rates=[0.01], candidates=data_of()["candidates"][:1])))
    arguments = [str(path), "--data", str(corpus.folder), "--out", str(out), "--workers", "1", "--fit"]
    assert main(arguments) == 2
    assert "needs a deadline to fit the runs to" in capsys.readouterr().err
    (out / "tokens.json").parent.mkdir(parents=True)
    (out / "tokens.json").write_text("640")
    assert main([*arguments, "--deadline", "600"]) == 0
    assert json.loads((out / "parity.json").read_text())["rows"][0]["tokens"] == 640
