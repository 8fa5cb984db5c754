"""One GPU as its datasheet describes it, and what it costs to launch work on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.files.meaning import Meaning, Table, exactly, holds, means, words
from kraken_sim.program.formats import DType

if TYPE_CHECKING:
    from collections.abc import Mapping


OTHER_MAKERS: Final = frozenset({"cdna3"})
"""Architectures of others than NVIDIA, AMD's name; nothing of them is known here but datasheets."""

GENERATIONS: Final = ("volta", "turing", "ampere", "ada", "hopper", "blackwell", *sorted(OTHER_MAKERS))
"""Makers' names of architectures: NVIDIA's, which kernels and libraries are known for, oldest first, then others."""


QUANTISED_FORMATS: Final[Mapping[str, tuple[DType, ...]]] = MappingProxyType(
    dict.fromkeys(GENERATIONS, ())
    | dict.fromkeys(("ada", "hopper", "cdna3"), (DType.FLOAT8_E4M3,))
    | {"blackwell": (DType.FLOAT8_E4M3, DType.FLOAT4_E2M1)}
)
"""Formats of less than 16 bits that a generation's tensor cores multiply (NVIDIA Ada, Hopper and Blackwell architecture
whitepapers; AMD CDNA 3 whitepaper)."""

GRAPHICS_GENERATIONS: Final = frozenset({"turing", "ada"})
"""Generations of which all chips are made for graphics too (NVIDIA's TU10x and AD10x)."""

MOST_OF_GRAPHICS: Final[Mapping[str, float]] = MappingProxyType({"ampere": 1536.0, "blackwell": 2048.0})
"""FLOPs of 16 bits a clock and SM up to which a chip of a generation with both kinds is made for graphics: a limit of
ours between 1024 of GA102 and GB202, 2048 of GA100 and 8192 of GB100 (datasheet: NVIDIA's architecture whitepapers)."""


@dataclass(frozen=True, slots=True)
class Device:
    """Datasheet values of one GPU; the generation decides the kernels that libraries pick."""

    name: str = field(metadata=words("The GPU's name as NVIDIA sells it."))
    generation: str = field(metadata=words("The maker's name of the architecture.", *GENERATIONS))
    num_sms: int = field(metadata=means("Streaming multiprocessors.", 1, 132, 4096, "SMs"))
    boost_clock_hz: float = field(metadata=means("Highest clock of the SMs.", 1e8, 1.98e9, 1e10))
    peak_flops: Mapping[DType, float] = field(
        metadata=holds(
            Table(
                "Dense peak rate at the boost clock, by number format.",
                each=Meaning("Dense peak rate at the boost clock.", 1e10, 989.4e12, 1e18),
                keys=r"\w+",
                least=1,
            )
        )
    )
    hbm_bandwidth_bytes_per_s: float = field(metadata=means("Bandwidth of the GPU's memory.", 1e9, 3.35e12, 1e15))
    hbm_capacity_bytes: float = field(metadata=means("Size of the GPU's memory.", 1e8, 80e9, 1e14))
    l2_capacity_bytes: float = field(metadata=means("Size of the L2 cache.", 1e5, 50e6, 1e11))
    tdp_w: float = field(metadata=means("Power limit of the card.", 1.0, 700.0, 1e5))
    exponentials_per_clock: float = field(
        default=16.0, metadata=means("Exponentials that an SM takes a clock.", 1.0, 16.0, 4096.0, "a clock")
    )
    ecc_share: float = field(
        default=0.0625,
        metadata=means("Share of the memory's traffic that ECC takes; 0: it is off.", 0.0, 0.0, 0.5, "share"),
    )

    @property
    def unquantised_flops(self) -> float:
        """The highest peak rate of a format that activations have, in FLOP/s; of any where there is none."""
        rates = [rate for dtype, rate in self.peak_flops.items() if dtype.num_bytes > 1]
        return max(rates or self.peak_flops.values())

    @property
    def is_graphics_chip(self) -> bool:
        """Whether the chip is made for graphics too: of GeForce, RTX, and some data-centre cards."""
        if self.generation in GRAPHICS_GENERATIONS:
            return True
        per_clock = self.unquantised_flops / (self.num_sms * self.boost_clock_hz)
        return per_clock <= MOST_OF_GRAPHICS.get(self.generation, 0.0)

    @property
    def kernel_generation(self) -> str:
        """The generation whose kinds of kernels libraries run on the GPU: Ada's on Blackwell's graphics chips.

        These have Ada's instructions for matrices (`mma.sync` of compute capability 12.0, PTX ISA); cuBLAS's persistent
        kernels and FlashAttention-4 need the tensor memory (`tcgen05`) of 10.0.
        """
        return "ada" if self.generation == "blackwell" and self.is_graphics_chip else self.generation

    def rate_flops(self, dtype: DType) -> float:
        """The peak rate of a number format, in FLOP/s.

        Raises:
            InputError: The device has none for it.
        """
        rate = self.peak_flops.get(dtype)
        if rate is None:
            known = list(self.peak_flops)
            message = f"{self.name} does not compute with it; device.peak_flops has {', '.join(known)}"
            raise InputError.single("dtype", message, str(dtype), f"dtype: {known[0]}")
        return rate


@dataclass(frozen=True, slots=True)
class LaunchCosts:
    """What the host and the front end of the GPU spend around kernels.

    Eager launches pay host time for every kernel, collective and event; a captured graph is launched once, and its
    nodes follow each other with a small gap. Where `eager_side_collective_s` is less than `eager_collective_s`, the
    latter counts. `eager_kernel_s` is the mean over the kernels of a decoder layer, `eager_shares` how many times that
    each kind of kernel takes; without them all take the same. From process to process these times differ by
    `eager_spread`.
    """

    eager_kernel_s: float = field(metadata=means("Host time of a kernel launched alone.", 0.0, 6e-6, 1e-1))
    eager_collective_s: float = field(metadata=means("Host time of a collective's call.", 0.0, 30e-6, 1e-1))
    eager_event_s: float = field(
        metadata=means("Host time of an event's record or wait, stream switch included.", 0.0, 1.5e-6, 1e-1)
    )
    eager_kernel_gap_s: float = field(
        metadata=means("Gap between two queued kernels of one stream when the host is ahead.", 0.0, 1.3e-6, 1e-3)
    )
    graph_launch_s: float = field(
        metadata=means("From the launch call of a captured graph to its first node.", 0.0, 6e-6, 1e-1)
    )
    graph_node_gap_s: float = field(metadata=means("Gap between two nodes of one stream.", 0.0, 1e-6, 1e-3))
    graph_edge_s: float = field(
        metadata=means("What a node that waits for a node of another stream takes more.", 0.0, 0.1e-6, 1e-3)
    )
    graph_node_wait_s: float = field(
        default=0.0,
        metadata=means(
            "What that gap is longer in a program of several GPUs, whose front ends wait for the host's memory.",
            0.0,
            0.4e-6,
            1e-3,
        ),
    )
    eager_side_collective_s: float = field(
        default=0.0,
        metadata=means(
            "Host time of a collective on a stream beside the main one, with its stream switch and without its events.",
            0.0,
            50e-6,
            1e-1,
        ),
    )
    graph_launch_rested_s: float = field(
        default=0.0,
        metadata=means(
            "From the launch call of a captured graph to its first node after 0.1 s of rest and more; at least the one "
            "without a rest counts.",
            0.0,
            60e-6,
            1e-2,
        ),
    )
    eager_shares: Mapping[str, float] = field(
        default_factory=dict,
        hash=False,
        metadata=holds(
            exactly(
                "Host time of a kernel over the mean of a layer's, by the kind of its call.",
                each=Meaning("Host time of such a kernel.", 0.01, 1.0, 100.0, "of the mean"),
                optional=("gemm", "attention", "norm", "pointwise", "copy", "generated"),
            )
        ),
    )
    eager_spread: float = field(
        default=0.0,
        metadata=means(
            "Standard deviation of the host's times from process to process; 0: not measured.",
            0.0,
            0.24,
            2.0,
            "of the logarithm",
        ),
    )

    @property
    def rested(self) -> LaunchCosts:
        """The same of a host and a device that have rested."""
        return replace(self, graph_launch_s=max(self.graph_launch_s, self.graph_launch_rested_s))
