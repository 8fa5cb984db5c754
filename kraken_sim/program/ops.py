"""What a device can be asked to do: one frozen dataclass per kind of kernel, with exact shapes.

An op says what is computed, never how long it takes: `kraken_sim.costs` turns an op and a device into a
duration, `kraken_sim.engine` turns durations into a timeline. Sizes are elements unless the name says bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from kraken_sim.program.formats import ComputeDType as ComputeDType
from kraken_sim.program.formats import DType as DType  # noqa: TC001 - the rest of the package has it from here
from kraken_sim.program.many import maths_for

if TYPE_CHECKING:
    from kraken_sim.program.formats import Quantization

NormFunction = Literal["layer_norm", "rms_norm"]


@dataclass(frozen=True, slots=True)
class Gemm:
    """y[m, n] = x[m, k] · W[n, k]ᵀ (+ bias[n]); W is read from HBM, fresh on every use.

    `accumulate` marks y += x · Wᵀ, which also reads y, `bias` one that adds bias[n] in its epilogue. With a
    `quantization` x and W have that format, y has `dtype`; `by_row` marks torch's kernels with a scale a row of x and
    of W, of which there are few.
    """

    m: int
    n: int
    k: int
    dtype: DType
    accumulate: bool = False
    quantization: Quantization | None = None
    by_row: bool = False
    bias: bool = False

    @property
    def input_dtype(self) -> DType:
        """The format that tensor cores multiply in."""
        return self.dtype if self.quantization is None else self.quantization.dtype

    @property
    def bytes_per_input(self) -> float:
        """Bytes of an element of x with its share of the scales."""
        return self.dtype.num_bytes if self.quantization is None else self.quantization.bytes_per_input

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of an element of W with its share of the scales."""
        return self.dtype.num_bytes if self.quantization is None else self.quantization.bytes_per_weight

    @property
    def flops(self) -> float:
        """Floating-point operations, a multiply-add counted as two."""
        return 2.0 * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(q kᵀ/√d) v for `batch` sequences; prefill has q_len == kv_len, decode has q_len == 1.

    q: [batch, q_len, num_heads, head_dim]; k, v: [batch, kv_len, num_kv_heads, head_dim]. A decode step reads k and v
    from a cache, which has `kv_dtype` where that is not q's. With a `window` a query attends to so many keys at most,
    the last ones, its own among them.
    """

    batch: int
    q_len: int
    kv_len: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    causal: bool
    dtype: DType
    kv_dtype: DType | None = None
    window: int | None = None

    @property
    def seen_len(self) -> int:
        """Keys that the new tokens of a sequence attend to together."""
        if self.window is None:
            return self.kv_len
        seen: int = maths_for(self.q_len, self.kv_len).minimum(self.kv_len, self.q_len + self.window - 1)
        return seen

    @property
    def kv_num_bytes(self) -> int:
        """Bytes of a cached element."""
        return (self.dtype if self.kv_dtype is None else self.kv_dtype).num_bytes


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over `hidden_size` for `num_tokens` rows: reads x once, writes y once.

    `fused` marks an engine's or a compiler's kernel instead of torch's own. It may take in the adds before it: `adds`
    tensors more are read and summed first, and with `writes_sum` the sum is written as well. With an `output_dtype` y
    is quantised to that, with `row_scales` after a reduction of each row. `cold_parameters`: its weights are no longer
    in L2; `cold_inputs` counts the tensors summed that are not (`kraken_sim.program.residency`).
    """

    num_tokens: int
    hidden_size: int
    dtype: DType
    function: NormFunction = "layer_norm"
    fused: bool = False
    adds: int = 0
    writes_sum: bool = False
    output_dtype: DType | None = None
    row_scales: bool = False
    cold_parameters: bool = False
    cold_inputs: int = 0

    @property
    def moved_bytes(self) -> float:
        """Bytes that are read and written."""
        written = self.dtype if self.output_dtype is None else self.output_dtype
        others = (1 + self.adds + self.writes_sum) * self.dtype.num_bytes
        return (others + written.bytes_per_element) * self.num_tokens * self.hidden_size


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A pointwise kernel (`function` is gelu, add, ...) that streams its operands through HBM once.

    Outputs have the inputs' number format unless `output_dtype` says another, or `converted` of the elements have that
    and the others stay as they are. A reduction, whose output is small, has no outputs. With `rows` each of so many
    rows is reduced before it is written, so that a CTA takes a whole one. `strided` marks operands that are broadcast,
    converted or slices, which torch's own kernel takes element by element.
    """

    function: str
    num_elements: int
    num_inputs: int
    dtype: DType
    num_outputs: int = 1
    output_dtype: DType | None = None
    rows: int | None = None
    strided: bool = False
    cold_inputs: int = 0
    converted: int | None = None

    @property
    def moved_bytes(self) -> float:
        """Bytes that are read and written."""
        return 1.0 * self.num_elements * self.num_inputs * self.dtype.num_bytes + self.written_bytes

    @property
    def written_bytes(self) -> float:
        """Bytes that are written."""
        converted = self.num_elements if self.converted is None else self.converted
        kept_bytes = 1.0 * (self.num_elements - converted) * self.dtype.num_bytes
        written = self.dtype if self.output_dtype is None else self.output_dtype
        return self.num_outputs * (kept_bytes + converted * written.bytes_per_element)


@dataclass(frozen=True, slots=True)
class Copy:
    """A device-to-device copy of `num_bytes` (read once, written once).

    `strided` marks one between slices of larger tensors, which a pointwise kernel does element by element.
    """

    num_bytes: int
    strided: bool = False


@dataclass(frozen=True, slots=True)
class Embedding:
    """Token rows gathered from a table and, with learned `positions`, added to position rows: two kernels then."""

    num_tokens: int
    hidden_size: int
    dtype: DType
    positions: bool = True


class CollectiveKind(StrEnum):
    """What a group of ranks does together, by NCCL's names."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"
    SEND_RECV = "send_recv"
    """Point-to-point: every rank sends to the next one of its group, the last to the first."""

    __hash__ = str.__hash__  # as in DType


@dataclass(frozen=True, slots=True)
class Collective:
    """What `num_devices` ranks do together with `num_bytes`, counted as nccl-tests counts its `size`.

    AllReduce and Broadcast by the buffer of a rank, AllGather by what a rank ends with, ReduceScatter by what it
    starts with, AllToAll by what a rank sends, its own share included, point-to-point by what a rank sends to the
    next. So `num_bytes` is always the larger of a rank's two buffers.

    `stride` is the distance between the ranks of a group: 1 for neighbours 0..n-1, g for every g-th rank; all groups
    of a program do the same at once. `norm` is what the kernel of an AllReduce does with the sum before it ends: it
    adds the residual, writes that, and writes its norm.
    """

    kind: CollectiveKind
    num_bytes: int
    num_devices: int
    stride: int = 1
    norm: Norm | None = None


ComputeOp = Gemm | Attention | Norm | Elementwise | Copy | Embedding
Op = ComputeOp | Collective
