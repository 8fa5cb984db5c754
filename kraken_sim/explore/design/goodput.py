"""How many requests a second a GPU of a design answers within limits, found by simulating requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.explore.procure.judge import DrawnRequests, ReplicaJudge
from kraken_sim.serving.request import ServeRequest
from kraken_sim.serving.service import ServiceSimulator
from kraken_sim.serving.steps import End

if TYPE_CHECKING:
    from kraken_sim.predict.pipeline import Predictor
    from kraken_sim.scenario.spec import Scenario
    from kraken_sim.serving.request import SchedulerSpec
    from kraken_sim.serving.sla import Sla

REQUESTS: Final = 500
"""Requests of a simulation; a choice of ours, fewer than a purchase has, as a search has many designs."""

FULLEST: Final = 0.95
"""Share of what a replica can take that it is asked for at most; a choice of ours."""


def goodput_per_gpu(scenario: Scenario, sla: Sla, scheduler: SchedulerSpec, predictor: Predictor) -> float:
    """Requests a second a GPU at which a replica of the scenario keeps the limits; 0 where it never does.

    Every request has the scenario's context and output length, and comes when it will (Poisson).

    Raises:
        InputError: the scenario does not fit its machine.
        InfeasibleError: its cache does not hold a request.
    """
    lengths = {"prompt_tokens": {"mean": scenario.context_length}, "output_tokens": {"mean": scenario.output_length}}
    request = ServeRequest(
        name=scenario.name,
        hardware=scenario.hardware,
        model=scenario.model,
        architecture=scenario.architecture,
        num_devices=scenario.num_devices,
        placement=scenario.placement,
        dtype=scenario.dtype,
        quantization=scenario.quantization,
        activation_scheme=scenario.activation_scheme,
        kv_cache_dtype=scenario.kv_cache_dtype,
        runtime=scenario.runtime.model_copy(update={"max_num_batched_tokens": None}),
        scheduler=scheduler,
        traffic={"requests_per_s": 1.0, **lengths},  # type: ignore[arg-type]
    )
    service = ServiceSimulator(request, predictor)
    prompts, outputs = (np.full(REQUESTS, length) for length in (scenario.context_length, scenario.output_length or 1))
    drawn = DrawnRequests(None, prompts, outputs, np.zeros(REQUESTS, dtype=np.int64))
    service.check(drawn.at(1.0), limits=False)
    judge = ReplicaJudge(service, drawn, sla, 1)
    return judge.rate(judge.capacity(), FULLEST, End.MIDDLE) / service.num_devices
