"""What is asked of an architecture, and the building blocks that all architectures share.

Shape letters: T tokens of one step, N devices, d hidden size, h query heads, g key/value heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kraken_sim.program.ops import (
    Attention,
    Collective,
    CollectiveKind,
    Copy,
    DType,
    Elementwise,
    Embedding,
    Gemm,
    Norm,
)
from kraken_sim.program.program import MAIN_STREAM, Category, Kernel, Program, RecordEvent, Segment, Step, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.ops import Op


class Phase(StrEnum):
    """Prefill answers TTFT, decode (one step) answers TPOT."""

    PREFILL = "prefill"
    DECODE = "decode"

    __hash__ = str.__hash__  # faster than Enum's


@dataclass(frozen=True, slots=True)
class Workload:
    """One forward step: `batch_size` sequences with `context_length` tokens in the prompt or the cache.

    `overlap_copies` is how often Kraken copies the activation a layer around its AllReduce: before it, then after.
    """

    num_devices: int
    batch_size: int
    context_length: int
    phase: Phase = Phase.PREFILL
    dtype: DType = DType.FLOAT16
    overlap: bool = True
    overlap_copies: int = 1

    @property
    def q_len(self) -> int:
        """New tokens of one sequence."""
        return self.context_length if self.phase is Phase.PREFILL else 1

    @property
    def kv_len(self) -> int:
        """Tokens of one sequence that attention sees; a decode step adds its own to the cache."""
        return self.context_length if self.phase is Phase.PREFILL else self.context_length + 1

    @property
    def num_tokens(self) -> int:
        """T: rows of every activation of the step."""
        return self.batch_size * self.q_len


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The slice of one attention + FFN block that one device computes.

    `hidden_size` is the width of the activation; heads and `intermediate_size` are the device's own share.
    """

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    gated_ffn: bool
    rotary: bool
    qk_norm: bool = False


def shard(config: TransformerConfig, num_devices: int) -> BlockShape:
    """A device's share under Megatron tensor parallelism; key/value heads are replicated when too few."""
    return BlockShape(
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads // num_devices,
        num_kv_heads=max(1, config.num_key_value_heads // num_devices),
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size // num_devices,
        gated_ffn=config.gated_ffn,
        rotary=not config.position_embeddings,
        qk_norm=config.qk_norm,
    )


@dataclass(slots=True)
class ProgramBuilder:
    """Collects the steps of one segment; every method appends what its name says."""

    work: Workload
    steps: list[Step] = field(default_factory=list)

    def kernel(self, name: str, op: Op, category: Category, stream: int = MAIN_STREAM) -> None:
        """One kernel."""
        self.steps.append(Kernel(name, op, category, stream))

    def record(self, event: str, stream: int) -> None:
        """An event record."""
        self.steps.append(RecordEvent(event, stream))

    def wait(self, event: str, stream: int, category: Category = Category.OTHER) -> None:
        """An event wait."""
        self.steps.append(WaitEvent(event, stream, category))

    def take(self) -> tuple[Step, ...]:
        """The steps so far; the builder starts afresh."""
        steps = tuple(self.steps)
        self.steps = []
        return steps

    def embedding(self, hidden_size: int) -> None:
        """Token rows gathered, position rows added: two kernels."""
        work = self.work
        self.kernel("embedding", Embedding(work.num_tokens, hidden_size, work.dtype), Category.OTHER)

    def norm(self, name: str, hidden_size: int, num_tokens: int | None = None) -> None:
        """A LayerNorm over T rows unless `num_tokens` says otherwise."""
        rows = self.work.num_tokens if num_tokens is None else num_tokens
        self.kernel(name, Norm(rows, hidden_size, self.work.dtype), Category.NORM)

    def gemm(
        self,
        name: str,
        n: int,
        k: int,
        category: Category = Category.GEMM,
        *,
        accumulate: bool = False,
        m: int | None = None,
    ) -> None:
        """y[T, n] = x[T, k] · Wᵀ."""
        rows = self.work.num_tokens if m is None else m
        self.kernel(name, Gemm(rows, n, k, self.work.dtype, accumulate), category)

    def add(self, name: str, hidden_size: int, category: Category = Category.OTHER) -> None:
        """Out = a + b over [T, hidden_size]."""
        elements = self.work.num_tokens * hidden_size
        self.kernel(name, Elementwise("add", elements, 2, self.work.dtype), category)

    def copy(self, name: str, num_elements: int, category: Category = Category.OTHER, *, strided: bool = False) -> None:
        """A device-to-device copy."""
        self.kernel(name, Copy(num_elements * self.work.dtype.num_bytes, strided), category)

    def collective(
        self,
        name: str,
        kind: CollectiveKind,
        num_bytes: int,
        num_devices: int,
        stream: int = MAIN_STREAM,
        stride: int = 1,
    ) -> None:
        """A collective of groups of `num_devices`, bytes counted as in `Collective`; nothing on one device."""
        if num_devices > 1:
            self.kernel(name, Collective(kind, num_bytes, num_devices, stride), Category.ALL_REDUCE, stream)

    def all_reduce(
        self,
        name: str,
        hidden_size: int,
        num_devices: int,
        stream: int = MAIN_STREAM,
        stride: int = 1,
    ) -> None:
        """The sum of a [T, hidden_size] activation over `num_devices`; nothing on one device."""
        num_bytes = self.work.num_tokens * hidden_size * self.work.dtype.num_bytes
        self.collective(name, CollectiveKind.ALL_REDUCE, num_bytes, num_devices, stream, stride)

    def attention(self, block: BlockShape, gemms: Category = Category.GEMM, suffix: str = "") -> None:
        """QKV projection, rotary embedding if any, cache write, attention, output projection."""
        work = self.work
        kv_width = block.num_kv_heads * block.head_dim
        q_width = block.num_heads * block.head_dim
        copies = Category.OVERLAPPED_GEMM if gemms is Category.OVERLAPPED_GEMM else Category.OTHER
        self.gemm("gemm_qkv" + suffix, q_width + 2 * kv_width, block.hidden_size, gemms)
        if block.qk_norm:
            for name, heads in (("norm_q", block.num_heads), ("norm_k", block.num_kv_heads)):
                self.norm(name + suffix, block.head_dim, work.num_tokens * heads)
        if block.rotary:
            elements = work.num_tokens * (q_width + kv_width)
            self.kernel("rope" + suffix, Elementwise("rope", elements, 1, work.dtype), Category.OTHER)
        # The keys and values of one token lie side by side: a slice of many tokens is strided, of one it is not.
        self.copy("kv_cache" + suffix, work.num_tokens * 2 * kv_width, copies, strided=work.num_tokens > 1)
        attention = Attention(
            batch=work.batch_size,
            q_len=work.q_len,
            kv_len=work.kv_len,
            num_heads=block.num_heads,
            num_kv_heads=block.num_kv_heads,
            head_dim=block.head_dim,
            causal=True,
            dtype=work.dtype,
        )
        self.kernel("attention" + suffix, attention, Category.ATTENTION)
        self.gemm("gemm_out" + suffix, block.hidden_size, q_width, gemms)

    def ffn(self, block: BlockShape, suffix: str = "", *, accumulate: bool = False) -> None:
        """Up projection (with its gate, if any), activation, down projection."""
        width = block.intermediate_size
        self.gemm("gemm_up" + suffix, 2 * width if block.gated_ffn else width, block.hidden_size)
        elements = self.work.num_tokens * width
        function, inputs = ("silu_mul", 2) if block.gated_ffn else ("gelu", 1)
        activation = Elementwise(function, elements, inputs, self.work.dtype)
        self.kernel(function + suffix, activation, Category.OTHER)
        self.gemm("gemm_down" + suffix, block.hidden_size, width, accumulate=accumulate)

    def lm_head(self, hidden_size: int, vocab_size: int) -> None:
        """Final norm and unembedding of each sequence's last token, weights sharded over the vocabulary."""
        work = self.work
        shard_size = -(-vocab_size // work.num_devices)
        self.kernel("norm_final", Norm(work.batch_size, hidden_size, work.dtype), Category.NORM)
        self.gemm("lm_head", shard_size, hidden_size, Category.LM_HEAD, m=work.batch_size)


def equal_layers(
    name: str,
    config: TransformerConfig,
    work: Workload,
    layer: Callable[[ProgramBuilder, BlockShape, int, int], None],
) -> Program:
    """A forward pass under tensor parallelism: embedding, equal layers, head.

    `layer` appends one layer's steps, given the block that a device holds, the width of the stream, and the devices.
    """
    build = ProgramBuilder(work)
    width, devices = config.hidden_size, work.num_devices
    build.embedding(width)
    start = build.take()
    layer(build, shard(config, devices), width, devices)
    steps = build.take()
    build.lm_head(width, config.vocab_size)
    segments = (
        Segment("embedding", start),
        Segment("layer", steps, config.num_hidden_layers),
        Segment("head", build.take()),
    )
    return Program(name, devices, segments)
