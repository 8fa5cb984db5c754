"""A request for `serve` as its file has it: a replica, how it schedules, the traffic, the limits to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, StrictBool, StrictStr, model_validator

from kraken_sim.architectures.registry import BASELINE, architecture
from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel, Name, quantity, quantity_text
from kraken_sim.files.problems import fields_error
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.placement import Placement
from kraken_sim.program.formats import ActivationScheme, KVCacheDType, Quantization
from kraken_sim.program.ops import ComputeDType, DType
from kraken_sim.scenario.fields import CONTEXT_LIMIT
from kraken_sim.scenario.request_file import (
    Duration,
    RequestSource,
    absolute_architecture,
    absolute_hardware,
    absolute_model,
    read_request,
)
from kraken_sim.scenario.resolve import resolve_model
from kraken_sim.scenario.spec import (
    ArchitectureSpec,
    DeviceCount,
    Launch,
    ModelSpec,
    RuntimeSpec,
    Scenario,
)
from kraken_sim.serving.fleet import Routing
from kraken_sim.serving.plan import Preemption, Priority
from kraken_sim.serving.sla import Sla, SlaSpec
from kraken_sim.serving.traffic import TokenCount, TrafficSpec
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument


SEQUENCES_LIMIT = 4096
"""Most sequences of a step; a limit of ours, above what engines take."""

HOST_STEP_S = 5e-4
"""What scheduling, inputs, sampling and answers add to a step; assumed, as of an engine that schedules a step ahead of
the device in part."""

HOST_LINK_BYTES_PER_S = 25e9
"""What a swapped cache goes to the host and back at; assumed, a PCIe 4.0 x16 link as copies reach it."""

LinkBandwidth = Annotated[float, quantity(Dimension.BANDWIDTH), Field(gt=0.0), quantity_text(Dimension.BANDWIDTH)]
Replicas = Annotated[int, Field(strict=True, ge=1, le=4096)]


class SchedulerSpec(FileModel):
    """How a replica batches: vLLM's words and defaults where it has them."""

    max_num_seqs: Annotated[int, Field(strict=True, ge=1, le=SEQUENCES_LIMIT)] = Field(
        default=256, description="Sequences of a step at most.", examples=[128]
    )
    max_num_batched_tokens: TokenCount = Field(default=8192, description="Tokens of a step at most.", examples=[2048])
    chunked_prefill: StrictBool = Field(default=True, description="Prompts in chunks, beside decoding sequences.")
    priority: Priority = Field(
        default=Priority.DECODE,
        description="Who comes first: decode, or prompts in steps of their own.",
        examples=["prefill"],
    )
    block_size: Annotated[int, Field(strict=True, ge=1, le=1024)] = Field(
        default=16, description="Tokens of a block of the cache.", examples=[16]
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.9, description="Share of a device's memory that the engine uses.", examples=[0.92]
    )
    preemption: Preemption = Field(
        default=Preemption.RECOMPUTE, description="What a sequence does that gives its blocks back.", examples=["swap"]
    )
    host_link: LinkBandwidth = Field(
        default=HOST_LINK_BYTES_PER_S,
        description="What a swapped cache goes to the host and back at, a device.",
        examples=['"25 GB/s"'],
    )
    prefix_tokens: Annotated[int, Field(strict=True, ge=0, le=CONTEXT_LIMIT)] = Field(
        default=0, description="Tokens that all prompts begin with, cached once.", examples=[512]
    )
    host_step: Annotated[float, quantity(Dimension.TIME), Field(ge=0.0), quantity_text(Dimension.TIME)] = Field(
        default=HOST_STEP_S,
        description="What the host adds to every step: scheduling, inputs, sampling, answers.",
        examples=['"1 ms"'],
    )
    mixed_launch: Launch | None = Field(
        default=None, description="How steps with prompts are launched; default: as runtime.launch.", examples=["eager"]
    )

    @model_validator(mode="after")
    def _fits_a_step(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise fields_error(
                "must be at least max_num_seqs: every sequence decodes a token a step", "max_num_batched_tokens"
            )
        return self


class PrefillSpec(FileModel):
    """Machines that compute prompts alone and send their caches to those that decode."""

    replicas: Replicas = Field(default=1, description="How many; each as large as one that decodes.", examples=[2])
    link: LinkBandwidth = Field(
        description="Between a device and its peer on the other machine.", examples=['"50 GB/s"']
    )
    latency: Duration = Field(default=2e-5, description="Of a transfer; default: 20 us, assumed.", examples=['"20 us"'])


class ServeRequest(FileModel):
    """One question about a service."""

    name: Name = Field(default="service", description="What reports call it.", examples=["chat"])
    hardware: StrictStr = Field(
        min_length=1,
        description="A profile's name, or the path of one: the machine of a replica.",
        examples=["h200-sxm-x8"],
    )
    model: ModelSpec = Field(description="The model.", examples=[{"preset": "13B"}])
    architecture: ArchitectureSpec = Field(
        default_factory=lambda: architecture(BASELINE).own(), description="Its wiring.", examples=[{"kind": "kraken"}]
    )
    num_devices: DeviceCount | None = Field(
        default=None, description="Devices of a replica; default: all of the machine.", examples=[2]
    )
    placement: Placement | None = Field(default=None, description="As in a scenario.", examples=['"0,1"'])
    dtype: ComputeDType = Field(default=DType.BFLOAT16, description="Number format of weights and activations.")
    quantization: Quantization | None = Field(default=None, description="As in a scenario.", examples=["fp8"])
    activation_scheme: ActivationScheme = Field(
        default=ActivationScheme.DYNAMIC, description="As in a scenario.", examples=["static"]
    )
    kv_cache_dtype: KVCacheDType = Field(
        default=KVCacheDType.AUTO, description="What keys and values are cached in.", examples=["float8"]
    )
    runtime: RuntimeSpec = Field(
        default_factory=lambda: RuntimeSpec.model_validate({"kernels": "serving"}),
        description="As in a scenario; default: the serving kernels, as graphs.",
        examples=[{"kernels": "serving"}],
    )
    scheduler: SchedulerSpec = Field(default_factory=SchedulerSpec, description="How a replica batches.")
    replicas: Replicas = Field(default=1, description="Replicas alike behind one router.", examples=[2])
    routing: Routing = Field(default=Routing.LEAST_LOAD, description="Which replica a request goes to.")
    prefill: PrefillSpec | None = Field(
        default=None, description="Prompts on machines of their own.", examples=[{"replicas": 1, "link": "50 GB/s"}]
    )
    traffic: TrafficSpec = Field(description="The requests.", examples=[{"requests_per_s": 20}])
    sla: SlaSpec | None = Field(
        default=None, description="Limits to keep.", examples=[{"ttft": "1 s", "tpot": "50 ms"}]
    )

    def scenario(self) -> Scenario:
        """A replica as a scenario, whose lengths do not matter."""
        return Scenario(
            name=self.name,
            hardware=self.hardware,
            model=self.model,
            architecture=self.architecture,
            num_devices=self.num_devices,
            placement=self.placement,
            context_length=1,
            dtype=self.dtype,
            quantization=self.quantization,
            activation_scheme=self.activation_scheme,
            kv_cache_dtype=self.kv_cache_dtype,
            runtime=self.runtime,
        )

    def limits(self) -> Sla | None:
        """The limits to keep, if there are any.

        Raises:
            InputError: no such preset.
        """
        return None if self.sla is None else self.sla.resolve()


def load_serve_request(source: RequestSource | YamlDocument) -> ServeRequest:
    """Reads a request; paths of profiles, configs and traces are relative to the file's folder.

    Args:
        source: the path of a file, the name of one that ships, what was read of one, or a mapping of its shape.

    Raises:
        InputError: every problem of the file at once, with line numbers.
    """
    return read_request(source, ServeRequest, _with_absolute_paths, serve_problems)


def serve_problems(request: ServeRequest) -> Iterator[Problem]:
    """What is wrong with a request beyond single fields."""
    try:
        profile = load_profile(request.hardware)
    except InputError as error:
        yield from error.problems
        profile = None
    if profile is not None:
        try:
            resolve_model(request.scenario(), len(profile.topology.gpus))
        except InputError as error:
            yield from error.problems
    try:
        request.limits()
    except InputError as error:
        yield from error.problems
    if request.runtime.max_num_batched_tokens is not None:
        yield Problem(
            "runtime.max_num_batched_tokens", "is the scheduler's", example="scheduler.max_num_batched_tokens"
        )


def _with_absolute_paths(request: ServeRequest, folder: Path) -> ServeRequest:
    trace = request.traffic.trace
    traffic = request.traffic
    if trace is not None and not trace.startswith("/"):
        traffic = traffic.model_copy(update={"trace": str(folder / trace)})
    return request.model_copy(
        update={
            "hardware": absolute_hardware(request.hardware, folder),
            "model": absolute_model(request.model, folder),
            "architecture": absolute_architecture(request.architecture, folder),
            "traffic": traffic,
        }
    )
