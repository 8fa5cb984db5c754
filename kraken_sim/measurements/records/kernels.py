"""One kernel alone, call after call: GEMM, attention, memory-bound kernels, AllReduce."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from kraken_sim.measurements.records.base import Case, Positive, Quartiles, Timed, formats_key
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch


class GemmCase(Case):
    """y[m, n] = x[m, k] · W[n, k]ᵀ, with a bias, without, or accumulated onto y.

    Of a quantised one `dtype` is that of y, and its inputs come quantised: fp8 with one scale a tensor (activation
    scheme static) or one a row of x and of W (dynamic), fp8_block with one for 128 of x and for 128 x 128 of W.
    `exact_sums` says that partial sums are not kept in the tensor cores' short format.
    """

    kind: Literal["gemm"] = "gemm"
    m: Positive
    n: Positive
    k: Positive
    dtype: DType
    epilogue: Literal["bias", "none", "accumulate"] = "bias"
    launch: Launch
    origin: Literal["preset", "odd"] = "preset"
    quantization: Quantization | None = None
    activation_scheme: ActivationScheme | None = None
    exact_sums: bool = False

    @property
    def key(self) -> str:
        """Names this case."""
        formats = formats_key(self.dtype, self.quantization, self.activation_scheme)
        sums = "/exact_sums" if self.exact_sums else ""
        return f"gemm/{self.launch}/{formats}{sums}/{self.epilogue}/{self.m}x{self.n}x{self.k}"


class GemmRecord(GemmCase, Timed):
    """`time_s` is the period of one GEMM in a chain whose weights come from HBM each time."""

    time_s: Quartiles


class AttentionCase(Case):
    """Scaled dot-product attention: prefill has q_len == kv_len, decode q_len == 1."""

    kind: Literal["attention"] = "attention"
    batch: Positive
    q_len: Positive
    kv_len: Positive
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    causal: bool
    dtype: DType
    launch: Launch

    @property
    def key(self) -> str:
        """Names this case."""
        shape = f"b{self.batch}q{self.q_len}kv{self.kv_len}h{self.num_heads}g{self.num_kv_heads}d{self.head_dim}"
        return f"attention/{self.launch}/{self.dtype}/{shape}{'c' if self.causal else 'f'}"


class AttentionRecord(AttentionCase, Timed):
    """`time_s` is the period of one call; `backend` is the implementation that torch chose."""

    time_s: Quartiles
    backend: str | None = None


MemoryBoundFunction = Literal[
    "norm",
    "gelu",
    "add",
    "copy",
    "kv_write",
    "embedding",
    "rms_norm",
    "add_rms_norm",
    "rope",
    "rope_kv_write",
    "silu_mul",
    "quantize",
]
CLASSIC_FUNCTIONS: Final = frozenset({"norm", "gelu", "add", "copy", "kv_write", "embedding"})
"""Those that GPT-2-like models run, one kernel each of torch's own."""


class MemoryBoundCase(Case):
    """A kernel that streams `num_tokens` rows of `hidden_size` elements.

    norm, gelu: one input; add: two; copy: contiguous to contiguous; kv_write: the K and V slices of a QKV
    projection (each `hidden_size` wide) into a cache, in one strided copy; embedding: token rows gathered,
    position rows added. rms_norm: one input; add_rms_norm: the sum of two and its RMSNorm, both written; rope: queries
    and keys, `hidden_size` wide together, of a projection [T, h + 2g, e] with e = 128 and h = 4g; rope_kv_write: the
    same, keys and values into a cache; silu_mul: SiLU(a) * b of rows 2 * `hidden_size` wide. `kernels` says what they
    are made of. With a `quantization` the output is quantised too, in the same kernel; quantize does nothing else, in
    two kernels where one scale a tensor is found first.
    """

    kind: Literal["memory_bound"] = "memory_bound"
    function: MemoryBoundFunction
    num_tokens: Positive
    hidden_size: Positive
    dtype: DType
    launch: Launch
    kernels: KernelSet = KernelSet.PYTORCH
    quantization: Quantization | None = None
    activation_scheme: ActivationScheme | None = None

    @property
    def key(self) -> str:
        """Names this case."""
        function = self.function if self.kernels is KernelSet.PYTORCH else f"{self.function}/{self.kernels}"
        formats = formats_key(self.dtype, self.quantization, self.activation_scheme)
        return f"memory_bound/{self.launch}/{formats}/{function}/{self.num_tokens}x{self.hidden_size}"


class MemoryBoundRecord(MemoryBoundCase, Timed):
    """`time_s` is the period of one call (all its kernels: embedding has two)."""

    time_s: Quartiles


class AllReduceCase(Case):
    """The sum of `num_bytes` over `num_devices` ranks, in place."""

    collective: ClassVar[bool] = True
    kind: Literal["all_reduce"] = "all_reduce"
    num_bytes: Positive
    num_devices: Positive
    dtype: DType
    launch: Launch
    condition: str

    @property
    def key(self) -> str:
        """Names this case."""
        return f"all_reduce/{self.launch}/{self.dtype}/{self.condition}/{self.num_devices}/{self.num_bytes}"


class AllReduceRecord(AllReduceCase, Timed):
    """`time_s` is the period of one call in a chain, the mean over the ranks of each repeat."""

    time_s: Quartiles
