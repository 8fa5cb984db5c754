"""Machines and constants that the collective tests share: round numbers near an H100 and an A100."""

from __future__ import annotations

from kraken_sim.costs.collectives import CollectiveConstants
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library, Selection
from kraken_sim.hardware.device import Device
from kraken_sim.hardware.interconnect import Interconnect, InterconnectKind
from kraken_sim.hardware.topology.graph import Link, LinkKind, Node, NodeKind
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.program.ops import DType

KIB, MIB = 1024, 1024 * 1024
NCCL = CollectivePolicy()
LEGACY = CollectivePolicy(library=Library.CUSTOM, selection=Selection.TENSORRT_LLM_LEGACY)
VLLM = CollectivePolicy(library=Library.CUSTOM, selection=Selection.VLLM)
FASTEST = CollectivePolicy(library=Library.CUSTOM)
LINE_RATE = {"ampere": 300e9, "hopper": 450e9}
NUM_LINKS = {"ampere": 12, "hopper": 18}
GAP_S = {"ampere": 1.2e-6, "hopper": 1.0e-6, "ada": 1.2e-6}


def gpu(generation: str) -> Device:
    return Device(generation, generation, 132, 1.8e9, {DType.FLOAT16: 9e14}, 3e12, 80e9, 50e6, 700.0)


def nvswitch(num_devices: int, generation: str = "hopper", bandwidth: float | None = None) -> Interconnect:
    rate = LINE_RATE[generation] if bandwidth is None else bandwidth
    return Interconnect(InterconnectKind.NVSWITCH, num_devices, rate, NUM_LINKS[generation], 5e-7)


def pcie(num_devices: int, kind: InterconnectKind = InterconnectKind.PCIE) -> Interconnect:
    return Interconnect(kind, num_devices, 31.5e9, 1, 1e-6, crosses_sockets=num_devices > 4, pcie_gen=4)


def constants(nccl_minor_version: int = 29, nvls_enabled: int = 1) -> CollectiveConstants:
    nvlink = {"ll": 4e-6, "ll128": 9e-6, "simple": 20e-6, "nvls": 22e-6}
    pcie_base = {"ll": 2e-6, "ll128": 12e-6, "simple": 16e-6}
    kernels = ("one_shot_tensorrt_llm", "two_shot_tensorrt_llm", "one_shot_vllm", "two_shot_vllm", "multimem")
    rates = {"ll": 12e9, "ll128": 18e9, "simple": 19e9, "nvls": 30e9}
    return CollectiveConstants(
        nccl_minor_version=nccl_minor_version,
        nvls_enabled=nvls_enabled,
        base_s={"nvlink": nvlink, "pcie": pcie_base, "host": pcie_base},
        step_s={
            "nvlink": {"ll": 0.75e-6, "ll128": 1.5e-6, "simple": 1e-6, "nvls": 0.5e-6},
            "pcie": {"ll": 1.2e-6, "ll128": 2.5e-6, "simple": 1.2e-6},
            "host": {"ll": 1.2e-6, "ll128": 2.5e-6, "simple": 1.2e-6},
        },
        channel_bytes_per_s={
            "nvlink": rates,
            "pcie": {"ll": 4e9, "ll128": 8e9, "simple": 12e9},
            "host": {"ll": 4e9, "ll128": 8e9, "simple": 12e9},
        },
        link_efficiency={
            "nvlink": {"ll": 0.38, "ll128": 0.6, "simple": 0.83, "nvls": 0.5},
            "pcie": {"ll": 0.45, "ll128": 0.6, "simple": 0.64},
            "host": {"ll": 0.2, "ll128": 0.4, "simple": 0.4},
        },
        link_correction={"simple": {"22": 1.15, "24": 1.05, "26": 1.0}},
        ring_pair_loss={"ll": 0.2, "ll128": 0.1, "simple": 0.16},
        link_latency_s={"nvlink": 1e-6, "pcie": 2e-6, "host": 4e-6},
        shared_fabric_links={"pcie": 1.0, "host": 1.0},
        switch_group_size=2,
        socket_crossing_efficiency=0.55,
        tree_efficiency=0.92,
        nccl_call_s=0.0,
        custom_base_s=dict(zip(kernels, (1.8e-6, 5e-6, 3.4e-6, 7e-6, 8.6e-6), strict=True)),
        custom_peer_s=dict.fromkeys(kernels, 0.1e-6),
        custom_link_efficiency=dict(zip(kernels, (0.67, 0.5, 0.6, 0.7, 0.56), strict=True)),
        custom_cta_bytes_per_s=dict(zip(kernels, (70e9, 20e9, 66e9, 19e9, 20e9), strict=True)),
        custom_ctas=dict(zip(kernels, (24.0, 24.0, 36.0, 36.0, 24.0), strict=True)),
        custom_link_correction={},
        custom_max_bytes=8 * 2**20,
    )


def cluster(num_nodes: int = 2, num_local: int = 8, num_rails: int = 8) -> Topology:
    """Nodes of GPUs on NVSwitch, each PCIe switch with its GPUs and a 50 GB/s NIC, and one network switch."""
    nodes, links = [], []
    for k in range(num_nodes):
        gpus = [f"gpu{k * num_local + i}" for i in range(num_local)]
        nodes += [Node(gpu_name, NodeKind.GPU) for gpu_name in gpus]
        nodes += [Node(f"nvswitch{k}", NodeKind.NVSWITCH), Node(f"host{k}", NodeKind.HOST)]
        for i in range(num_rails):
            nodes += [Node(f"switch{k}.{i}", NodeKind.PCIE_SWITCH), Node(f"nic{k}.{i}", NodeKind.NIC)]
            links.append(Link(f"switch{k}.{i}", f"host{k}", LinkKind.PCIE, 63e9, 1e-7, 1, 5))
            links.append(Link(f"nic{k}.{i}", f"switch{k}.{i}", LinkKind.PCIE, 63e9, 3e-7, 1, 5))
            links.append(Link(f"nic{k}.{i}", "network", LinkKind.NETWORK, 50e9, 1e-6))
        for i, gpu_name in enumerate(gpus):
            links.append(Link(gpu_name, f"nvswitch{k}", LinkKind.NVLINK, 25e9, 2.5e-7, 18))
            links.append(Link(gpu_name, f"switch{k}.{i * num_rails // num_local}", LinkKind.PCIE, 63e9, 5e-7, 1, 5))
    nodes.append(Node("network", NodeKind.NETWORK_SWITCH))
    return Topology(tuple(nodes), tuple(links))


def forced(algorithm: str, protocol: str | None = None, library: Library = Library.NCCL) -> CollectivePolicy:
    return CollectivePolicy(library=library, algorithm=algorithm, protocol=protocol)
