"""ServiceSimulator level agreements: limits on TTFT and TPOT at a percentile, MLPerf's by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import Field, model_validator

from kraken_sim.errors import InputError, closest
from kraken_sim.files.model import FileModel, Name
from kraken_sim.files.problems import fields_error
from kraken_sim.scenario.request_file import Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

MLPERF_SOURCE: Final = "MLPerf Inference, github.com/mlcommons/inference, loadgen/mlperf.conf (commit 001712e)"


@dataclass(frozen=True, slots=True)
class Sla:
    """Limits that `percentile` per cent of the prompts must keep; TTFT counts from arrival, waiting included."""

    ttft_s: float
    tpot_s: float | None
    percentile: float
    source: str


def _mlperf(ttft_ms: float, tpot_ms: float) -> Sla:
    # *.Server.target_latency_percentile = 99
    return Sla(1e-3 * ttft_ms, 1e-3 * tpot_ms, 99.0, MLPERF_SOURCE)


MLPERF_PRESETS: Mapping[str, Sla] = {
    "mlperf-llama2-70b": _mlperf(2000, 200),
    "mlperf-llama2-70b-interactive": _mlperf(450, 40),
    "mlperf-llama3.1-8b": _mlperf(2000, 100),
    "mlperf-llama3.1-8b-interactive": _mlperf(500, 30),
    "mlperf-llama3.1-405b": _mlperf(6000, 175),
    "mlperf-llama3.1-405b-interactive": _mlperf(4500, 80),
    "mlperf-mixtral-8x7b": _mlperf(2000, 200),
    "mlperf-deepseek-r1": _mlperf(2000, 80),
    "mlperf-deepseek-r1-interactive": _mlperf(1500, 15),
}
"""Limits of MLPerf Inference's server scenario on TTFT and TPOT, by benchmark; they bind no model here."""


def sla_preset(name: str, at: str = "sla.preset") -> Sla:
    """The limits of a named benchmark.

    Raises:
        InputError: no such preset; says which one was probably meant.
    """
    if name not in MLPERF_PRESETS:
        message = f"unknown preset; known are {', '.join(MLPERF_PRESETS)}"
        guess = closest(name, list(MLPERF_PRESETS))
        raise InputError.single(at, message, name[:60], "mlperf-llama2-70b-interactive", guess)
    return MLPERF_PRESETS[name]


class SlaSpec(FileModel):
    """A preset, or limits of one's own."""

    preset: Name | None = Field(default=None, examples=["mlperf-llama2-70b-interactive"])
    ttft: Duration | None = Field(default=None, description="From arrival to first token.", examples=['"500 ms"'])
    tpot: Duration | None = Field(default=None, description="Time per output token.", examples=['"40 ms"'])
    percentile: Annotated[float, Field(ge=50.0, lt=100.0)] | None = Field(
        default=None, description="Share of the prompts that keep the limits, per cent; default: 99.", examples=[99]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        own = [name for name in ("ttft", "tpot", "percentile") if getattr(self, name) is not None]
        if self.preset is not None and own:
            raise fields_error("the preset says it already; give a preset or limits of your own, not both", *own)
        if self.preset is None and self.ttft is None:
            raise fields_error("is required without a preset", "ttft")
        return self

    def resolve(self) -> Sla:
        """The limits.

        Raises:
            InputError: no such preset.
        """
        if self.preset is not None:
            return sla_preset(self.preset)
        assert self.ttft is not None  # checked above
        return Sla(self.ttft, self.tpot, self.percentile or 99.0, "the request's own limits")
