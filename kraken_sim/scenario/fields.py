"""The question a user asks: which model, wired how, on which devices of which machine, run how.

The pydantic models below are the file's shape and nothing more; `resolve.resolve_model` turns them into the domain's
own types and checks what concerns several fields at once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StrictBool, StrictStr, ValidationError, model_validator

from kraken_sim.architectures.architecture import DeviceCount
from kraken_sim.architectures.form import ArchitectureSpec
from kraken_sim.architectures.registry import BASELINE, architecture
from kraken_sim.architectures.workload import Phase
from kraken_sim.files.model import FileModel, NotEmpty
from kraken_sim.files.problems import fields_error
from kraken_sim.profiles.placement import Placement
from kraken_sim.program.formats import ActivationScheme, KVCacheDType, Quantization
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import ComputeDType, DType
from kraken_sim.scenario.collective import CollectiveSpec
from kraken_sim.scenario.host import HostSpec
from kraken_sim.scenario.model import ModelSpec

CONTEXT_LIMIT = 1 << 24
"""Most tokens of a sequence; a limit of ours, far above any model's, where only a slip goes."""

NAME_LIMIT = 200
"""Longest name of a scenario; a limit of ours, for the reports that show it."""

BATCH_LIMIT = 1 << 16
"""Most sequences of a batch; a limit of ours, where only a slip goes."""


class Launch(StrEnum):
    """How kernels reach the device: a captured CUDA graph, or one launch each."""

    GRAPH = "graph"
    EAGER = "eager"


class RuntimeSpec(FileModel):
    """How the software runs the model."""

    launch: Launch = Field(default=Launch.GRAPH, description="CUDA graph, or eager launches from the host.")
    kernels: KernelSet = Field(
        default=KernelSet.PYTORCH,
        description="Which kernels an engine runs for a layer's small operations.",
        examples=["serving"],
    )
    load: CardLoad = Field(
        default=CardLoad.SUSTAINED,
        description="Passes back to back, or a lone one on a rested card at its boost clock.",
        examples=["rested"],
    )
    overlap: StrictBool = Field(
        default=True, description="Kraken: run the AllReduce beside the attention, or block on it."
    )
    overlap_copies: Annotated[int, Field(strict=True, ge=0, le=2)] = Field(
        default=1,
        description="Kraken: copies of the activation a layer around its AllReduce: 0 if it writes its sum elsewhere, "
        "1 into a buffer that it sums in place (PyTorch), 2 into and out of a buffer (TensorRT-LLM's plugins).",
        examples=[1],
    )
    max_num_batched_tokens: Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)] | None = Field(
        default=None,
        description="Generate: most tokens of all sequences that one step computes; longer prompts come in chunks.",
        examples=[2048],
    )
    host: HostSpec | None = Field(
        default=None,
        description="What launching costs this host: a file of --suite host, a small YAML file, or the costs by name; "
        "default: what the profile says.",
        examples=["host.jsonl"],
    )
    collective: CollectiveSpec = Field(default_factory=CollectiveSpec)


class SequencesSpec(FileModel):
    """Sequences alike in a step whose sequences are not: decode steps of some beside chunks of others' prompts."""

    num_sequences: Annotated[int, Field(strict=True, ge=1, le=BATCH_LIMIT)] = Field(
        default=1, description="How many they are.", examples=[16]
    )
    num_new_tokens: Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)] = Field(
        description="Tokens that each computes in this step: 1 in decode.", examples=[1]
    )
    num_cached_tokens: Annotated[int, Field(strict=True, ge=0, le=CONTEXT_LIMIT)] = Field(
        default=0, description="Tokens of each that the cache has already.", examples=[1500]
    )


class Scenario(FileModel):
    """One question: a model, wired in one way, on devices of one machine."""

    name: StrictStr = Field(
        default="scenario", min_length=1, max_length=NAME_LIMIT, description="What reports call it."
    )
    hardware: StrictStr = Field(
        min_length=1, description="Name of a hardware profile, or path to one.", examples=["h200-sxm-x2"]
    )
    model: ModelSpec = Field(description="The base model.", examples=[{"preset": "6.7B"}])
    architecture: ArchitectureSpec = Field(
        default_factory=lambda: architecture(BASELINE).own(),
        description="How its layers are wired; default: standard.",
        examples=[{"kind": "kraken"}],
    )
    num_devices: DeviceCount | None = Field(
        default=None, description="Devices used; default: all of the machine.", examples=[2]
    )
    placement: Placement | None = Field(
        default=None,
        description="The GPU of each rank as in CUDA_VISIBLE_DEVICES; default: the machine's first ones.",
        examples=['"0,1,4,5"'],
    )
    phase: Phase = Field(
        default=Phase.PREFILL, description="Prefill (TTFT), one step of decode (TPOT), or generate: the whole answer."
    )
    batch_size: Annotated[int, Field(strict=True, ge=1, le=BATCH_LIMIT)] = Field(
        default=1, description="Sequences.", examples=[1]
    )
    context_length: Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)] = Field(
        description="Tokens of each sequence: the prompt's, or those its cache holds.", examples=[2048]
    )
    output_length: Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)] | None = Field(
        default=None,
        description="Generate: tokens that each sequence answers with, the first included.",
        examples=[256],
    )
    prefix_length: Annotated[int, Field(strict=True, ge=0, le=CONTEXT_LIMIT)] = Field(
        default=0,
        description="Tokens at the start of the prompt that the cache has already, once for all sequences.",
        examples=[1024],
    )
    sequences: Annotated[tuple[SequencesSpec, ...], NotEmpty] | None = Field(
        default=None,
        description="One step of sequences that are not alike, instead of phase, batch_size and context_length.",
        examples=["[{num_sequences: 16, num_new_tokens: 1, num_cached_tokens: 1500}, {num_new_tokens: 512}]"],
    )
    dtype: ComputeDType = Field(default=DType.FLOAT16, description="Number format of weights and activations.")
    quantization: Quantization | None = Field(
        default=None,
        description="What weights and inputs of the layers' GEMMs are quantised to; embedding and LM head are not. "
        "Default: what the model's config says of its checkpoint.",
        examples=["fp8"],
    )
    activation_scheme: ActivationScheme = Field(
        default=ActivationScheme.DYNAMIC,
        description="How fp8 inputs are scaled: static, by one known scale a tensor; dynamic, by one a token; "
        "dynamic_tensor, by one a tensor that is found first.",
        examples=["static"],
    )
    kv_cache_dtype: KVCacheDType = Field(
        default=KVCacheDType.AUTO,
        description="What keys and values are cached in: auto, as dtype.",
        examples=["float8"],
    )
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)

    @model_validator(mode="before")
    @classmethod
    def _sequences_say_the_lengths(cls, data: object) -> object:
        """The longest context and the number of sequences of a step whose sequences are not alike."""
        if not isinstance(data, dict) or not isinstance(data.get("sequences"), list | tuple):
            return data
        try:
            groups = [SequencesSpec.model_validate(group) for group in data["sequences"]]
        except ValidationError:
            return data if "context_length" in data else {**data, "context_length": 1}
        if not groups:
            return data
        longest = max(group.num_cached_tokens + group.num_new_tokens for group in groups)
        total = sum(group.num_sequences for group in groups)
        own = {"context_length": longest, "batch_size": min(total, BATCH_LIMIT)}
        wrong = [name for name, value in own.items() if data.get(name, value) != value]
        wrong += [name for name in ("output_length", "prefix_length") if data.get(name)]
        if data.get("phase", Phase.PREFILL) != Phase.PREFILL:
            wrong.append("phase")
        if wrong:
            raise fields_error("is said by sequences already", *wrong)
        return {**data, **own}

    @model_validator(mode="after")
    def _generates_what_it_says(self) -> Self:
        generates = self.phase is Phase.GENERATE
        if generates and self.output_length is None:
            raise fields_error("is required where phase is generate", "output_length")
        if not generates and self.output_length is not None:
            raise fields_error("goes with phase generate", "output_length")
        if not generates and self.runtime.max_num_batched_tokens is not None:
            raise fields_error("goes with phase generate", "runtime.max_num_batched_tokens")
        if self.prefix_length >= self.context_length:
            raise fields_error("must be less than context_length: something is left to compute", "prefix_length")
        return self

    @model_validator(mode="after")
    def _scales_fit(self) -> Self:
        if self.activation_scheme is not ActivationScheme.DYNAMIC and self.quantization is not Quantization.FP8:
            what = "without a quantization nothing is scaled"
            if self.quantization is not None:
                what = f"{self.quantization} has its scales by block, which are dynamic"
            raise fields_error(f"is fp8's; {what}", "activation_scheme")
        return self
