"""Kernels that run together: a chain beside an AllReduce (a pair), unlike kernels one after another (a chain).

Their compute is a list of ops, of which each writes itself as part of the case's key.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kraken_sim.files.model import FileModel
from kraken_sim.measurements.records.base import Case, Positive, Quartiles, Timed
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch


class GemmOp(FileModel):
    """A GEMM with bias in the compute side of a pair."""

    op: Literal["gemm"]
    m: Positive
    n: Positive
    k: Positive

    def __str__(self) -> str:
        return f"gemm-{self.m}x{self.n}x{self.k}"


class AttentionOp(FileModel):
    """A causal prefill attention in the compute side of a pair or in a load; with `kv_len` a decode over a cache."""

    op: Literal["attention"]
    batch: Positive
    q_len: Positive
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    kv_len: Positive | None = None

    def __str__(self) -> str:
        cache = "" if self.kv_len is None else f"kv{self.kv_len}"
        return f"attention-b{self.batch}q{self.q_len}{cache}h{self.num_heads}g{self.num_kv_heads}d{self.head_dim}"


class PairedMemoryBound(FileModel):
    """A norm or an elementwise kernel in the compute side of a pair."""

    op: Literal["norm", "gelu", "add", "copy"]
    num_tokens: Positive
    hidden_size: Positive

    def __str__(self) -> str:
        return f"{self.op}-{self.num_tokens}x{self.hidden_size}"


PairedOp = Annotated[GemmOp | AttentionOp | PairedMemoryBound, Field(discriminator="op")]
Order = Literal["collective_first", "compute_first"]


class PairCase(Case):
    """A chain of kernels on one stream beside an AllReduce on another, both released by the same event."""

    collective: ClassVar[bool] = True
    kind: Literal["pair"] = "pair"
    family: Literal["gemm", "attention", "memory_bound", "mixed"]
    compute: tuple[PairedOp, ...]
    num_bytes: Positive
    num_devices: Positive
    order: Order
    dtype: DType
    launch: Launch
    condition: str

    @property
    def key(self) -> str:
        """Names this case."""
        return (
            f"pair/{self.launch}/{self.dtype}/{self.condition}/{self.num_devices}/{self.order}/"
            f"{self.num_bytes}/{self.compute_key}"
        )

    @property
    def compute_key(self) -> str:
        """Names the compute side."""
        return "+".join(map(str, self.compute))


class PairRecord(PairCase, Timed):
    """Both sides alone and together, as the mean over the ranks of each repeat.

    `together_s`: fork, both sides, join, as a period in a chain of `calls`. `compute_alone_s` and
    `collective_alone_s`: the period of one side in a chain without the other. The `_span_s` fields run from the
    fork to the end of a side, read from events beside the work, which themselves add about a microsecond:
    compare spans with spans.
    """

    together_s: Quartiles
    compute_alone_s: Quartiles
    collective_alone_s: Quartiles
    compute_span_s: Quartiles | None = None
    collective_span_s: Quartiles | None = None
    compute_alone_span_s: Quartiles | None = None
    collective_alone_span_s: Quartiles | None = None


class DecodeAttentionOp(FileModel):
    """Attention of one token of each of `batch` sequences over caches of their own."""

    op: Literal["decode_attention"]
    batch: Positive
    kv_len: Positive
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive

    def __str__(self) -> str:
        shape = f"b{self.batch}kv{self.kv_len}h{self.num_heads}g{self.num_kv_heads}d{self.head_dim}"
        return f"decode_attention-{shape}"


class ChainedMemoryBound(FileModel):
    """A kernel of a `MemoryBoundCase` in a chain of unlike kernels; add_norm: the sum of two and its LayerNorm."""

    op: Literal[
        "norm", "add_norm", "rms_norm", "add_rms_norm", "add", "gelu", "silu_mul", "rope", "rope_kv_write", "kv_write"
    ]
    num_tokens: Positive
    hidden_size: Positive
    kernels: KernelSet = KernelSet.PYTORCH

    def __str__(self) -> str:
        made_of = "" if self.kernels is KernelSet.PYTORCH else f"/{self.kernels}"
        return f"{self.op}{made_of}-{self.num_tokens}x{self.hidden_size}"


class FlushOp(FileModel):
    """A kernel that reads two and a half times the size of L2, so that nothing of before is left there."""

    op: Literal["flush"]

    def __str__(self) -> str:
        return "flush"


ChainedOp = Annotated[
    GemmOp | AttentionOp | DecodeAttentionOp | ChainedMemoryBound | FlushOp, Field(discriminator="op")
]


class ChainCase(Case):
    """Unlike kernels one after another, round by round, as parts of a layer: what they cost beyond each alone.

    GEMMs have no bias, their weights and the caches of decode attention are fresh each round. A kernel reads what
    the one before it has just written, where the shapes fit. `operands` are the others: a norm's parameters, the
    residual of an add, the angles of rotary positions; fresh: nobody has read them for long; kept: the same each
    round.
    """

    kind: Literal["chain"] = "chain"
    compute: tuple[ChainedOp, ...] = Field(min_length=1)
    operands: Literal["fresh", "kept"]
    dtype: DType
    launch: Launch

    @property
    def key(self) -> str:
        """Names this case."""
        return f"chain/{self.launch}/{self.dtype}/{self.operands}/{'+'.join(map(str, self.compute))}"


class ChainRecord(ChainCase, Timed):
    """`time_s` is the period of a round of the chain."""

    time_s: Quartiles
