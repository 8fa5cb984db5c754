"""The traffic of a request's file: requests from a Poisson process, with bursts or without, or from a trace."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StrictStr, model_validator

from kraken_sim.errors import InputError
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import fields_error
from kraken_sim.scenario.fields import CONTEXT_LIMIT
from kraken_sim.scenario.request_file import Amount, Duration
from kraken_sim.serving.arrivals import Bursts, Lengths, Requests, drawn_requests
from kraken_sim.serving.trace_file import read_trace_file

REQUESTS_LIMIT = 10_000_000
"""Most requests of a simulation; a limit of ours: half an hour of it."""

LONGEST_S = 1e9
"""Longest time that requests may come in; a limit of ours, where clocks still tell microseconds apart."""

TokenCount = Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)]


class LengthSpec(FileModel):
    """Tokens of prompts or answers: a mean, and how far they spread, lognormally."""

    mean: Annotated[float, Field(ge=1.0, le=CONTEXT_LIMIT)] = Field(
        description="Mean number of tokens.", examples=[2000]
    )
    variation: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        default=0.0, description="Standard deviation over the mean; 0: all alike.", examples=[0.7]
    )
    least: TokenCount = Field(default=1, description="Fewest tokens.", examples=[16])
    most: TokenCount | None = Field(
        default=None, description="Most tokens; default: eight times the mean.", examples=[8000]
    )

    @model_validator(mode="after")
    def _has_its_mean_within(self) -> Self:
        if self.least > self.mean:
            raise fields_error("must be at most the mean", "least")
        if self.most is not None and self.most < self.mean:
            raise fields_error("must be at least the mean", "most")
        return self

    def lengths(self) -> Lengths:
        """As they are drawn."""
        return Lengths(self.mean, self.variation, self.least, self.most or max(self.least, round(8.0 * self.mean)))


class BurstSpec(FileModel):
    """Times at which requests come more often; the mean rate stays."""

    factor: Annotated[float, Field(gt=1.0, le=1000.0)] = Field(
        description="Rate in a burst over that outside.", examples=[4]
    )
    duration: Duration = Field(description="Of one burst.", examples=['"10 s"'])
    every: Duration = Field(description="From burst to burst.", examples=['"2 min"'])

    @model_validator(mode="after")
    def _has_a_rest(self) -> Self:
        if self.duration >= self.every:
            raise fields_error("must be shorter than from burst to burst", "duration")
        return self


class TrafficSpec(FileModel):
    """Requests from a Poisson process, with bursts or without, or from a trace."""

    requests_per_s: Amount | None = Field(default=None, description="Mean rate of a Poisson process.", examples=[20])
    trace: StrictStr | None = Field(
        default=None,
        description="A CSV of arrival_s, prompt_tokens, output_tokens, or a trace of Azure's or Mooncake's as it is.",
        examples=["requests.csv"],
    )
    speed: Amount = Field(default=1.0, description="How many times as fast a trace is replayed.", examples=[2.0])
    num_requests: Annotated[int, Field(strict=True, ge=1, le=REQUESTS_LIMIT)] | None = Field(
        default=None, description="How many; default: 5000, of a trace all.", examples=[10_000]
    )
    prompt_tokens: LengthSpec | None = Field(
        default=None, description="Of a Poisson process.", examples=[{"mean": 2000}]
    )
    output_tokens: LengthSpec | None = Field(
        default=None, description="Of a Poisson process.", examples=[{"mean": 500}]
    )
    bursts: BurstSpec | None = Field(
        default=None,
        description="Of a Poisson process.",
        examples=[{"factor": 4, "duration": "10 s", "every": "2 min"}],
    )
    seed: Annotated[int, Field(strict=True, ge=0, le=1 << 32)] = Field(
        default=0, description="The same seed draws the same requests.", examples=[1]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.trace is None) == (self.requests_per_s is None):
            raise fields_error("give a rate of a Poisson process or a trace, one of the two", "requests_per_s")
        own = ("prompt_tokens", "output_tokens")
        missing = [name for name in own if getattr(self, name) is None]
        if self.trace is None and missing:
            raise fields_error("is required without a trace", *missing)
        given = [name for name in (*own, "bursts") if getattr(self, name) is not None]
        if self.trace is not None and given:
            raise fields_error("is the trace's", *given)
        if self.trace is None and self.speed != 1.0:
            raise fields_error("goes with a trace", "speed")
        if self.requests_per_s is not None and (self.num_requests or 5000) / self.requests_per_s > LONGEST_S:
            raise fields_error("is so low that the requests take more than thirty years", "requests_per_s")
        return self

    def requests(self) -> Requests:
        """The requests.

        Raises:
            InputError: the trace is wrong.
        """
        if self.trace is not None:
            found = read_trace_file(self.trace, self.num_requests)
            if found.arrival_s[-1] / self.speed > LONGEST_S:
                message = "its requests come in more than thirty years"
                raise InputError.single("traffic.trace", message, self.trace, example="speed: 1000")
            return Requests(found.arrival_s / self.speed, found.prompt_tokens, found.output_tokens)
        assert self.requests_per_s is not None  # checked above
        assert self.prompt_tokens is not None
        assert self.output_tokens is not None
        often = self.bursts
        bursts = None if often is None else Bursts(often.factor, often.duration, often.every)
        return drawn_requests(
            self.num_requests or 5000,
            self.requests_per_s,
            self.prompt_tokens.lengths(),
            self.output_tokens.lengths(),
            self.seed,
            bursts,
        )
