"""When a step waits for the host that launches its kernels, and what a graph would give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.scenario.spec import Launch
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.predict.prediction import Prediction

HOST_BOUND: Final = 0.1
"""Share of the latency that the device waits for the host from which a step is called host-bound; a choice of ours."""


@dataclass(frozen=True, slots=True)
class HostBound:
    """A step that waits for its host: for what share of its time, and its latency launched as a graph, in seconds."""

    share: float
    latency_s: float
    graph_latency_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"share": self.share, "graph_latency_s": self.graph_latency_s}

    def sentence(self) -> str:
        """The same in words."""
        waited, graph = format_seconds(self.share * self.latency_s), format_seconds(self.graph_latency_s)
        return (
            f"host-bound: the device waits {waited} ({100.0 * self.share:.0f} % of the time) for the host to launch "
            f"its next kernel; as a CUDA graph the step would take {graph}, "
            f"{self.latency_s / self.graph_latency_s:.2g} times as fast"
        )


def host_bound(prediction: Prediction) -> HostBound | None:
    """What a step loses to its host; None where it hardly waits, is launched as a graph, or is many steps."""
    share = prediction.host_wait_s / prediction.latency_s
    if not prediction.prepared.eager or share < HOST_BOUND or prediction.e2e_s is not None:
        return None
    scenario = prediction.scenario
    graph = scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"launch": Launch.GRAPH})})
    return HostBound(share, prediction.latency_s, prediction.prepared.again(graph).run().duration_s)


def host_bound_data(prediction: Prediction) -> dict[str, Any]:
    """The same for JSON under its name; nothing where the step hardly waits."""
    found = host_bound(prediction)
    return {} if found is None else {"host_bound": found.as_dict()}
