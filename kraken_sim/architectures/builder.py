"""The building blocks that programs of all architectures share.

Shape letters: T tokens of one step, N devices, d hidden size, h query heads, g key/value heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.program.ops import Attention, Collective, CollectiveKind, Copy, Elementwise, Embedding, Gemm, Norm
from kraken_sim.program.program import MAIN_STREAM, Category, Kernel, Program, RecordEvent, Segment, Step, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block, Layout
    from kraken_sim.program.ops import Op


@dataclass(slots=True)
class ProgramBuilder:
    """Collects the steps of one segment; every method appends what its name says.

    Kernels have the shapes of a device's share of one block, unless an argument says otherwise.
    """

    config: TransformerConfig
    layout: Layout
    work: Workload
    steps: list[Step] = field(default_factory=list)
    share: Block = field(init=False)

    def __post_init__(self) -> None:
        self.share = self.layout.share

    @property
    def width(self) -> int:
        """The width d of the residual stream."""
        return self.share.hidden_size

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

    def embedding(self) -> None:
        """Token rows gathered, position rows added: two kernels."""
        work = self.work
        self.kernel("embedding", Embedding(work.num_tokens, self.width, work.dtype), Category.OTHER)

    def norm(self, name: str, num_tokens: int | None = None, hidden_size: int | None = None) -> None:
        """A LayerNorm over [T, d] unless the arguments say otherwise."""
        rows = self.work.num_tokens if num_tokens is None else num_tokens
        self.kernel(name, Norm(rows, hidden_size or self.width, self.work.dtype), Category.NORM)

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

    def add(self, name: str, category: Category = Category.OTHER) -> None:
        """Out = a + b over [T, d]."""
        elements = self.work.num_tokens * self.width
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

    def all_reduce(self, name: str, num_devices: int, stream: int = MAIN_STREAM, stride: int = 1) -> None:
        """The sum of a [T, d] activation over `num_devices`; nothing on one device."""
        num_bytes = self.work.num_tokens * self.width * self.work.dtype.num_bytes
        self.collective(name, CollectiveKind.ALL_REDUCE, num_bytes, num_devices, stream, stride)

    def attention(self, gemms: Category = Category.GEMM, suffix: str = "") -> None:
        """QKV projection, rotary embedding if any, cache write, attention, output projection."""
        work, share = self.work, self.share
        kv_width = share.num_key_value_heads * share.head_dim
        q_width = share.num_attention_heads * share.head_dim
        copies = Category.OVERLAPPED_GEMM if gemms is Category.OVERLAPPED_GEMM else Category.OTHER
        self.gemm("gemm_qkv" + suffix, q_width + 2 * kv_width, self.width, gemms)
        if self.config.qk_norm:
            for name, heads in (("norm_q", share.num_attention_heads), ("norm_k", share.num_key_value_heads)):
                self.norm(name + suffix, work.num_tokens * heads, share.head_dim)
        if not self.config.position_embeddings:
            elements = work.num_tokens * (q_width + kv_width)
            self.kernel("rope" + suffix, Elementwise("rope", elements, 1, work.dtype), Category.OTHER)
        # The keys and values of one token lie side by side: a slice of many tokens is strided, of one it is not.
        self.copy("kv_cache" + suffix, work.num_tokens * 2 * kv_width, copies, strided=work.num_tokens > 1)
        attention = Attention(
            batch=work.batch_size,
            q_len=work.q_len,
            kv_len=work.kv_len,
            num_heads=share.num_attention_heads,
            num_kv_heads=share.num_key_value_heads,
            head_dim=share.head_dim,
            causal=True,
            dtype=work.dtype,
        )
        self.kernel("attention" + suffix, attention, Category.ATTENTION)
        self.gemm("gemm_out" + suffix, self.width, q_width, gemms)

    def ffn(self, suffix: str = "", *, accumulate: bool = False) -> None:
        """Up projection (with its gate, if any), activation, down projection."""
        width, gated = self.share.intermediate_size, self.config.gated_ffn
        self.gemm("gemm_up" + suffix, 2 * width if gated else width, self.width)
        elements = self.work.num_tokens * width
        function, inputs = ("silu_mul", 2) if gated else ("gelu", 1)
        activation = Elementwise(function, elements, inputs, self.work.dtype)
        self.kernel(function + suffix, activation, Category.OTHER)
        self.gemm("gemm_down" + suffix, self.width, width, accumulate=accumulate)

    def lm_head(self) -> None:
        """Final norm and unembedding of each sequence's last token, weights sharded over the vocabulary."""
        work, rows = self.work, self.layout.vocabulary_share(self.config.vocab_size)
        self.kernel("norm_final", Norm(work.batch_size, self.width, work.dtype), Category.NORM)
        self.gemm("lm_head", rows, self.width, Category.LM_HEAD, m=work.batch_size)


def equal_layers(
    name: str, layout: Layout, config: TransformerConfig, work: Workload, layer: Callable[[ProgramBuilder], None]
) -> Program:
    """A forward pass of equal layers: embedding, layers, head. `layer` appends the steps of one layer."""
    build = ProgramBuilder(config, layout, work)
    build.embedding()
    start = build.take()
    layer(build)
    steps = build.take()
    build.lm_head()
    segments = (
        Segment("embedding", start),
        Segment("layer", steps, config.num_hidden_layers),
        Segment("head", build.take()),
    )
    return Program(name, layout.num_devices, segments)
