"""Which bytes a collective moves over which link, exactly.

`num_bytes` is counted as in `Collective`: payload, without the flags and headers of a protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.algorithms import algorithm_named
from kraken_sim.costs.collectives.routes import Group
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.algorithms import Algorithm
    from kraken_sim.costs.collectives.routes import DirectedLink, Traffic
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.program.ops import CollectiveKind


def link_bytes(
    topology: Topology,
    gpus: Sequence[str],
    kind: CollectiveKind,
    algorithm: str,
    num_bytes: float,
    *,
    staged: bool = False,
) -> dict[DirectedLink, float]:
    """Bytes over every directed link that a collective of these GPUs uses.

    Rings follow the best ring of the topology (between nodes one ring a rail, see `network_traffic`), and in a
    mesh the further ones, each with the part of the bytes that its bandwidth deserves. `staged` sends every hop
    through host memory, as NCCL's SHM transport does.

    Raises:
        InputError: Some GPUs cannot reach each other; an algorithm that the collective does not have; or no
            NVSwitch for one that needs it.
    """
    if len(gpus) < 2:
        return {}
    return dict(traffic_of(algorithm_named(algorithm), Group(topology, gpus, kind, staged=staged), num_bytes).links)


def traffic_of(algorithm: Algorithm, group: Group, num_bytes: float) -> Traffic:
    """What a collective of a group moves.

    Raises:
        InputError: See `link_bytes`.
    """
    spans_nodes = len(group.nodes) > 1
    if group.kind not in algorithm.kinds or not algorithm.is_for(spans_nodes=spans_nodes):
        where = "between nodes" if spans_nodes else "within a node"
        raise InputError.single("algorithm", f"{group.kind} {where} does not run as", algorithm.name, "ring")
    return algorithm.traffic(group, num_bytes)
