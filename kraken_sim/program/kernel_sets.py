"""Which kernels an engine runs for the small operations of a layer, and in which state the card is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from kraken_sim.program.formats import BY_BLOCK, BY_TOKEN, FP4, STATIC, InputFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


class KernelSet(StrEnum):
    """Which kernels a layer's small operations are; GEMMs and attention are the same in all.

    pytorch: one for each operation, torch's own where it has one; pytorch_composed: those that a model written in
    torch's operators launches one by one, such as Hugging Face's; fused: as pytorch, the RMSNorm an engine's instead of
    torch's; compiled: neighbours fused by torch.compile; serving: as vLLM and SGLang run them; serving_fused: the
    AllReduce with the add and norm behind it in one kernel too, as vLLM and TensorRT-LLM run them on Hopper and
    Blackwell.
    """

    PYTORCH = "pytorch"
    PYTORCH_COMPOSED = "pytorch_composed"
    FUSED = "fused"
    COMPILED = "compiled"
    SERVING = "serving"
    SERVING_FUSED = "serving_fused"

    __hash__ = str.__hash__  # faster than Enum's


class CardLoad(StrEnum):
    """The state of the card: after a rest, at its boost clock, or under passes back to back."""

    RESTED = "rested"
    SUSTAINED = "sustained"

    __hash__ = str.__hash__  # faster than Enum's


class Positions(StrEnum):
    """How rotary positions and the write into the cache, which lie between the QKV projection and attention, run."""

    APART = "apart"
    """One kernel for queries and keys, another for the cache."""
    COMPILED = "compiled"
    """torch.compile's two: keys turned on their way into the cache with the values, then queries."""
    IN_ATTENTION = "in_attention"
    """One kernel before a prefill's attention; in decode the attention kernel does both (TensorRT-LLM)."""


@dataclass(frozen=True, slots=True)
class KernelRules:
    """What a kernel set is.

    `composed`: RMSNorm, rotary positions and SiLU-mul out of torch's operators, one kernel each. `generated_norm`: an
    RMSNorm is an engine's or a compiler's kernel and not torch's. `add_in_norm`: a sum that a norm reads is made by it.
    `all_reduce_norm`: where an AllReduce comes before these two, its kernel does all three, within an engine's limits.
    `quantize_in_*`: in which formats an RMSNorm, a SiLU-mul or such an AllReduce quantises the input of the GEMM behind
    it; in others, and behind attention, a LayerNorm or a GELU, that takes kernels of its own. `float8_cache`: whether
    attention reads a cache in fp8. `torch_gemms`: GEMMs are torch's, whose fp8 with a scale a token has fewer tiles.
    """

    composed: bool = False
    generated_norm: bool = False
    add_in_norm: bool = False
    positions: Positions = Positions.APART
    all_reduce_norm: bool = False
    quantize_in_norm: frozenset[InputFormat] = frozenset()
    quantize_in_activation: frozenset[InputFormat] = frozenset()
    quantize_in_all_reduce: frozenset[InputFormat] = frozenset()
    float8_cache: bool = False
    torch_gemms: bool = True


RULES: Mapping[KernelSet, KernelRules] = MappingProxyType(
    {
        KernelSet.PYTORCH: KernelRules(),
        KernelSet.PYTORCH_COMPOSED: KernelRules(composed=True),
        KernelSet.FUSED: KernelRules(generated_norm=True),
        KernelSet.COMPILED: KernelRules(
            generated_norm=True,
            add_in_norm=True,
            positions=Positions.COMPILED,
            quantize_in_norm=frozenset({STATIC, BY_TOKEN}),
            quantize_in_activation=frozenset({STATIC, BY_TOKEN}),
        ),
        KernelSet.SERVING: KernelRules(
            generated_norm=True,
            add_in_norm=True,
            quantize_in_norm=frozenset({STATIC, BY_TOKEN, BY_BLOCK}),
            quantize_in_activation=frozenset({STATIC, FP4}),
            float8_cache=True,
            torch_gemms=False,
        ),
        KernelSet.SERVING_FUSED: KernelRules(
            generated_norm=True,
            add_in_norm=True,
            positions=Positions.IN_ATTENTION,
            all_reduce_norm=True,
            quantize_in_norm=frozenset({STATIC, BY_TOKEN, BY_BLOCK}),
            quantize_in_activation=frozenset({STATIC, FP4}),
            quantize_in_all_reduce=frozenset({STATIC, FP4}),
            float8_cache=True,
            torch_gemms=False,
        ),
    }
)
"""The kernel sets. Sources: pytorch, pytorch_composed, fused and compiled are what the models of validation/models
launch (the composed ones those of Hugging Face's modeling_llama.py); serving is the order of vLLM's
model_executor/models/llama.py with its fused_add_rms_norm, rotary_embedding, reshape_and_cache and silu_and_mul;
serving_fused adds vLLM's compilation/passes/fusion/allreduce_rms_fusion.py and the attention op of TensorRT-LLM
(docs/source/features/attention.md). What quantises: of compiled what torch.compile makes of the models of
validation/models, of the serving sets vLLM's docs/design/fusions.md and docs/design/attention_backends.md; torch's
scaled_dot_product_attention reads no fp8."""
