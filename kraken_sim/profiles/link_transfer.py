"""Collective constants of kinds of links that a calibrated machine lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.constants import CollectiveConstants

_BY_LINK: Final = ("base_s", "step_s", "channel_bytes_per_s", "link_efficiency")
"""The fields whose rows are keyed by link class and then by protocol."""

_SLOWER: Final = ("pcie", "host")
"""The link classes within a node that NVLink is quicker than."""

_NETWORK: Final = "network"

NETWORK_ROWS: Final = tuple(f"{field}.{_NETWORK}" for field in _BY_LINK)
"""The paths of a network's rows below the block of collectives."""

NETWORK_BASE_S: Final[Mapping[str, float]] = {"ll": 6.6e-6, "ll128": 14e-6, "simple": 8.4e-6}
"""Start-up of a ring over the network; assumed to be what NCCL believes (baseLat of its src/graph/tuning.cc)."""

NETWORK_STEP_S: Final[Mapping[str, float]] = {"ll": 2.7e-6, "ll128": 4e-6, "simple": 14e-6}
"""A step of a ring over the network; assumed to be what NCCL believes (hwLat of its src/graph/tuning.cc, NET)."""

NETWORK_EFFICIENCY: Final[Mapping[str, float]] = {"ll": 0.47, "ll128": 0.86, "simple": 0.94}
"""Share of a NIC's line rate, assumed. Simple: 46 to 48 GB/s of a 400 Gb/s NIC, as NVIDIA's engineers expect of two
H100 nodes (NVIDIA/nccl-tests issue 290). LL carries a flag with every 8 bytes, half of that; LL128 0.92 of it."""

NETWORK_SOURCE: Final = (
    "network rows: latencies of NCCL src/graph/tuning.cc; 46 to 48 GB/s of a 400 Gb/s NIC (nccl-tests issue 290); "
    "a channel copies as fast as over NVLink; none of it measured here"
)


def with_network(constants: CollectiveConstants) -> CollectiveConstants:
    """The constants with a network's rows.

    What one SM copies into a NIC's buffer is what it copies over NVLink: the channel rates are those of that row.
    """
    rows: Mapping[str, Mapping[str, float]] = {
        "base_s": NETWORK_BASE_S,
        "step_s": NETWORK_STEP_S,
        "channel_bytes_per_s": {key: constants.channel_bytes_per_s["nvlink"][key] for key in NETWORK_STEP_S},
        "link_efficiency": NETWORK_EFFICIENCY,
    }
    return _with_rows(constants, _NETWORK, rows)


def with_rows_of(constants: CollectiveConstants, other: CollectiveConstants, link_class: str) -> CollectiveConstants:
    """The constants with another machine's rows of one link class, where it has them."""
    rows = {field: getattr(other, field)[link_class] for field in _BY_LINK if link_class in getattr(other, field)}
    return _with_rows(constants, link_class, rows)


def with_starts_of_nvlink(constants: CollectiveConstants) -> CollectiveConstants:
    """The constants with start-ups and steps over PCIe and host memory no shorter than over NVLink.

    Rows of a faster-clocked GPU would let host memory beat NVLink for small messages: how long a kernel takes to start
    is its GPU's, and no wire is quicker than NVLink. Rows of protocols that NVLink has not stay.
    """
    changes: dict[str, Any] = {}
    for field in ("base_s", "step_s"):
        rows = getattr(constants, field)
        least = rows.get("nvlink", {})
        changes[field] = {
            name: {key: max(value, least.get(key, 0.0)) for key, value in row.items()} if name in _SLOWER else row
            for name, row in rows.items()
        }
    return replace(constants, **changes)


def _with_rows(
    constants: CollectiveConstants, link_class: str, rows: Mapping[str, Mapping[str, float]]
) -> CollectiveConstants:
    changes: dict[str, Any] = {field: {**getattr(constants, field), link_class: row} for field, row in rows.items()}
    return replace(constants, **changes)
