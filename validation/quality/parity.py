"""Is an architecture as good as a standard Transformer of as many parameters? Trains them all and says so.

    python -m validation.quality.parity EXPERIMENT.yaml --data out/corpus --out out/parity

Same text, tokens, schedule; the learning rate is tuned for each with the same number of runs, then repeated with other
seeds. It writes `parity.html` (table and curves), `parity.json` and `logs.jsonl`; the same command goes on where it
stopped, and what is done so far can be read at any time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kraken_sim.files.whole import write_whole
from kraken_sim.report.figures import PALETTE
from kraken_sim.report.page import TextTable
from validation.command import exit_code
from validation.quality.corpus import Corpus, open_corpus
from validation.quality.curves import write_curves
from validation.quality.experiment import Experiment, Outcome, outcome_of, perplexity_ratio, run_folder
from validation.quality.log import read_log
from validation.quality.runs import GOES_ON, add_arguments, run_given

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def outcomes_of(experiment: Experiment, out: Path) -> dict[str, Outcome]:
    """What every candidate came to whose rates are all tried."""
    found = {one.name: outcome_of(experiment, one, out) for one in experiment.candidates}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def rows_of(experiment: Experiment, outcomes: dict[str, Outcome]) -> list[dict[str, Any]]:
    """One row a candidate: what it is, what it came to, and its perplexity beside the baseline's."""
    base = outcomes.get(experiment.baseline)
    rows = []
    for name, outcome in outcomes.items():
        ratio, error = (None, None) if base is None else perplexity_ratio(outcome, base)
        architecture = outcome.candidate.architecture
        rows.append(
            {
                "name": name,
                "architecture": architecture.kind,
                "ways": architecture.ways,
                "received": architecture.received if architecture.ways else None,
                "parameters": outcome.runs[0].parameters,
                "tokens": outcome.runs[0].tokens,
                "learning_rate": outcome.learning_rate,
                "seeds": [run.seed for run in outcome.runs],
                "validation_losses": [run.validation_loss for run in outcome.runs],
                "validation_loss": outcome.loss,
                "validation_loss_deviation": outcome.loss_deviation,
                "perplexity": math.exp(outcome.loss),
                "perplexity_ratio": ratio,
                "perplexity_ratio_error": 0.0 if outcome is base else error,
                "bits_per_byte": outcome.bits_per_byte,
                "tokens_per_s": outcome.tokens_per_s,
                "tuned_as": outcome.candidate.tuned_as,
                "tuning": {f"{run.learning_rate:g}": _finite(run.validation_loss) for run in outcome.tuning},
            }
        )
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table_of(experiment: Experiment, rows: Sequence[dict[str, Any]]) -> TextTable:
    """The result for people."""
    columns = ("model", "parameters", "rate", "seeds", "validation loss", "perplexity", "of baseline", "bits a byte")
    cells = [
        (
            row["name"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['learning_rate']:g}",
            str(len(row["seeds"])),
            _with_error(row["validation_loss"], row["validation_loss_deviation"], 4),
            f"{row['perplexity']:.3f}",
            "-" if row["perplexity_ratio"] is None else _with_error(*_ratio(row), 3),
            f"{row['bits_per_byte']:.4f}",
        )
        for row in rows
    ]
    return TextTable(f"{experiment.name}: result", columns, cells)


def _ratio(row: dict[str, Any]) -> tuple[float, float | None]:
    return row["perplexity_ratio"], row["perplexity_ratio_error"] or None


def _with_error(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def tuning_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    """What every rate came to with the first seed."""
    rates = list(rows[0]["tuning"]) if rows else []
    rows = [row for row in rows if row["tuned_as"] is None]
    cells = [
        [row["name"], *("diverged" if row["tuning"][rate] is None else f"{row['tuning'][rate]:.4f}" for rate in rates)]
        for row in rows
    ]
    return TextTable("validation loss by learning rate, first seed", ["model", *rates], cells)


def write_results(experiment: Experiment, corpus: Corpus, out: Path) -> list[dict[str, Any]]:
    """`parity.json`, `logs.jsonl` and `parity.html` of what is done; the rows.

    Raises:
        OSError: they cannot be written.
    """
    rows = rows_of(experiment, outcomes_of(experiment, out))
    spec, baseline = experiment.training, experiment.candidates[0].model
    data = {
        "experiment": experiment.name,
        "baseline": experiment.baseline,
        "text": {"train_tokens": corpus.num_tokens["train"], "train_bytes": corpus.num_bytes["train"]},
        "sequences_per_step": spec.sequences_per_step,
        "sequence_length": baseline.max_position_embeddings,
        "rows": rows,
    }
    write_whole(out / "parity.json", json.dumps(data, indent=1).encode())
    logs = {
        f"{candidate.name}, rate {rate:g}, seed {seed}": read_log(run_folder(out, candidate, rate, seed))
        for candidate in experiment.candidates
        for rate in experiment.learning_rates
        for seed in experiment.seeds
    }
    logs = {name: log for name, log in logs.items() if log}
    lines = [json.dumps({"run": name, **line}) + "\n" for name, log in logs.items() for line in log]
    write_whole(out / "logs.jsonl", "".join(lines).encode())
    places = {one.name: PALETTE[index % len(PALETTE)] for index, one in enumerate(experiment.candidates)}
    colours = {name: places[name.split(",")[0]] for name in logs}
    tables = [table_of(experiment, rows), tuning_table(rows)] if rows else []
    sentences = [_sentence(experiment, corpus)]
    write_curves(out / "parity.html", experiment.name, logs, sentences=sentences, tables=tables, colours=colours)
    return rows


def _sentence(experiment: Experiment, corpus: Corpus) -> str:
    spec = experiment.training
    return (
        f"{spec.tokens / 1e6:g} M tokens each, of a text of {corpus.num_tokens['train'] / 1e6:.1f} M; "
        f"{len(experiment.learning_rates)} rates with one seed, the best with {len(experiment.seeds)}. The spread is "
        "the standard deviation over seeds, the error of a ratio that of the means."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="validation.quality.parity", description="Trains models and compares them.")
    add_arguments(parser)
    given = parser.parse_args(argv)
    return exit_code(lambda: _compare(given), given.out, GOES_ON)


def _compare(given: argparse.Namespace) -> None:
    experiment, _ = run_given(given)
    rows = write_results(experiment, open_corpus(given.data), given.out)
    console = Console(width=140)
    if rows:
        console.print(table_of(experiment, rows).rich())
    console.print(f"Curves: {given.out / 'parity.html'}")


if __name__ == "__main__":
    sys.exit(main())
