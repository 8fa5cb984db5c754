"""What the collective cost models need to know about a machine beyond its datasheet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.files.meaning import Meaning, Table, exactly, holds, means
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.many import each, is_many, same
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.files.meaning import Said
    from kraken_sim.program.many import Sizes

LINK_CLASS: Mapping[InterconnectKind, str] = {
    InterconnectKind.NVSWITCH: "nvlink",
    InterconnectKind.NVLINK: "nvlink",
    InterconnectKind.PCIE: "pcie",
    InterconnectKind.HOST: "host",
    InterconnectKind.NETWORK: "network",
}
"""The row of the per-link constants that an interconnect uses."""

SEND_RECV_FACTORS: Mapping[str, Mapping[str, float]] = {
    "ll": {"base": 1.25, "step": 0.35, "channel": 0.5},
    "simple": {"base": 0.55, "step": 0.2, "link": 0.85},
}
"""How NCCL's sends and receives differ from its rings, where a profile does not say.

Assumed, near the fits of A100 and H100 (LL: base 1.2 to 1.4, step 0.33 to 0.41; Simple: base 0.36 to 0.49, step 0.2,
link 0.71 to 0.79, in their profiles): all peers are served at once, so a further one adds little latency, and one
channel serves a peer with LL."""


_MOST_S: Final = 0.1
"""Limit of ours: no start-up or step of a collective takes longer."""
_FACTOR: Final = Meaning("Factor.", 0.01, 1.0, 100.0, "factor")
_KNOTS: Final = Table(
    "log2 of the message's bytes -> factor on the time that a byte takes on the link (pipeline fill, caches); linear "
    "between knots and constant beyond them.",
    keys=r"\d{1,2}(\.\d+)?",
    each=_FACTOR,
    ascending=True,
)
_EFFICIENCY: Final = Meaning("Share of the line rate.", 0.001, 0.7, 1.0, "share")
_RATE: Final = Meaning("Payload of one CTA.", 1e5, 12e9, 1e15)
_PROTOCOLS: Final = ("ll", "ll128", "simple", "nvls")
_OTHER_KINDS: Final = tuple(kind for kind in CollectiveKind if kind is not CollectiveKind.ALL_REDUCE)
_FACTORS: Final = ("base", "step", "channel", "link", "pair_loss")


def _by_link(text: str, each: Meaning) -> dict[str, Said]:
    """A field keyed by link class and then by protocol; the four of them have the same keys."""
    rows = exactly("By protocol.", each=each, optional=_PROTOCOLS)
    return holds(exactly(text, each=rows, optional=tuple(dict.fromkeys(LINK_CLASS.values())), alike="links"))


def _by_kernel(text: str, each: Meaning) -> dict[str, Said]:
    """A field keyed by the name of a custom kernel; the five of them have the same keys."""
    return holds(Table(text, keys=r"[a-z]\w*", each=each, alike="custom kernels"))


@dataclass(frozen=True, slots=True)
class CollectiveConstants:
    """Constants of one machine for collectives; the profile block `collectives`, fitted to AllReduce first.

    Per-link fields are keyed by link class (nvlink, pcie, host, network) and then by protocol (ll, ll128,
    simple, nvls). What NCCL picks does not depend on any of them but the first two: its own tuning tables are
    in `tuning`. All times and rates describe the kernel on the GPU, not the host call around it.
    """

    nccl_minor_version: int = field(
        metadata=means("The x of NCCL 2.x; decides which of its tuning tables apply.", 0, 28, 999, "version")
    )
    nvls_enabled: int = field(
        metadata=means("1 where NVLink SHARP works: NVSwitch with multicast, not switched off.", 0, 1, 1, "0 or 1")
    )
    base_s: Mapping[str, Mapping[str, float]] = field(
        metadata=_by_link(
            "Start-up of a kernel: launch to first byte, and the tail after the last.",
            Meaning("Start-up.", 0.0, 6e-6, _MOST_S),
        )
    )
    step_s: Mapping[str, Mapping[str, float]] = field(
        metadata=_by_link(
            "Latency of one of the 2(n-1) ring (or chain) steps; NVLS pays it once a rank.",
            Meaning("A step.", 0.0, 1e-6, _MOST_S),
        )
    )
    channel_bytes_per_s: Mapping[str, Mapping[str, float]] = field(
        metadata=_by_link("What one channel (one CTA, one SM) sends, payload only.", _RATE)
    )
    link_efficiency: Mapping[str, Mapping[str, float]] = field(
        metadata=_by_link("Share of a GPU's line rate that payload reaches when channels abound.", _EFFICIENCY)
    )
    link_correction: Mapping[str, Mapping[str, float]] = field(
        metadata=holds(exactly("By protocol, a factor by size.", each=_KNOTS, optional=_PROTOCOLS))
    )
    ring_pair_loss: Mapping[str, float] = field(
        metadata=holds(
            exactly(
                "By protocol, share of the link rate that a ring of two loses: its reduce and gather steps have no "
                "other step to overlap with. Rings of n lose (2/n)^2 of that.",
                *_PROTOCOLS[:3],
                each=Meaning("What a ring of two loses.", 0.0, 0.2, 0.99, "share"),
                optional=_PROTOCOLS[3:],
            )
        )
    )
    link_latency_s: Mapping[str, float] = field(
        metadata=holds(
            exactly(
                "By link class, the time of flight that step_s contains; longer links pay the difference every step.",
                each=Meaning("Time of flight.", 0.0, 1e-6, _MOST_S),
                optional=tuple(dict.fromkeys(LINK_CLASS.values())),
                alike="links",
            )
        )
    )
    shared_fabric_links: Mapping[str, float] = field(
        metadata=holds(
            exactly(
                "By link class, how many full x16 links' worth of traffic host bridges and host memory carry for a "
                "whole group, where a machine was measured to carry less than its links and memory do; groups of up to "
                "switch_group_size are not limited by it.",
                each=Meaning("Traffic carried.", 0.01, 1.0, 1e4, "x16 links"),
                optional=("pcie", "host"),
            )
        )
    )
    switch_group_size: int = field(
        metadata=means("GPUs that exchange without loading what the rest of the machine shares.", 1, 2, 4096, "GPUs")
    )
    socket_crossing_efficiency: float = field(
        metadata=means("What remains of the shared fabric when the ring crosses sockets.", 0.01, 0.55, 1.0, "share")
    )
    tree_efficiency: float = field(
        metadata=means(
            "Rate of the chain that a tree is within a node, relative to the ring's.", 0.01, 0.92, 2.0, "share"
        )
    )
    nccl_call_s: float = field(
        metadata=means(
            "What a call takes longer where ranks are launched from hosts that do not run ahead.", 0.0, 2e-6, _MOST_S
        )
    )
    custom_base_s: Mapping[str, float] = field(
        metadata=_by_kernel(
            "Start-up and barriers of a custom kernel on two GPUs, by kernel.", Meaning("Start-up.", 0.0, 4e-6, _MOST_S)
        )
    )
    custom_peer_s: Mapping[str, float] = field(
        metadata=_by_kernel("What every further peer adds.", Meaning("A further peer.", 0.0, 0.1e-6, _MOST_S))
    )
    custom_link_efficiency: Mapping[str, float] = field(
        metadata=_by_kernel("Share of the line rate that the kernel's peer traffic reaches.", _EFFICIENCY)
    )
    custom_cta_bytes_per_s: Mapping[str, float] = field(metadata=_by_kernel("Peer traffic of one CTA.", _RATE))
    custom_ctas: Mapping[str, float] = field(
        metadata=_by_kernel("Most CTAs the kernel launches.", Meaning("Most CTAs.", 1.0, 36.0, 1024.0, "CTAs"))
    )
    custom_link_correction: Mapping[str, Mapping[str, float]] = field(
        metadata=holds(Table("By custom kernel, a factor by size.", keys=r"[a-z]\w*", each=_KNOTS))
    )
    custom_max_bytes: float = field(
        metadata=means("Largest message the peer buffers of custom kernels hold.", 0.0, 8 * 2**20, 1e12)
    )
    kind_factors: Mapping[str, Mapping[str, Mapping[str, float]]] = field(
        default_factory=dict,
        metadata=holds(
            exactly(
                "By collective other than AllReduce and by protocol, factors on the constants above, 1 where there is "
                "none: base on the start-up, step on a step, channel and link on the two rates, pair_loss on the loss "
                "of a ring of two.",
                each=exactly(
                    "By protocol.",
                    each=exactly("Factors.", each=_FACTOR, optional=_FACTORS),
                    optional=_PROTOCOLS,
                ),
                optional=_OTHER_KINDS,
            )
        ),
    )
    kind_link_correction: Mapping[str, Mapping[str, Mapping[str, float]]] = field(
        default_factory=dict,
        metadata=holds(
            exactly(
                "As link_correction, by collective and protocol, in its place.",
                each=exactly("By protocol, a factor by size.", each=_KNOTS, optional=_PROTOCOLS),
                optional=_OTHER_KINDS,
            )
        ),
    )

    def factor(self, kind: str, protocol: str, name: str) -> float:
        """One of `kind_factors`; an AllReduce has none. Point-to-point has AllToAll's, which is made of it."""
        rows = self.kind_factors.get(kind)
        if rows is None and kind == CollectiveKind.SEND_RECV:
            rows = self.kind_factors.get(CollectiveKind.ALL_TO_ALL)
        if rows is None:
            rows = SEND_RECV_FACTORS if kind in (CollectiveKind.ALL_TO_ALL, CollectiveKind.SEND_RECV) else {}
        return rows.get(protocol, {}).get(name, 1.0)

    def correction(self, kind: str, protocol: str) -> Mapping[str, float] | None:
        """The knots that correct a protocol's link rate by the size of the message."""
        if kind == CollectiveKind.SEND_RECV and kind not in self.kind_link_correction:
            kind = CollectiveKind.ALL_TO_ALL
        own = self.kind_link_correction.get(kind, {}).get(protocol)
        return self.link_correction.get(protocol) if own is None else own


def link_value(constants: CollectiveConstants, field: str, link_class: str, protocol: str) -> float:
    """One entry of a per-link field.

    Raises:
        InputError: The profile has no such entry.
    """
    table: Mapping[str, Mapping[str, float]] = getattr(constants, field)
    try:
        return table[link_class][protocol]
    except KeyError:
        raise InputError.single(
            f"collectives.{field}.{link_class}.{protocol}",
            "the profile has no value for this link and protocol, so this collective has no cost",
            example="copy the entry from a profile with the same kind of link",
        ) from None


def interpolate_knots(knots: Mapping[str, float], x: Sizes) -> Sizes:
    """Piecewise linear through `knots` (keys are numbers), constant beyond the ends; 1 without knots."""
    if is_many(x) and knots:
        return _interpolated(np.array([float(key) for key in knots]), np.array([*knots.values()]), x)
    low_x, low_y = -1.0, -1.0
    for key, y in knots.items():
        knot_x = float(key)
        if x <= knot_x:
            if low_x < 0.0:
                return y
            return low_y + (y - low_y) * (x - low_x) / (knot_x - low_x)
        low_x, low_y = knot_x, y
    return low_y if low_x >= 0.0 else 1.0


def _interpolated(knots: Sizes, values: Sizes, x: Sizes) -> Sizes:
    after = np.searchsorted(knots, x)
    high = np.clip(after, 1, len(knots) - 1)
    if len(knots) == 1:
        return np.full(len(x), values[0])
    low = high - 1
    between = values[low] + (values[high] - values[low]) * (x - knots[low]) / (knots[high] - knots[low])
    return np.where(after == 0, values[0], np.where(after == len(knots), values[-1], between))


LEAST_MARGINAL = 0.5
"""What a further byte takes at least, of the mean of those before; a limit of ours."""


def extended_knots(knots: Mapping[str, float], x: Sizes) -> Sizes:
    """As `interpolate_knots`; beyond the last knot each further byte takes what one of the last octave took.

    For what still gains speed at the largest message that was measured: its start is a smaller share of a larger one.
    """
    last = float(max(knots, key=float, default="0"))
    if not knots or same(x <= last):
        return interpolate_knots(knots, x)
    mean = interpolate_knots(knots, last)
    marginal = 2.0 * mean - interpolate_knots(knots, last - 1.0)
    marginal = min(max(marginal, LEAST_MARGINAL * mean), mean)
    return marginal + (mean - marginal) * each(math.exp2, last - x)


EAGER_CALL_S = 2.1e-6
"""What a call takes longer where ranks are launched from hosts that do not run ahead; fitted, see
`with_eager_nccl_latency`."""

EAGER_TRANSFER_FACTOR = 1.11
"""By how much bytes move slower there; fitted, see `with_eager_nccl_latency`."""


def with_eager_nccl_latency(constants: CollectiveConstants) -> CollectiveConstants:
    """The same machine with NCCL as an eager profile of a DGX A100 saw it.

    Each NCCL call takes `EAGER_CALL_S` longer and moves bytes `EAGER_TRANSFER_FACTOR` slower than the
    back-to-back calls of nccl-tests that the A100 constants are fitted to. Both numbers are fitted to medians
    published by microsoft/vidur (data/profiling, 8 x A100 DGX: 10 KiB 25 us, 1 MiB 40 us, 4 MiB 95 us,
    16 MiB 256 us, 64 MiB 650 us; nccl-tests on the same machine type, NCCL 2.27.3, as published by
    ai-dynamo/aiconfigurator: 21.3, 38.8, 77.3, 216.5, 595 us): least squares on the relative error, mean
    6 %. Custom kernels stay as they are.
    """
    slower = {
        link: {protocol: value / EAGER_TRANSFER_FACTOR for protocol, value in row.items()}
        for link, row in constants.link_efficiency.items()
    }
    return replace(constants, nccl_call_s=constants.nccl_call_s + EAGER_CALL_S, link_efficiency=slower)
