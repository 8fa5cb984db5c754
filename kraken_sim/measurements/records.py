"""One measurement a record: what was run (a case) and how long it took (a record extends its case).

Cases say exactly what runs and have a key that no two of them share; a suite is a list of cases. Records add
times as quartiles, in seconds. Field names follow `kraken_sim.program.ops` and the scenario file. No torch here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field

from kraken_sim.files.model import FileModel
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import CardLoad as CardLoad
from kraken_sim.program.kernel_sets import KernelSet as KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch as Launch

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Quartiles(NamedTuple):
    """First quartile, median and third quartile over the repeats; a list of three numbers in the file."""

    q1: Seconds
    median: Seconds
    q3: Seconds


class Case(FileModel):
    """Something to measure. `collective` cases run on all ranks together, others on one rank."""

    collective: ClassVar[bool] = False
    kind: str

    @property
    def key(self) -> str:
        """Names this case; equal for a case and the record made of it."""
        raise NotImplementedError


def _formats(dtype: DType, quantization: Quantization | None, scheme: ActivationScheme | None) -> str:
    """Number formats as part of a key."""
    return "-".join([str(dtype), *(str(part) for part in (quantization, scheme) if part is not None)])


class Timed(FileModel):
    """What every record of repeated runs keeps.

    A repeat runs `calls` calls back to back and yields their mean period; the quartiles are over `repeats`
    such means. `rank` is the device that ran a case of one device.
    """

    calls: Positive
    repeats: Positive
    rank: int = 0


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
        formats = _formats(self.dtype, self.quantization, self.activation_scheme)
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
        formats = _formats(self.dtype, self.quantization, self.activation_scheme)
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


class SustainedCase(Case):
    """A chain of kernels that runs for `duration_s` after `idle_before_s` of rest, on every device at once."""

    kind: Literal["sustained"] = "sustained"
    shapes: tuple[tuple[Positive, Positive, Positive], ...] = ()
    """(m, n, k) of the GEMMs, in turn; or"""
    compute: tuple[PairedOp, ...] = ()
    """kernels of any kind, in turn."""
    idle_before_s: float
    duration_s: float
    dtype: DType
    device_index: int
    launch: Launch = Launch.EAGER
    """graph: rounds of the chain in CUDA graphs, so that short kernels do not wait for the host."""
    quantization: Quantization | None = None
    """fp8: GEMMs of float8_e4m3fn operands, without bias."""
    load_before_s: Annotated[float, Field(ge=0.0)] = 0.0
    """The same chain for so long before the rest."""
    chunk_s: Annotated[float, Field(gt=0.0)] = 0.1
    """Longest chunk whose rate is read."""
    pause_ctas: Annotated[int, Field(ge=0)] = 0
    """CTAs of a spinning kernel behind each round,"""
    pause_share: Annotated[float, Field(ge=0.0)] = 0.0
    """and how long it spins, over the time of a round."""

    @property
    def key(self) -> str:
        """Names this case."""
        shapes = "+".join(["x".join(map(str, shape)) for shape in self.shapes] + [str(op) for op in self.compute])
        times = f"idle{self.idle_before_s:g}/run{self.duration_s:g}"
        parts = ["sustained", str(self.quantization or self.dtype), times, f"device{self.device_index}", shapes]
        parts += ["graph"] if self.launch is Launch.GRAPH else []
        parts += [f"after{self.load_before_s:g}"] if self.load_before_s else []
        parts += [f"pause{self.pause_ctas}x{self.pause_share:g}"] if self.pause_share else []
        return "/".join(parts)


class SustainedRecord(SustainedCase):
    """The rate from chunk to chunk and what the card's sensors said meanwhile.

    `chunk_end_s` counts from the start of the first kernel; `chunk_flops` is the rate within the chunk that ends
    there, `chunk_rounds_per_s` that of whole rounds of the chain. A sample is (seconds from the start, SM clock in
    Hz, power in W, temperature in °C).
    """

    chunk_end_s: tuple[float, ...]
    chunk_flops: tuple[float, ...]
    chunk_rounds_per_s: tuple[float, ...] = ()
    samples: tuple[tuple[float, float, float, float], ...] = ()
    energy_j: tuple[tuple[float, float], ...] = ()
    """(seconds from the start, J used since the first entry), where the card's counter moved."""
    pause_s: Seconds = 0.0
    """How long the spinning kernel behind each round was told to spin."""


class WakeCase(Case):
    """A graph of a few rounds of a chain on a device that has rested: what its first launch waits for."""

    kind: Literal["wake"] = "wake"
    compute: tuple[PairedOp, ...]
    rounds: Positive
    rest_s: Annotated[float, Field(ge=0.0)]
    wait: Literal["sleep", "spin", "device"]
    """Who rests: both, the host asleep; the device, the host spins; the host, the device runs a kernel of one CTA."""
    dtype: DType
    remapped: bool = False
    """In memory mapped anew, after the process has given a large part of the device's back to the driver."""

    @property
    def key(self) -> str:
        """Names this case."""
        return f"wake/{self.dtype}/{self.wait}/rest{self.rest_s:g}/{self.work}"

    @property
    def work(self) -> str:
        """Names what the graph does, and where."""
        memory = "/remapped" if self.remapped else ""
        return f"{'+'.join(map(str, self.compute))}/x{self.rounds}{memory}"


class WakeRecord(WakeCase, Timed):
    """Times of a repeat, medians of its rounds, and the card's state before and after.

    `time_s`: from an event before the graph's launch to one behind it. `inside_s`: between events in the graph, at its
    start and its end. `host_s`: what the launch took of the host. `round_s`: each round of the graph, or the mean of
    several, medians.

    Clocks in Hz and power in W are those of a repeat of its own, read at the end of the rest and behind the graph.
    """

    time_s: Quartiles
    inside_s: Quartiles
    host_s: Quartiles
    round_s: tuple[Seconds, ...] = ()
    sm_clock_hz: tuple[float, float] | None = None
    memory_clock_hz: tuple[float, float] | None = None
    power_w: tuple[float, float] | None = None


class LaunchCase(Case):
    """A cost around kernels; the module `validation.microbench.launch` says what each quantity is."""

    kind: Literal["launch"] = "launch"
    quantity: str
    detail: str = ""
    condition: str | None = None
    """Set where a collective is involved."""
    process: int = Field(default=1, ge=1)
    """Which of several processes, one after the other, where the same is measured in each: hosts differ from process to
    process."""

    @property
    def key(self) -> str:
        """Names this case."""
        process = f"process-{self.process}" if self.process > 1 else ""
        return "/".join(filter(None, ("launch", self.condition, process, self.quantity, self.detail)))


class LaunchRecord(LaunchCase, Timed):
    """`time_s` is the cost of one call (or one kernel, node, edge); a slope can come out negative by noise."""

    time_s: tuple[float, float, float]


class ProfiledKernel(FileModel):
    """One kernel as the profiler saw it: its CTAs, their size, how long it was busy."""

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    registers: int | None = None
    shared_memory_bytes: int | None = None
    busy_s: Seconds
    start_s: Seconds | None = None
    """From the start of the first of these kernels, where they ran as one graph."""


class KernelsCase(Case):
    """The kernels that another case consists of, under the profiler (whose times are a little longer)."""

    kind: Literal["kernels"] = "kernels"
    of: str
    """Key of the other case."""

    @property
    def key(self) -> str:
        """Names this case."""
        return f"kernels/{self.of}"


class KernelsRecord(KernelsCase):
    """The kernels in launch order."""

    kernels: tuple[ProfiledKernel, ...]


class PassCase(Case):
    """One forward step of a whole model; the fields are those of a scenario file."""

    collective: ClassVar[bool] = True
    kind: Literal["pass"] = "pass"
    architecture: dict[str, Any]
    model: dict[str, Any]
    num_devices: Positive
    phase: Literal["prefill", "decode"]
    batch_size: Positive
    context_length: Positive
    dtype: DType
    launch: Launch
    overlap: bool
    condition: str
    kernels: KernelSet = KernelSet.PYTORCH
    quantization: Quantization | None = None
    activation_scheme: ActivationScheme | None = None
    load: CardLoad | None = None
    """None: one pass after another, the device idle and the ranks met in between."""

    @property
    def key(self) -> str:
        """Names this case."""
        model = ",".join(f"{name}={self.model[name]}" for name in sorted(self.model))
        architecture = ",".join(f"{name}={self.architecture[name]}" for name in sorted(self.architecture))
        mode = "overlap" if self.overlap else "blocking"
        mode += "" if self.kernels is KernelSet.PYTORCH else f"/{self.kernels}"
        mode += "" if self.load is None else f"/{self.load}"
        formats = _formats(self.dtype, self.quantization, self.activation_scheme)
        work = f"{self.phase}/b{self.batch_size}t{self.context_length}/{formats}/{self.launch}/{mode}"
        return f"pass/{self.condition}/{self.num_devices}/{work}/{architecture}/{model}"


class PassRecord(PassCase, Timed):
    """`time_s` is TTFT of a prefill, or the time of one decode step: the slowest rank of each repeat.

    Under load it is the period of passes back to back; `sm_clock_hz` and `power_w` are the card's while they ran.
    """

    time_s: Quartiles
    sm_clock_hz: float | None = None
    power_w: float | None = None


class NoteRecord(FileModel):
    """Why a case has no record: skipped (it cannot run here) or failed (it should have; tried again on resume)."""

    kind: Literal["note"] = "note"
    of: str
    """Key of the case."""
    status: Literal["skipped", "failed"]
    message: str
    rank: int = 0

    @property
    def key(self) -> str:
        """The key of the case it speaks of."""
        return self.of


Record = Annotated[
    GemmRecord
    | AttentionRecord
    | MemoryBoundRecord
    | AllReduceRecord
    | PairRecord
    | ChainRecord
    | SustainedRecord
    | WakeRecord
    | LaunchRecord
    | KernelsRecord
    | PassRecord
    | NoteRecord,
    Field(discriminator="kind"),
]
"""One line of a measurement file after its header."""
