"""What is known of a model's quality beside a standard one's: what is published, and what runs here measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, ValidationError

from kraken_sim.files.model import Count, FileModel, Name, NotEmpty
from kraken_sim.files.problems import problems_of
from kraken_sim.files.strict_yaml import read_yaml

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction

SAME_SIZE: Final = 2.0
"""How many times the parameters of an experiment a model may have for its figure to stand alone; a choice of ours."""

_FILE: Final = Path(__file__).with_name("quality.yaml")

Ratio = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class MeasuredRatio(FileModel):
    """Perplexity over that of a standard Transformer of as many parameters, trained on the same text."""

    architecture: Name
    ways: Count | None = None
    perplexity_ratio: Ratio
    standard_error: Ratio | None = None
    """None: of one seed, which tells no error."""
    seeds: Count


class QualityExperiment(FileModel):
    """Models of one size, trained on so many tokens."""

    num_parameters: Count
    tokens: Count
    kind: Literal["measured"]
    source: Name
    remark: str = ""
    ratios: Annotated[tuple[MeasuredRatio, ...], NotEmpty]


class QualityTable(FileModel):
    """All experiments, of which those of the most parameters and then the most tokens count."""

    experiments: Annotated[tuple[QualityExperiment, ...], NotEmpty]

    def find(self, architecture: str, ways: int) -> tuple[QualityExperiment, MeasuredRatio] | None:
        """What was measured of an architecture; one of blocks side by side is asked for by their number."""
        found = [
            (experiment, ratio)
            for experiment in self.experiments
            for ratio in experiment.ratios
            if ratio.architecture == architecture and (ratio.ways or 1) == ways
        ]
        return max(found, key=lambda one: (one[0].num_parameters, one[0].tokens), default=None)


def read_quality(path: Path = _FILE) -> QualityTable:
    """The table that ships, or one of yours.

    Raises:
        InputError: the file cannot be read, or holds any problem.
    """
    document = read_yaml(path)
    try:
        return QualityTable.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, QualityTable)) from None


def quality_of(prediction: Prediction, table: QualityTable | None = None) -> str:
    """What is published of an architecture's quality, and what was measured of it here, at which size."""
    resolved = prediction.resolved
    published = resolved.architecture.quality
    measured = (table or read_quality()).find(resolved.architecture.kind, resolved.layout.blocks_per_layer)
    if measured is None:
        return published
    words = measured_words(*measured, prediction.num_parameters)
    return words if published == "unknown" else f"{published}; {words}"


def measured_words(experiment: QualityExperiment, ratio: MeasuredRatio, num_parameters: int) -> str:
    """As `measured 0.98 ± 0.01 of standard's perplexity at 10M on 300M tokens; unknown at 6.7B`."""
    size, remark = experiment.num_parameters, f", {experiment.remark}" if experiment.remark else ""
    error = "" if ratio.standard_error is None else f" ± {ratio.standard_error:.2f}"
    text = (
        f"measured {ratio.perplexity_ratio:.2f}{error} of standard's perplexity "
        f"at {_amount(size)} on {_amount(experiment.tokens)} tokens{remark}"
    )
    alike = size / SAME_SIZE <= num_parameters <= size * SAME_SIZE
    return text if alike else f"{text}; unknown at {_amount(num_parameters)}"


def _amount(value: float) -> str:
    return f"{value / 1e9:.3g}B" if value >= 1e9 else f"{value / 1e6:.3g}M"
