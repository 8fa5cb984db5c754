"""Machines that the topology tests share, built link by link."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind
from kraken_sim.hardware.topology.topology import Topology

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.rings import Ring

GB = 1e9
US = 1e-6
CUBE_MESH = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2,
    (2, 6): 1, (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip
"""NVLinks between the GPUs of a DGX-1 with V100, as `nvidia-smi topo -m` shows them."""


def gpu_nodes(count: int) -> list[Node]:
    return [Node(f"gpu{i}", NodeKind.GPU) for i in range(count)]


def pcie(a: str, b: str, bandwidth: float = 31.5 * GB, gen: int = 4) -> Link:
    return Link(a, b, LinkKind.PCIE, bandwidth, 0.5 * US, pcie_gen=gen)


def nvlink(a: str, b: str, count: int = 1, bandwidth: float = 25 * GB) -> Link:
    return Link(a, b, LinkKind.NVLINK, bandwidth, 0.25 * US, count)


def socket(a: str, b: str, bandwidth: float = 96 * GB) -> Link:
    return Link(a, b, LinkKind.SOCKET, bandwidth, 0.2 * US)


def pcie_parts(num_gpus: int, num_hosts: int = 2) -> tuple[list[Node], list[Link]]:
    """GPUs in equal blocks below sockets that stand in a row."""
    hosts = [Node(f"host{i}", NodeKind.HOST) for i in range(num_hosts)]
    links = [pcie(f"gpu{i}", f"host{i * num_hosts // num_gpus}") for i in range(num_gpus)]
    links += [socket(f"host{i}", f"host{i + 1}") for i in range(num_hosts - 1)]
    return gpu_nodes(num_gpus) + hosts, links


def pcie_box(num_gpus: int = 8, num_hosts: int = 2, extra: list[Link] | None = None) -> Topology:
    nodes, links = pcie_parts(num_gpus, num_hosts)
    return Topology(tuple(nodes), (*links, *(extra or [])))


def switched_tree() -> Topology:
    """Two sockets, two PCIe switches each, two GPUs each."""
    nodes = gpu_nodes(8) + [Node(f"switch{i}", NodeKind.PCIE_SWITCH) for i in range(4)]
    nodes += [Node(f"host{i}", NodeKind.HOST) for i in range(2)]
    links = [pcie(f"gpu{i}", f"switch{i // 2}") for i in range(8)]
    links += [pcie(f"switch{i}", f"host{i // 2}") for i in range(4)] + [socket("host0", "host1")]
    return Topology(tuple(nodes), tuple(links))


def nvswitch_box(num_gpus: int = 8, links_per_gpu: int = 18, planes: int = 1) -> Topology:
    nodes, links = pcie_parts(num_gpus, 1)
    nodes += [Node(f"nvswitch{i}", NodeKind.NVSWITCH) for i in range(planes)]
    links += [
        nvlink(f"gpu{i}", f"nvswitch{plane}", links_per_gpu // planes)
        for i in range(num_gpus)
        for plane in range(planes)
    ]
    return Topology(tuple(nodes), tuple(links))


def bridged_pairs(num_gpus: int = 8) -> Topology:
    bridges = [nvlink(f"gpu{i}", f"gpu{i + 1}", 4) for i in range(0, num_gpus, 2)]
    return pcie_box(num_gpus, extra=bridges)


def cube_mesh() -> Topology:
    return pcie_box(extra=[nvlink(f"gpu{a}", f"gpu{b}", count) for (a, b), count in CUBE_MESH.items()])


MACHINES = {
    "pcie": pcie_box(),
    "switched": switched_tree(),
    "nvswitch": nvswitch_box(),
    "pairs": bridged_pairs(),
    "cube mesh": cube_mesh(),
}


def renumbered(topology: Topology, order: list[int]) -> Topology:
    """The same machine with its GPUs counted in another order."""
    gpus = [node for node in topology.nodes if node.kind is NodeKind.GPU]
    rest = [node for node in topology.nodes if node.kind is not NodeKind.GPU]
    names = {f"gpu{old}": f"gpu{new}" for new, old in enumerate(order)}
    links = [replace(link, a=names.get(link.a, link.a), b=names.get(link.b, link.b)) for link in topology.links]
    return Topology((*gpus, *rest), tuple(links))


def socket_crossings(ring: Ring) -> int:
    return sum(link.kind is LinkKind.SOCKET for hop in ring.hops for link in hop.links)


def network(a: str, b: str, bandwidth: float = 50 * GB) -> Link:
    return Link(a, b, LinkKind.NETWORK, bandwidth, 0.5 * US)


def cluster(num_nodes: int = 2, gpus: int = 8, rails: int = 8, nvlinks: int = 18, nic: float = 50 * GB) -> Topology:
    """Nodes of two sockets; a PCIe switch a NIC with its share of the GPUs, a network switch a rail."""
    nodes = gpu_nodes(num_nodes * gpus) + [Node(f"rail{rail}", NodeKind.NETWORK_SWITCH) for rail in range(rails)]
    links = []
    for node in range(num_nodes):
        hosts = [f"host{node}.0", f"host{node}.1"]
        nodes += [Node(host, NodeKind.HOST) for host in hosts]
        links.append(socket(hosts[0], hosts[1]))
        if nvlinks:
            nodes.append(Node(f"nvswitch{node}", NodeKind.NVSWITCH))
        for rail in range(rails):
            switch, card = f"switch{node}.{rail}", f"nic{node}.{rail}"
            nodes += [Node(switch, NodeKind.PCIE_SWITCH), Node(card, NodeKind.NIC)]
            links += [pcie(switch, hosts[rail * 2 // rails], 63 * GB), pcie(card, switch, 63 * GB)]
            links.append(network(card, f"rail{rail}", nic))
        for index in range(gpus):
            gpu = f"gpu{node * gpus + index}"
            links.append(pcie(gpu, f"switch{node}.{index * rails // gpus}", 63 * GB))
            if nvlinks:
                links.append(nvlink(gpu, f"nvswitch{node}", nvlinks))
    return Topology(tuple(nodes), tuple(links))


def two_cube_meshes() -> Topology:
    """Two DGX-1: four NICs a node, each beside the two GPUs of a PCIe switch."""
    nodes, links = gpu_nodes(16), []
    for node in range(2):
        hosts = [f"host{node}.0", f"host{node}.1"]
        nodes += [Node(host, NodeKind.HOST) for host in hosts]
        links.append(socket(hosts[0], hosts[1]))
        links += [nvlink(f"gpu{8 * node + a}", f"gpu{8 * node + b}", count) for (a, b), count in CUBE_MESH.items()]
        for index in range(4):
            switch, card = f"switch{node}.{index}", f"nic{node}.{index}"
            nodes += [Node(switch, NodeKind.PCIE_SWITCH), Node(card, NodeKind.NIC)]
            links += [pcie(switch, hosts[index // 2], 15.75 * GB, 3), pcie(card, switch, 15.75 * GB, 3)]
            links += [pcie(f"gpu{8 * node + 2 * index + i}", switch, 15.75 * GB, 3) for i in range(2)]
            links.append(network(card, "leaf", 12.5 * GB))
    return Topology((*nodes, Node("leaf", NodeKind.NETWORK_SWITCH)), tuple(links))
