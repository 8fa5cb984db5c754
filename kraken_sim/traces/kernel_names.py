"""What a kernel does, by the name that a profiler shows: one table, the first row that fits counts."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from kraken_sim.program.ops import Attention, Collective, Copy, Elementwise, Embedding, Gemm, Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.program.ops import Op


class KernelClass(StrEnum):
    """What a kernel is for."""

    GEMM = "gemm"
    ATTENTION = "attention"
    NORM = "norm"
    ROPE = "rope"
    ACTIVATION = "activation"
    ADD = "add"
    COPY = "copy"
    """Copies, casts, concatenations, and writes into a KV cache."""
    ELEMENTWISE = "elementwise"
    """Any other pointwise kernel."""
    REDUCTION = "reduction"
    QUANTIZE = "quantize"
    EMBEDDING = "embedding"
    SAMPLING = "sampling"
    COLLECTIVE = "collective"
    SPLIT_K_REDUCE = "split_k_reduce"
    """Adds up the partial sums of a GEMM."""
    ATTENTION_PART = "attention_part"
    """Prepares an attention, or adds up the partial results of its splits or grouped heads."""
    MEMSET = "memset"
    OTHER = "other"

    __hash__ = str.__hash__


class NameRule(NamedTuple):
    """Names that hold `pattern` are kernels of `kernel_class`; `source` says where such names are from."""

    pattern: str
    kernel_class: KernelClass
    source: str


_MEASURED: Final = "seen on an H200, torch 2.11 (validation/measurements)"

RULES: Final = (
    NameRule(r"^Memset\b", KernelClass.MEMSET, "pytorch/kineto libkineto/src/CuptiActivity.cpp (gpu_memset)"),
    NameRule(r"^Memcpy\b", KernelClass.COPY, "pytorch/kineto libkineto/src/CuptiActivity.cpp (gpu_memcpy)"),
    NameRule(r"nccl\w*Kernel", KernelClass.COLLECTIVE, "NVIDIA/nccl src/device/generate.py"),
    NameRule(r"cross_device_reduce", KernelClass.COLLECTIVE, "vllm-project/vllm csrc/custom_all_reduce.cuh"),
    NameRule(
        r"(one|two)_?shot_?all_?reduce|all_?reduce_fusion|multimem_\w+|all_?reduce_kernel|nvshmem",
        KernelClass.COLLECTIVE,
        "TensorRT-LLM customAllReduceKernels.cu, flashinfer trtllm_allreduce_fusion.cuh, torch CUDASymmetricMemoryOps",
    ),
    NameRule(r"splitK_?reduce|reduce_?split_?k", KernelClass.SPLIT_K_REDUCE, f"{_MEASURED}; cutlass reduce_split_k.h"),
    NameRule(r"lean_reduction_kernel", KernelClass.ATTENTION_PART, f"{_MEASURED}: cuDNN's decode attention"),
    NameRule(
        r"splitkv_combine|FlashAttnFwdCombine|flash_fwd_combine|prepare_varlen",
        KernelClass.ATTENTION_PART,
        "Dao-AILab/flash-attention flash_fwd_kernel.h, hopper/flash_fwd_combine_kernel.h, flash_prepare_scheduler.cu",
    ),
    NameRule(
        r"paged_attention_v2_reduce|merge_attn_states|reduce_segments|MergeStates|fmhaReduction",
        KernelClass.ATTENTION_PART,
        "vllm csrc/attention/*.cu, triton_unified_attention.py; flashinfer attention/cascade.cuh; TensorRT-LLM",
    ),
    NameRule(r"native_sdpa|fmha|sdpa", KernelClass.ATTENTION, f"{_MEASURED}; TensorRT-LLM, xformers, cuDNN names"),
    NameRule(
        r"flash_(fwd|attn|attention)|FlashAttn|flash::|paged_attention|unified_attention|multihead_attention|\bxqa|"
        r"Batch(Prefill|Decode)With|Single(Prefill|Decode)With|attention|attn_fwd",
        KernelClass.ATTENTION,
        "Dao-AILab/flash-attention, vllm csrc/attention, flashinfer, TensorRT-LLM",
    ),
    NameRule(
        r"rotary|rope|triton_\w*fused\w*_(flip|cos|sin)(_|\b)",
        KernelClass.ROPE,
        f"{_MEASURED}: generated ones; vllm csrc/pos_encoding_kernels.cu, flashinfer pos_enc.cuh",
    ),
    NameRule(
        r"indexSelect|vectorized_gather|embedding",
        KernelClass.EMBEDDING,
        f"{_MEASURED}; pytorch Indexing.cu, Inductor's names of fused functions",
    ),
    NameRule(
        r"quant|cvt_\w*to_fp[48]|fp8_cast|triton_poi_fused_+(to_copy_)?clamp_div_\d",
        KernelClass.QUANTIZE,
        f"{_MEASURED}: generated ones; vllm csrc/quantization, TensorRT-LLM quantization.cu",
    ),
    NameRule(
        r"layer_?norm|rms_?norm|triton_\w*fused\w*_rsqrt(_|\b)",
        KernelClass.NORM,
        f"{_MEASURED}; pytorch layer_norm_kernel.cu, vllm csrc/layernorm_kernels.cu, flashinfer norm.cuh",
    ),
    NameRule(
        r"reshape_and_cache|concat_and_cache|AppendPagedKV|update_kv_cache|applyBiasRopeUpdateKVCache",
        KernelClass.COPY,
        "vllm csrc/cache_kernels.cu, flashinfer page.cuh, TensorRT-LLM",
    ),
    NameRule(
        r"argmax|topk|top_?k|sampling|multinomial|RadixSort|bitonic",
        KernelClass.SAMPLING,
        "pytorch ReduceArgMaxKernel.cu, TensorTopK.cu, cub; flashinfer sampling.cuh",
    ),
    NameRule(
        r"silu|gelu|swiglu|act_and_mul|doActivation",
        KernelClass.ACTIVATION,
        f"{_MEASURED}; vllm csrc/activation_kernels.cu, TensorRT-LLM",
    ),
    NameRule(
        r"nvjet|cutlass|gemm|gemv|marlin|xmma|cublas|dot_kernel|triton_(tem|mm|bmm)|scaled_mm|matmul|wgmma",
        KernelClass.GEMM,
        f"{_MEASURED}; cuBLAS, cutlass and Inductor names",
    ),
    NameRule(
        r"CatArrayBatchedCopy|copy_kernel|direct_copy|index_(put|copy)|scatter|(?<!_to)_copy__",
        KernelClass.COPY,
        f"{_MEASURED}; pytorch Copy.cu, Shape.cu, IndexKernel.cu",
    ),
    NameRule(r"Functor_add\b|AddFunctor|add_kernel", KernelClass.ADD, f"{_MEASURED}; pytorch CUDAFunctors"),
    NameRule(r"\breduce_kernel|triton_(red|per)_", KernelClass.REDUCTION, f"{_MEASURED}; pytorch Reduce.cuh, Inductor"),
    NameRule(r"elementwise_kernel|triton_poi_", KernelClass.ELEMENTWISE, f"{_MEASURED}; pytorch Loops.cuh, Inductor"),
)
"""In this order: an attention made with cutlass is an attention, a norm that quantises its output a quantisation."""

_COMPILED: Final = tuple((re.compile(rule.pattern, re.IGNORECASE), rule.kernel_class) for rule in RULES)

_MOST_NAMES: Final = 1 << 14
"""Names whose class is kept; a limit of ours, a hundred times what a model launches."""


@lru_cache(maxsize=_MOST_NAMES)
def class_of_name(name: str) -> KernelClass:
    """The class of a kernel by its name; `other` where no rule knows it."""
    for pattern, kernel_class in _COMPILED:
        if pattern.search(name):
            return kernel_class
    return KernelClass.OTHER


_FUNCTIONS: Final[Mapping[str, KernelClass]] = {
    "amax": KernelClass.REDUCTION,
    "add": KernelClass.ADD,
    "gelu": KernelClass.ACTIVATION,
    "silu": KernelClass.ACTIVATION,
    "silu_mul": KernelClass.ACTIVATION,
    "rope": KernelClass.ROPE,
    "rope_kv_write": KernelClass.ROPE,
    "quantize": KernelClass.QUANTIZE,
    "cat": KernelClass.COPY,
    "convert": KernelClass.COPY,
    "mean": KernelClass.REDUCTION,
}


def class_of_op(op: Op) -> KernelClass:
    """The class of a kernel of ours."""
    if isinstance(op, Elementwise):
        if op.function == "add" and op.num_inputs == 1:  # of a constant
            return KernelClass.ELEMENTWISE
        return _FUNCTIONS.get(op.function, KernelClass.ELEMENTWISE)
    by_type: Mapping[type, KernelClass] = {
        Gemm: KernelClass.GEMM,
        Attention: KernelClass.ATTENTION,
        Norm: KernelClass.NORM,
        Copy: KernelClass.COPY,
        Embedding: KernelClass.EMBEDDING,
        Collective: KernelClass.COLLECTIVE,
    }
    return by_type.get(type(op), KernelClass.OTHER)


_NOISE: Final = re.compile(r"^void |at::native::|\(anonymous namespace\)::|std::|c10::|at::cuda::")
_FUNCTOR: Final = re.compile(r"\w*Functor\w*|\w+_kernel_cuda|\w+KernelImpl|\w+Ops(?=<)|direct_copy\w*|pow_tensor\w*")


def short_name(name: str, most: int = 64) -> str:
    """A kernel's name without namespaces, arguments and most of its template arguments."""
    plain = _NOISE.sub("", name)
    head = re.split(r"[<(]", plain, maxsplit=1)[0].strip() or plain
    functor = _FUNCTOR.search(plain[len(head) :]) if "elementwise" in head or head == "reduce_kernel" else None
    short = f"{head}<{functor.group()}>" if functor else head
    if name.startswith(("Mem", "nvjet", "triton")):
        short = name
    return short if len(short) <= most else short[: most - 3] + "..."
