"""Several machines joined by a network: through which NIC each GPU leaves its node, and what NICs send."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.hardware.topology.graph import Graph, LinkKind
    from kraken_sim.hardware.topology.rings import RingFinder


def rails_of(finder: RingFinder, gpus: Sequence[str]) -> dict[str, str]:
    """The NIC that each GPU of a node uses: the nearest; of several equally near, dealt out in turn among `gpus`.

    Raises:
        InputError: The node has no NIC, or a GPU no way to one.
    """
    topology, rails = finder.topology, {}
    nics = topology.nics.get(topology.components[gpus[0]], ())
    rank = {gpu: index for index, gpu in enumerate(gpus)}
    sharing: dict[tuple[str, int], dict[str, int]] = {}
    for gpu in gpus:
        hops, found = finder.nearest(gpu, nics)
        if not found:
            message = f"{gpu} has no NIC, so it reaches no other node"
            raise InputError.single("topology.nodes", message, example="nic: {kind: nic, count: 8}")
        nearest = [nic for nic in nics if nic in found]
        key = (nearest[0], hops)
        if key not in sharing:
            same = sorted(rank.keys() & finder.gpus_at(*key), key=rank.__getitem__)
            sharing[key] = {other: turn for turn, other in enumerate(same)}
        rails[gpu] = nearest[sharing[key][gpu] % len(nearest)]
    return rails


def network_bytes_per_s(topology: Graph, nics: Sequence[str]) -> float:
    """What some NICs send together: each as fast as the slower of its network and its PCIe links."""
    total = 0.0
    for nic in nics:
        rates: dict[LinkKind, float] = defaultdict(float)
        for link in topology.links_of[nic]:
            rates[link.kind] += link.total_bytes_per_s
        total += min(rates.values())
    return total
