"""What predictions that stand side by side are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.predict.prediction import Prediction


def prediction_labels(predictions: Sequence[Prediction]) -> list[str]:
    """Their architectures, with their kernel sets where there are several."""
    several = len({prediction.scenario.runtime.kernels for prediction in predictions}) > 1
    return [
        f"{prediction.resolved.kind}, {prediction.scenario.runtime.kernels}" if several else prediction.resolved.kind
        for prediction in predictions
    ]
