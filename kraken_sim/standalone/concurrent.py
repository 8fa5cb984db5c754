"""Several collectives and transfers at once on one machine: who slows whom down, and by how much.

simulate_concurrent("l40s-x8", [
{"op": "all_reduce", "bytes": 16777216, "ranks": [0, 4]},
{"op": "all_reduce", "bytes": 16777216, "ranks": [1, 5], "start_s": 0.001},
{"op": "transfer", "bytes": 16777216, "ranks": [2, 6]},
])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import Transport
from kraken_sim.costs.collectives.transfer import transfer_cost
from kraken_sim.costs.fair import Flow
from kraken_sim.costs.links.sharing import LinkSharing, interconnect_of
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.engine.link_flows import LinkJob, run_link_jobs
from kraken_sim.errors import InfeasibleError, InputError, Problem, check_is
from kraken_sim.files.model import Count, FileModel
from kraken_sim.files.problems import problems_of
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.reduction import reduce_group
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.scenario.collective import CollectiveFields
from kraken_sim.standalone.one_op import collective_cost_on, collective_spec, profile_named

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.costs.collectives.routes import DirectedLink
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.profiles.profile import HardwareProfile

LATEST_START_S = 1e6
"""Seconds; a limit of ours, beyond which the picoseconds of a message are lost in the time of day."""

RankNumber = Annotated[int, Field(strict=True, ge=0)]


class JobSpec(CollectiveFields):
    """One collective among `ranks`, or a transfer from the first of two ranks to the second."""

    op: Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv", "transfer"]
    bytes: Count
    ranks: Annotated[list[RankNumber], Field(min_length=1)]
    start_s: Annotated[float, Field(ge=0.0, le=LATEST_START_S, allow_inf_nan=False)] = 0.0


class _Question(FileModel):
    """A wrapper, so that errors carry dotted paths."""

    jobs: list[JobSpec]


@dataclass(frozen=True, slots=True)
class ConcurrentResult:
    """One job: when it ran, how long it takes alone, and `slowdown`, how many times longer it took."""

    op: str
    start_s: float
    end_s: float
    alone_s: float
    slowdown: float
    algorithm: str
    protocol: str
    channels: int

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return asdict(self)


def simulate_concurrent(
    hardware: str | Path | HardwareProfile, jobs: Sequence[Mapping[str, Any]]
) -> list[ConcurrentResult]:
    """Simulate jobs that start at given times and share the machine's links max-min fairly.

    Args:
        hardware: a profile, its name, or the path of its file.
        jobs: `{"op": ..., "bytes": ..., "ranks": [...], "start_s": 0.0}`; op is one of predict_op's collectives
            or `transfer`, and predict_op's other fields (library, algorithm, ...) are allowed.

    Returns:
        One result for each job, in order.

    Raises:
        InputError: unknown profile, op or field; ranks that repeat or can't reach each other: every problem.
        InfeasibleError: a rank that the machine does not have.
    """
    profile = profile_named(hardware)
    check_is(jobs, Sequence, "jobs", '[{"op": "all_reduce", "bytes": 1048576, "ranks": [0, 1]}]')
    try:
        plain = [dict(job) if isinstance(job, Mapping) else job for job in jobs]
        specs = _Question.model_validate({"jobs": plain}).jobs
    except ValidationError as error:
        raise InputError(problems_of(error, _Question)) from None
    _check_ranks(specs, len(profile.topology.gpus))
    links = LinkSharing(profile.topology, profile.collectives)
    priced = [_price(spec, profile, links) for spec in specs]
    ends = run_link_jobs([job for job, _ in priced], links.speeds)
    return [_result(spec, cost, end_s) for spec, (_, cost), end_s in zip(specs, priced, ends, strict=True)]


def link_traffic(hardware: str | Path | HardwareProfile, spec: Mapping[str, Any]) -> dict[DirectedLink, float]:
    """Bytes that a collective moves over each direction of each link, with the algorithm that its library picks.

    Args:
        hardware: a profile, its name, or the path of its file.
        spec: a collective as `predict_op` takes it.

    Returns:
        Payload bytes by link; `str(link)` is such as `gpu0 -> nvswitch (nvlink)`.

    Raises:
        InputError, InfeasibleError: see `predict_op`.
    """
    profile = profile_named(hardware)
    question = collective_spec(spec)
    cost = collective_cost_on(profile, question)
    gpus = profile.topology.group(question.num_devices)
    p2p = question.transport is not Transport.SHM
    staged = reduce_group(profile.topology.finder, gpus, p2p).kind is InterconnectKind.HOST
    return link_bytes(profile.topology, gpus, question.op, cost.algorithm, question.bytes, staged=staged)


def _check_ranks(specs: Sequence[JobSpec], num_gpus: int) -> None:
    problems = []
    for index, spec in enumerate(specs):
        path = f"jobs[{index}].ranks"
        if len(set(spec.ranks)) < len(spec.ranks):
            problems.append(Problem(path, "a rank takes part once", spec.ranks, "[0, 1]"))
        if spec.op == "transfer" and len(spec.ranks) != 2:
            problems.append(Problem(path, "a transfer has a source and a target", spec.ranks, "[0, 4]"))
    if problems:
        raise InputError(problems)
    for index, spec in enumerate(specs):
        if max(spec.ranks) >= num_gpus:
            raise InfeasibleError(f"jobs[{index}]: the machine has no rank {max(spec.ranks)}", f"{num_gpus} GPUs")


def _price(spec: JobSpec, profile: HardwareProfile, links: LinkSharing) -> tuple[LinkJob, CollectiveCost]:
    gpus = tuple(profile.topology.gpus[rank] for rank in spec.ranks)
    p2p = spec.transport is not Transport.SHM
    constants = profile.collectives
    if spec.op == "transfer":
        interconnect = reduce_group(profile.topology.finder, gpus, p2p)
        cost = transfer_cost(spec.bytes, interconnect, constants)
        flow = links.transfer_flow(gpus[0], gpus[1], cost, p2p=p2p)
        return LinkJob(spec.start_s, cost.latency_s, cost.transfer_s, flow), cost
    kind = CollectiveKind(spec.op)
    interconnect = interconnect_of(profile.topology, gpus, kind, p2p)
    cost = collective_cost(kind, spec.bytes, interconnect, profile.device, constants, spec.policy())
    flow = links.flow(gpus, kind, cost, p2p=p2p) if cost.transfer_s > 0.0 else Flow({}, 1.0)
    return LinkJob(spec.start_s, cost.latency_s, cost.transfer_s, flow), cost


def _result(spec: JobSpec, cost: CollectiveCost, end_s: float) -> ConcurrentResult:
    took_s = end_s - spec.start_s
    slowdown = took_s / cost.busy_s if cost.busy_s > 0.0 else 1.0
    return ConcurrentResult(
        spec.op, spec.start_s, end_s, cost.busy_s, slowdown, cost.algorithm, cost.protocol, cost.channels
    )
