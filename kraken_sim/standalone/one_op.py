"""What one op costs on one machine, from a plain description of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, ValidationError, model_validator

from kraken_sim.costs.attention import serving_attention_cost
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import Transport
from kraken_sim.costs.gemm import gemm_cost, serving_quantize_s
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.errors import InputError, check_is, closest
from kraken_sim.files.model import Count, FileModel
from kraken_sim.files.problems import fields_error, problems_of
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import HardwareProfile
from kraken_sim.program.formats import KVCacheDType, Quantization
from kraken_sim.program.ops import (
    Attention,
    CollectiveKind,
    ComputeDType,
    Copy,
    DType,
    Elementwise,
    Embedding,
    Gemm,
    Norm,
    NormFunction,
)
from kraken_sim.scenario.collective import CollectiveFields

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.program.ops import ComputeOp


MOST_ADDS = 8
"""Most tensors that a norm sums before it; a limit of ours, above any layer's."""

ElementwiseFunction = Literal["add", "gelu", "silu", "mul", "silu_mul", "rope", "rope_kv_write", "quantize"]


class _Op(FileModel):
    dtype: ComputeDType = DType.FLOAT16


class GemmSpec(_Op):
    """y[m, n] = x[m, k] · W[n, k]ᵀ; `weights` says whether W still lies in L2 from the launch before.

    With a `quantization` x and W have that format, y has `dtype`; `serving` adds what serving engines time with it, the
    kernels that quantise x.
    """

    op: Literal["gemm"]
    m: Count
    n: Count
    k: Count
    weights: Literal["cold", "warm"] = "warm"
    quantization: Quantization | None = None
    serving: bool = False


class AttentionSpec(_Op):
    """Attention; `serving` adds what serving engines time with it: cache write, rotary embedding, launches.

    Published tables of serving engines hold the whole; a pass of a model prices the kernel and the rest apart.
    """

    op: Literal["attention"]
    batch: Count = 1
    q_len: Count
    kv_len: Count
    num_heads: Count
    num_kv_heads: Count | None = None
    head_dim: Count = 128
    causal: bool = True
    serving: bool = True
    kv_cache_dtype: KVCacheDType = KVCacheDType.AUTO

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.causal and self.kv_len < self.q_len:
            message = f"is less than q_len ({self.q_len}): under a causal mask a query attends to keys up to its own"
            raise fields_error(message, "kv_len")
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise fields_error(f"must divide num_heads ({self.num_heads})", "num_kv_heads")
        return self


class NormSpec(_Op):
    """A norm of [num_tokens, hidden_size]; `fused` marks an engine's kernel instead of torch's own.

    A fused one may take in `adds` tensors, which it sums first, and write the sum too.
    """

    op: Literal["norm"]
    num_tokens: Count
    hidden_size: Count
    function: NormFunction = "layer_norm"
    fused: StrictBool = False
    adds: Annotated[int, Field(strict=True, ge=0, le=MOST_ADDS)] = 0
    writes_sum: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.fused and (self.adds or self.writes_sum):
            raise fields_error("is for a fused norm only; torch's own sums nothing", "adds", "writes_sum")
        return self


class ElementwiseSpec(_Op):
    """A pointwise kernel."""

    op: Literal["elementwise"]
    function: ElementwiseFunction = "add"
    num_elements: Count
    num_inputs: Count = 2


class CopySpec(_Op):
    """A copy within a device."""

    op: Literal["copy"]
    bytes: Count


class EmbeddingSpec(_Op):
    """An embedding lookup; with learned `positions` their rows are added, by a second kernel."""

    op: Literal["embedding"]
    num_tokens: Count
    hidden_size: Count
    positions: StrictBool = True


class CollectiveOpSpec(CollectiveFields):
    """A collective of `bytes`, counted as nccl-tests counts its size (`kraken_sim.program.ops.Collective`)."""

    dtype: ComputeDType = DType.FLOAT16
    op: CollectiveKind
    bytes: Count
    num_devices: Count


OpSpec = GemmSpec | AttentionSpec | NormSpec | ElementwiseSpec | CopySpec | EmbeddingSpec | CollectiveOpSpec
MODELS: Mapping[str, type[OpSpec]] = {
    "gemm": GemmSpec,
    "attention": AttentionSpec,
    "norm": NormSpec,
    "elementwise": ElementwiseSpec,
    "copy": CopySpec,
    "embedding": EmbeddingSpec,
    **{kind.value: CollectiveOpSpec for kind in CollectiveKind},
}


def predict_op(hardware: str | Path | HardwareProfile, spec: Mapping[str, Any]) -> float:
    """Seconds of one op alone on the machine, launched back to back from a CUDA graph.

    The gap between two graph nodes is included, as in any measurement that divides a replay by its nodes.

    Args:
        hardware: a profile, its name, or the path of its file.
        spec: `{"op": "gemm", "m": ..., "n": ..., "k": ..., "dtype": ..., "quantization": ...}`,
            `{"op": "attention", ...}`, `{"op": "all_reduce", "bytes": ..., "num_devices": ..., "library": ...}` (or
            `all_gather`, `reduce_scatter`, `all_to_all`, `broadcast`, `send_recv`), `{"op": "norm", ...}`,
            `{"op": "elementwise", ...}`, `{"op": "copy", ...}` or `{"op": "embedding", ...}`.

    Raises:
        InputError: unknown profile or op, missing, unknown or wrong fields: every problem.
        InfeasibleError: more devices than the machine has.
    """
    profile = profile_named(hardware)
    question = _validated(spec)
    gap_s = profile.launch.graph_node_gap_s
    if isinstance(question, CollectiveOpSpec):
        busy_s = collective_cost_on(profile, question).busy_s
        return busy_s + gap_s if busy_s > 0.0 else 0.0
    op = _compute_op(question)
    if isinstance(question, GemmSpec) and isinstance(op, Gemm):
        warm = question.weights == "warm"
        products = profile.gemm_of(op.quantization)[1]
        added_s = serving_quantize_s(op, products) if question.serving and op.quantization is not None else 0.0
        return gemm_cost(op, profile.device, products, weights_warm=warm).busy_s + added_s + gap_s
    if isinstance(question, AttentionSpec) and isinstance(op, Attention) and question.serving:
        constants = profile.attention_of(op, serving=True)[1]
        return serving_attention_cost(op, profile.device, constants).busy_s + gap_s
    return Pricing(profile).kernel(op).busy_s + gap_s


def profile_named(hardware: str | Path | HardwareProfile) -> HardwareProfile:
    """A profile as it is given, or by its name or its file.

    Raises:
        InputError: it is none of these, or see `load_profile`.
    """
    if isinstance(hardware, str | Path):
        return load_profile(hardware)
    check_is(hardware, HardwareProfile, "hardware", "h200-sxm-x2")
    return hardware


def _validated(spec: Mapping[str, Any]) -> OpSpec:
    check_is(spec, Mapping, "op", '{"op": "gemm", ...}')
    op = spec.get("op")
    model = MODELS.get(op) if isinstance(op, str) else None
    if model is None:
        guess = closest(op, list(MODELS)) if isinstance(op, str) else None
        raise InputError.single("op", f"must be one of {', '.join(MODELS)}", op, '{"op": "gemm", ...}', guess, "op")
    try:
        return model.model_validate(dict(spec))
    except ValidationError as error:
        raise InputError(problems_of(error, model), source="op") from None


def collective_spec(spec: Mapping[str, Any]) -> CollectiveOpSpec:
    """A collective from its plain description.

    Raises:
        InputError: see `predict_op`; or it is another op.
    """
    question = _validated(spec)
    if not isinstance(question, CollectiveOpSpec):
        raise InputError.single("op", "must be a collective", question.op, "all_reduce")
    return question


def collective_cost_on(profile: HardwareProfile, spec: CollectiveOpSpec) -> CollectiveCost:
    """What a collective costs on the first `num_devices` GPUs of a machine, and which kernel it is.

    Raises:
        InputError, InfeasibleError: see `predict_op`.
    """
    gpus, p2p = profile.topology.group(spec.num_devices), spec.transport is not Transport.SHM
    interconnect = interconnect_of(profile.topology, gpus, spec.op, p2p)
    return collective_cost(spec.op, spec.bytes, interconnect, profile.device, profile.collectives, spec.policy())


def _compute_op(
    spec: GemmSpec | AttentionSpec | NormSpec | ElementwiseSpec | CopySpec | EmbeddingSpec,
) -> ComputeOp:
    if isinstance(spec, GemmSpec):
        return Gemm(spec.m, spec.n, spec.k, spec.dtype, quantization=spec.quantization)
    if isinstance(spec, AttentionSpec):
        kv_heads = spec.num_kv_heads or spec.num_heads
        return Attention(
            spec.batch,
            spec.q_len,
            spec.kv_len,
            spec.num_heads,
            kv_heads,
            spec.head_dim,
            spec.causal,
            spec.dtype,
            spec.kv_cache_dtype.dtype,
        )
    if isinstance(spec, NormSpec):
        shape = (spec.num_tokens, spec.hidden_size, spec.dtype)
        return Norm(*shape, spec.function, fused=spec.fused, adds=spec.adds, writes_sum=spec.writes_sum)
    if isinstance(spec, ElementwiseSpec):
        return Elementwise(spec.function, spec.num_elements, spec.num_inputs, spec.dtype)
    if isinstance(spec, CopySpec):
        return Copy(spec.bytes)
    return Embedding(spec.num_tokens, spec.hidden_size, spec.dtype, spec.positions)
