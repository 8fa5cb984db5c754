"""The building blocks that programs of all architectures share.

Shape letters: T tokens of one step, N devices, d hidden size, h query heads, g key/value heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kraken_sim.architectures.quantising import norm_in, quantised_activation, quantised_norm, quantize_kernels
from kraken_sim.architectures.small_kernels import (
    HeadShapes,
    SmallKernel,
    activation_kernels,
    add_norm,
    attention_preparation,
    norm_kernels,
)
from kraken_sim.architectures.workload import Phase
from kraken_sim.models.counts import has_output_bias
from kraken_sim.program.kernel_sets import RULES, KernelRules
from kraken_sim.program.many import same
from kraken_sim.program.ops import Attention, Collective, CollectiveKind, Copy, Elementwise, Embedding, Gemm
from kraken_sim.program.program import MAIN_STREAM, Category, Kernel, RecordEvent, Step, WaitEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block, Layout
    from kraken_sim.program.ops import Op


@dataclass(frozen=True, slots=True)
class Pending:
    """A block's output that is still to be added to the residual; with `num_devices` still to be summed over them."""

    name: str
    all_reduce: str = ""
    num_devices: int = 1


@dataclass(slots=True)
class ProgramBuilder:
    """Collects the steps of one segment; every method appends what its name says.

    Kernels have the shapes of a device's share of one block, unless an argument says otherwise. The small ones between
    GEMMs are those of the workload's kernel set. With `split_tokens` a device has the residual of its share of the
    tokens only, as many on each.
    """

    config: TransformerConfig
    layout: Layout
    work: Workload
    split_tokens: bool = False
    steps: list[Step] = field(default_factory=list)
    share: Block = field(init=False)
    rules: KernelRules = field(init=False)
    pending: dict[str, Pending] = field(default_factory=dict, init=False)
    """By suffix, what a norm of the same suffix is to take in."""
    window: int | None = field(default=None, init=False)
    """Tokens that the attention of this layer goes back to; None: all."""

    def __post_init__(self) -> None:
        self.share, self.rules = self.layout.share, RULES[self.work.kernels]

    @property
    def width(self) -> int:
        """The width d of the residual stream."""
        return self.share.hidden_size

    @property
    def stream_tokens(self) -> int:
        """Rows of the residual on a device."""
        return -(-self.work.num_tokens // self._token_shares)

    @property
    def activation_bytes(self) -> int:
        """Bytes of a [T, d] activation; of one that is split by tokens, with what fills up the last share."""
        return self.stream_tokens * self._token_shares * self.width * self.work.dtype.num_bytes

    @property
    def _token_shares(self) -> int:
        return self.layout.num_devices if self.split_tokens else 1

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
        """Token rows gathered and, where positions are learned, their rows added: two kernels."""
        work = self.work
        self.kernel(
            "embedding",
            Embedding(self.stream_tokens, self.width, work.dtype, self.config.position_embeddings),
            Category.OTHER,
        )
        if self.config.scaled_embedding:
            self._scale("scale_embedding")

    def _scale(self, name: str) -> None:
        """A product of [T, d] with a number."""
        self.kernel(name, Elementwise("mul", self.stream_tokens * self.width, 1, self.work.dtype), Category.OTHER)

    def before_residual(self, name: str, suffix: str = "") -> None:
        """What a model does with a block's output, summed over devices, before it is added.

        Its norm, and a product with a number, which kernels that add within a norm take in.
        """
        if self.config.post_norms:
            shape = (self.stream_tokens, self.width)
            post = norm_kernels(f"norm_{name}", *shape, self.work.dtype, self.config.norm_function, self.rules)
            self.small(post, suffix)
        if self.config.scaled_residual and not self.rules.add_in_norm:
            self._scale(f"scale_{name}{suffix}")

    def small(self, kernels: Iterable[SmallKernel], suffix: str = "") -> None:
        """Kernels of a set on the main stream."""
        for found in kernels:
            self.kernel(found.name + suffix, found.op, found.category)

    def norm(self, name: str, suffix: str = "") -> None:
        """The model's norm over [T, d] for the GEMMs behind it, with what it takes in of that suffix's residual."""
        pending = self.pending.pop(suffix, None)
        work, function = self.work, self.config.norm_function
        shape, feeds = (self.stream_tokens, self.width), name.removeprefix("norm_")
        if pending is None or pending.num_devices == 1:
            if pending is None:
                kernels = norm_kernels(name, *shape, work.dtype, function, self.rules)
            else:
                norm = add_norm(*shape, work.dtype, function)
                kernels = [SmallKernel(f"add_{name}", norm, Category.NORM)]
            self.small(quantised_norm(feeds, kernels, shape, work.inputs, self.rules), suffix)
            return
        norm, left = norm_in(add_norm(*shape, work.dtype, function), work.inputs, self.rules.quantize_in_all_reduce)
        op = Collective(CollectiveKind.ALL_REDUCE, self.activation_bytes, pending.num_devices, norm=norm)
        self.kernel(f"{pending.all_reduce}_add_{name}{suffix}", op, Category.ALL_REDUCE)
        self.small(quantize_kernels(feeds, *shape, work.dtype, left), suffix)

    def residual(self, name: str, suffix: str = "", *, all_reduce: str = "", num_devices: int = 1) -> None:
        """A block's output, summed over `num_devices`, is added to the residual: here, or by the norm that follows.

        A norm takes it in that has the same suffix; the last one is left to `settle`. What no norm took in before the
        next one comes is added by a kernel of its own.
        """
        self._settle(suffix)
        fused = self._takes_in_norm(num_devices)
        if not fused:
            self.all_reduce(all_reduce + suffix, num_devices)
            self.before_residual(name, suffix)
        if self.rules.add_in_norm:
            self.pending[suffix] = Pending(name, all_reduce, num_devices if fused else 1)
        else:
            self.add(name + suffix)

    def _takes_in_norm(self, num_devices: int) -> bool:
        """Whether an AllReduce of an activation is one kernel with the add and norm behind it."""
        if not self.rules.all_reduce_norm or self.config.norm_function != "rms_norm":
            return False
        if self.config.post_norms or self.config.scaled_residual:
            return False
        limit = dict(self.work.all_reduce_norm_bytes).get(num_devices, -1)
        return num_devices > 1 and bool(same(self.activation_bytes <= limit))

    def settle(self) -> None:
        """The sums that no norm takes in."""
        for suffix in tuple(self.pending):
            self._settle(suffix)

    def _settle(self, suffix: str) -> None:
        pending = self.pending.pop(suffix, None)
        if pending is not None:
            self.all_reduce(pending.all_reduce + suffix, pending.num_devices)
            self.add(pending.name + suffix)

    def gemm(
        self,
        name: str,
        n: int,
        k: int,
        category: Category = Category.GEMM,
        *,
        accumulate: bool = False,
        bias: bool = False,
        m: int | None = None,
        quantised: bool = True,
    ) -> None:
        """y[T, n] = x[T, k] · Wᵀ, of quantised operands where the workload has them unless the arguments say otherwise.

        What quantises x is a kernel of its own or the one before: `norm` and `quantize`. One that is accumulated onto
        another leaves the bias to that; scaled products are not, so that they are added by a kernel of their own.
        """
        rows, inputs = self.work.num_tokens if m is None else m, self.work.inputs if quantised else None
        op = Gemm(rows, n, k, self.work.dtype, accumulate and inputs is None, bias=bias and not accumulate)
        if inputs is not None:
            by_row = inputs.by_row and self.rules.torch_gemms
            op = replace(op, quantization=inputs.quantization, by_row=by_row)
        self.kernel(name, op, category)
        if accumulate and inputs is not None:
            self.kernel(f"add_{name}", Elementwise("add", rows * n, 2, self.work.dtype), Category.OTHER)

    def quantize(self, name: str, hidden_size: int, suffix: str = "") -> None:
        """What quantises an activation [T, hidden_size] for a GEMM, where it does not come so."""
        work = self.work
        self.small(quantize_kernels(name, work.num_tokens, hidden_size, work.dtype, work.inputs), suffix)

    def add(self, name: str, category: Category = Category.OTHER) -> None:
        """Out = a + b over [T, d]."""
        elements = self.stream_tokens * self.width
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
        self.collective(name, CollectiveKind.ALL_REDUCE, self.activation_bytes, num_devices, stream, stride)

    def attention(self, gemms: Category = Category.GEMM, suffix: str = "") -> None:
        """QKV projection, what lies between it and attention, attention, output projection."""
        work, share = self.work, self.share
        q_width = share.num_attention_heads * share.head_dim
        copies = Category.OVERLAPPED_GEMM if gemms is Category.OVERLAPPED_GEMM else Category.OTHER
        rows, bias = q_width + 2 * share.num_key_value_heads * share.head_dim, self.config.attention_bias
        self.gemm("gemm_qkv" + suffix, rows, self.width, gemms, bias=bias)
        heads = HeadShapes(
            work.num_tokens,
            share.num_attention_heads,
            share.num_key_value_heads,
            share.head_dim,
            work.dtype,
            work.kv_dtype,
        )
        between = attention_preparation(
            heads,
            self.rules,
            qk_norm=self.config.qk_norm,
            rotary=not self.config.position_embeddings,
            decode=work.phase is Phase.DECODE,
            copies=copies,
        )
        self.small(between, suffix)
        for group in work.groups:
            attention = Attention(
                batch=group.batch_size,
                q_len=group.num_new_tokens,
                kv_len=group.kv_length,
                num_heads=share.num_attention_heads,
                num_kv_heads=share.num_key_value_heads,
                head_dim=share.head_dim,
                causal=True,
                dtype=work.dtype,
                kv_dtype=work.kv_dtype,
                window=self.window,
            )
            self.kernel("attention" + suffix, attention, Category.ATTENTION)
        self.quantize("out", q_width, suffix)
        self.gemm("gemm_out" + suffix, self.width, q_width, gemms, bias=has_output_bias(self.config))

    def ffn(self, suffix: str = "", *, accumulate: bool = False, gemms: Category = Category.GEMM) -> None:
        """Up projection (with its gate, if any), activation, down projection."""
        width, gated, bias = self.share.intermediate_size, self.config.gated_ffn, self.config.mlp_bias
        self.gemm("gemm_up" + suffix, 2 * width if gated else width, self.width, gemms, bias=bias)
        work = self.work
        kernels = activation_kernels(work.num_tokens, width, work.dtype, self.rules, gated=gated)
        self.small(quantised_activation(kernels, (work.num_tokens, width), work.inputs, self.rules), suffix)
        self.gemm("gemm_down" + suffix, self.width, width, gemms, accumulate=accumulate, bias=bias)

    def lm_head(self) -> None:
        """Final norm and unembedding of each sequence's last token, weights sharded over the vocabulary.

        Neither the head nor the embedding is quantised, as engines leave them.
        """
        self.settle()
        work, rows = self.work, self.layout.vocabulary_share(self.config.vocab_size)
        function = self.config.norm_function
        self.small(norm_kernels("norm_final", work.batch_size, self.width, work.dtype, function, self.rules))
        bias = self.config.lm_head_bias
        self.gemm("lm_head", rows, self.width, Category.LM_HEAD, bias=bias, m=work.batch_size, quantised=False)
        for index in range(self.config.num_logit_kernels):
            logits = Elementwise("mul", work.batch_size * rows, 1, work.dtype)
            self.kernel(f"scale_logits.{index}", logits, Category.LM_HEAD)
