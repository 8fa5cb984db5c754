"""Replicas of a request, ready to serve anything: their memory, their steps, what they can take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.errors import InfeasibleError, InputError, Problem
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.scenario.spec import as_scenario
from kraken_sim.serving.arrivals import Requests
from kraken_sim.serving.fleet import Handover, ReplicaPool, Served, serve_requests
from kraken_sim.serving.memory import replica_memory
from kraken_sim.serving.plan import SchedulerRules
from kraken_sim.serving.steps import End, PredictedSteps
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario
    from kraken_sim.serving.fleet import Tell
    from kraken_sim.serving.memory import ReplicaMemory
    from kraken_sim.serving.request import ServeRequest

BURST: Final = 1500
"""Requests at once that say what a service can take; a choice of ours."""

MOST_AT_ONCE: Final = 64
"""Replicas that are simulated to say what a service can take; a choice of ours."""

ROUNDS: Final = 6
"""The same as a multiple of the sequences of a step, at least; a choice of ours, as the first and last are left out."""


@dataclass(slots=True)
class ServiceSimulator:
    """Replicas of a request, ready to serve anything; steps that were predicted once are kept."""

    request: ServeRequest
    predictor: Predictor = field(default_factory=Predictor)
    memory: ReplicaMemory = field(init=False)
    profile: HardwareProfile = field(init=False)
    num_devices: int = field(init=False)
    idle_w: float = field(init=False)
    _steps: dict[End, PredictedSteps] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Prepares a replica.

        Raises:
            InputError: the request does not fit its machine's profile.
            InfeasibleError: no room is left for the cache.
        """
        request, rules = self.request, self.request.scheduler
        prediction = self.predictor.predict(as_scenario(request.scenario()))
        self.profile, self.num_devices = prediction.profile, prediction.resolved.num_devices
        self.idle_w = step_energy(prediction).idle_w
        self.memory = replica_memory(
            prediction.scenario,
            prediction.resolved,
            self.profile.device.hbm_capacity_bytes,
            utilisation=rules.gpu_memory_utilization,
            max_num_seqs=rules.max_num_seqs,
            max_num_batched_tokens=rules.max_num_batched_tokens,
            block_size=rules.block_size,
        )

    def steps(self, end: End = End.MIDDLE) -> PredictedSteps:
        """Times of a replica's steps."""
        if end not in self._steps:
            spec = self.request.scheduler
            launch = spec.mixed_launch or self.request.runtime.launch
            self._steps[end] = PredictedSteps(self.predictor, self._step(), spec.host_step, launch, end)
        return self._steps[end]

    def _step(self) -> Scenario:
        """What steps are simulated as: many prompts as a long one, which no table of learned positions may cut off."""
        scenario = self.request.scenario()
        config = self.predictor.resolve(scenario).config
        if not config.position_embeddings:
            return scenario
        positions = 2 * max(config.max_position_embeddings, self.request.scheduler.max_num_batched_tokens)
        model = scenario.model.model_copy(update={"max_position_embeddings": positions})
        return scenario.model_copy(update={"model": model})

    def rules(self, *, prefill_only: bool = False) -> SchedulerRules:
        """How a replica batches."""
        spec = self.request.scheduler
        return SchedulerRules(
            num_blocks=self.memory.num_blocks,
            block_size=spec.block_size,
            max_num_seqs=spec.max_num_seqs,
            max_num_batched_tokens=spec.max_num_batched_tokens,
            chunked=spec.chunked_prefill,
            priority=spec.priority,
            preemption=spec.preemption,
            prefix_length=spec.prefix_tokens,
            prefill_only=prefill_only,
        )

    def serve(
        self,
        requests: Requests,
        end: End = End.MIDDLE,
        replicas: int | None = None,
        prefill: int | None = None,
        *,
        record: bool = False,
        tell: Tell | None = None,
    ) -> Served:
        """Simulates requests that `check` has let pass; `replicas` and those of `prefill` instead of the request's.

        `tell` is called now and then with how many of how many are answered.
        """
        request, steps = self.request, self.steps(end)
        swap_s = self.memory.token_bytes / request.scheduler.host_link
        pool = ReplicaPool(steps, self.rules(), replicas or request.replicas, swap_s)
        if request.prefill is None:
            return serve_requests(requests, pool, request.routing, record=record, tell=tell)
        apart = request.prefill
        before = ReplicaPool(steps, self.rules(prefill_only=True), prefill or apart.replicas)
        link = Handover(apart.latency, self.memory.token_bytes / apart.link)
        return serve_requests(requests, pool, request.routing, before, link, record=record, tell=tell)

    def capacity_per_s(self, requests: Requests, end: End = End.MIDDLE, tell: Tell | None = None) -> float:
        """What the service takes of such requests a second where there are always more: its stable limit.

        Of many replicas alike `MOST_AT_ONCE` are simulated, the others take as much.
        """
        apart = self.request.prefill
        total = self.request.replicas + (apart.replicas if apart else 0)
        simulated = min(1.0, MOST_AT_ONCE / total)
        replicas = max(1, round(simulated * self.request.replicas))
        times = self.request.replicas / replicas
        front = None if apart is None else max(1, round(simulated * apart.replicas))
        if apart is not None and front is not None:
            times = min(times, apart.replicas / front)
        count = (replicas + (front or 0)) * max(BURST, ROUNDS * self.request.scheduler.max_num_seqs)
        lengths = (np.resize(values, count) for values in (requests.prompt_tokens, requests.output_tokens))
        burst = Requests(np.zeros(count), *lengths)
        ends = np.sort(self.serve(burst, end, replicas, front, tell=tell).finish_s)
        first, last = len(ends) // 5, len(ends) - 1 - len(ends) // 5
        if last <= first or ends[last] <= ends[first]:
            return times * len(ends) / float(ends[-1])
        return times * (last - first) / float(ends[last] - ends[first])

    def check(self, requests: Requests, *, limits: bool = True) -> None:
        """Nothing, if every request could be answered alone, within the limits where these count too.

        Raises:
            InputError: a prompt is no longer than the prefix of all, or longer than whole prompts may be.
            InfeasibleError: one overflows the cache, or a limit lies below a single step.
        """
        spec, sla = self.request.scheduler, self.request.limits()
        shortest, longest = int(requests.prompt_tokens.min()), int(requests.prompt_tokens.max())
        if shortest <= spec.prefix_tokens:
            message = f"a prompt of {shortest} tokens is no longer than the prefix of all"
            raise InputError.single("scheduler.prefix_tokens", message, spec.prefix_tokens, str(shortest - 1))
        if not spec.chunked_prefill and longest - spec.prefix_tokens > spec.max_num_batched_tokens:
            message = f"a prompt of {longest:,} tokens does not fit in a step, and is not to be cut"
            example = str(longest - spec.prefix_tokens)
            raise InputError.single("scheduler.max_num_batched_tokens", message, spec.max_num_batched_tokens, example)
        tokens = int((requests.prompt_tokens + requests.output_tokens).max())
        self._check_positions(tokens)
        if tokens > self.memory.cache_tokens:
            message = f"a request of {tokens:,} tokens does not fit in the cache of a replica"
            raise InfeasibleError(message, f"{self.memory.cache_tokens:,} tokens in {self.memory.num_blocks:,} blocks")
        if sla is None or not limits:
            return
        fastest = self.steps(End.LOW)
        step_s = fastest.decode(1, shortest).first_s
        if sla.tpot_s is not None and sla.tpot_s < step_s:
            message = f"a decode step of one sequence alone takes {format_seconds(step_s)}, whatever the load"
            raise InfeasibleError(message, f"TPOT {format_seconds(sla.tpot_s)} of the SLA")
        if sla.ttft_s < step_s:
            message = f"a step of one token takes {format_seconds(step_s)}, whatever the load"
            raise InfeasibleError(message, f"TTFT {format_seconds(sla.ttft_s)} of the SLA")

    def _check_positions(self, tokens: int) -> None:
        config = self.predictor.resolve(self.request.scenario()).config
        limit = config.max_position_embeddings
        if config.position_embeddings and tokens > limit:
            message = f"a request has {tokens:,} tokens; the model has {limit:,} learned positions"
            raise InputError([Problem("traffic", message, example="model: {max_position_embeddings: 8192}")])
