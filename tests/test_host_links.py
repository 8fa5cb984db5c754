"""PCIe boxes by what their hosts are: ways, channels and rates follow from the topology and NCCL's rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import InputError, link_traffic, predict_op
from kraken_sim.costs.collectives.graph import FALLBACK_GBPS, search_rings
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.collectives.selection import all_reduce_cost
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import HostCpu, Link, LinkKind, Node, NodeKind, P2PLevel
from kraken_sim.hardware.topology.topology import Topology
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.hardware.interconnect import Interconnect

GEN5, MIB = 63e9, 2**20
AMD, INTEL, EMERALD = HostCpu.AMD, HostCpu.SAPPHIRE_RAPIDS, HostCpu.EMERALD_RAPIDS
L40S = load_profile("l40s-x8")
BLACKWELL = replace(L40S.device, generation="blackwell")


def box(
    gpus: int = 8, hosts: int = 2, switches: int = 0, cpu: HostCpu | None = None, level: P2PLevel | None = None
) -> Topology:
    """GPUs on PCIe gen5, in equal blocks below switches or hosts."""
    nodes = [Node(f"gpu{i}", NodeKind.GPU) for i in range(gpus)]
    nodes += [Node(f"host{i}", NodeKind.HOST, cpu) for i in range(hosts)]
    nodes += [Node(f"switch{i}", NodeKind.PCIE_SWITCH) for i in range(switches)]
    above, count = ("switch", switches) if switches else ("host", hosts)
    links = [pcie(f"gpu{i}", f"{above}{i * count // gpus}") for i in range(gpus)]
    links += [pcie(f"switch{i}", f"host{i * hosts // switches}") for i in range(switches)]
    links += [Link("host0", f"host{i}", LinkKind.SOCKET, 96e9, 2e-7) for i in range(1, hosts)]
    return Topology(tuple(nodes), tuple(links), level)


def pcie(a: str, b: str) -> Link:
    return Link(a, b, LinkKind.PCIE, GEN5, 5e-7, 1, 5)


def cost(interconnect: Interconnect, num_bytes: int = 256 * MIB, **policy: Any) -> CollectiveCost:
    return all_reduce_cost(num_bytes, interconnect, BLACKWELL, L40S.collectives, CollectivePolicy(**policy))


def busbw(interconnect: Interconnect, **policy: Any) -> float:
    n = interconnect.num_devices
    return 256 * MIB * 2 * (n - 1) / n / cost(interconnect, **policy).busy_s


@pytest.mark.parametrize(
    ("topology", "num_devices", "through_host"),
    [
        (box(switches=4), 2, False),  # one switch
        (box(switches=4), 4, True),  # two switches of one host bridge
        (box(cpu=AMD), 2, False),
        (box(cpu=AMD), 4, True),
        (box(cpu=INTEL), 2, True),
        (box(cpu=INTEL, level=P2PLevel.PHB), 4, False),
        (box(cpu=INTEL, level=P2PLevel.SYS), 8, False),
    ],
)
def test_nccl_goes_through_host_memory_where_its_rule_says_so(
    topology: Topology, num_devices: int, through_host: bool
) -> None:
    interconnect = topology.interconnect(num_devices)
    assert interconnect.kind is InterconnectKind.PCIE  # the GPUs reach each other
    assert interconnect.through_host is through_host


def test_where_it_would_not_a_scenario_can_have_it_use_peer_to_peer_access() -> None:
    interconnect = box(cpu=INTEL).interconnect(4)
    assert busbw(interconnect, transport=Transport.P2P) > 1.2 * busbw(interconnect)
    assert busbw(interconnect, transport=Transport.SHM) == busbw(interconnect)


def test_custom_kernels_need_no_trust_of_nccl_s() -> None:
    interconnect = box(cpu=INTEL).interconnect(2)
    kernel = cost(interconnect, 65536, library="custom", algorithm="one_shot")
    assert kernel.busy_s < cost(interconnect, 65536).busy_s


@pytest.mark.parametrize(
    ("generation", "cpu", "num_devices", "channels", "gbps"),
    [
        ("ada", AMD, 8, 1, 15.0),
        ("ada", INTEL, 8, 1, 20.0),
        ("blackwell", INTEL, 8, 1, 20.0),
        ("blackwell", AMD, 8, 1, FALLBACK_GBPS),  # its lowest speed is 18
        ("ada", EMERALD, 8, 2, 20.0),
        ("blackwell", AMD, 4, 2, 24.0),
        ("hopper", INTEL, 4, 2, 20.0),  # 48 GB/s less a sixth, one ring of 40 made two
    ],
)
def test_channels_are_those_of_nccl_s_search(
    generation: str, cpu: HostCpu, num_devices: int, channels: int, gbps: float
) -> None:
    interconnect = replace(box(cpu=cpu).interconnect(num_devices), kind=InterconnectKind.HOST)
    graph = search_rings(interconnect, replace(L40S.device, generation=generation), 29)
    assert (graph.channels, graph.bandwidth_gbps, graph.ctas) == (channels, gbps, 2 * channels)


def test_two_channels_are_what_is_left_between_sockets() -> None:
    one, two = (busbw(box(hosts=hosts, cpu=AMD).interconnect(4 * hosts)) for hosts in (1, 2))
    assert cost(box(cpu=AMD).interconnect(8)).channels == 2
    assert two < 25e9 < one


def test_a_socket_s_memory_is_shared_by_all_that_goes_through_it() -> None:
    crowded, switched = box(hosts=1).interconnect(8), box(hosts=1, switches=4).interconnect(8)
    assert (crowded.host_hops, switched.host_hops) == (8, 4)
    assert busbw(crowded) == pytest.approx(307e9 / 2 / 8, rel=0.02)
    assert busbw(switched) > 1.8 * busbw(crowded)
    assert box(hosts=2, cpu=INTEL).interconnect(8).host_hops == 4


def test_a_gpu_that_only_writes_or_only_reads_has_its_link_for_itself() -> None:
    pairs = box(4, 1)
    bridges = tuple(Link(f"gpu{i}", f"gpu{i + 1}", LinkKind.NVLINK, 300e9, 3e-7) for i in (0, 2))
    bridged = replace(pairs, links=(*pairs.links, *bridges))
    assert bridged.interconnect(4).through_host
    assert not bridged.interconnect(4).two_way
    assert busbw(bridged.interconnect(4)) > 1.2 * busbw(pairs.interconnect(4))


def test_only_a_host_has_a_cpu(tmp_path: Path) -> None:
    text = """
name: mine
description: Two L40S
base: l40s-x8
topology:
  kind: datasheet
  source: a test
  nodes: {gpu: {kind: gpu, count: 2, cpu: amd}, host: {kind: host, cpu: amd}}
  links: [{from: gpu*, to: host, kind: pcie, gen: 4}]
"""
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="only hosts have a CPU"):
        load_profile(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text.replace("2, cpu: amd", "2"), encoding="utf-8")
    assert load_profile(tmp_path / "mine.yaml").topology.cpu is AMD


def test_the_slow_box_keeps_what_was_measured_on_it_and_the_card_is_in_a_box_as_others_are() -> None:
    question = {"op": "all_reduce", "bytes": 2**28}
    for num_devices, published_s in ((2, 13.4e-3), (4, 78.4e-3)):
        slow = predict_op("l40s-x8-slow-host", question | {"num_devices": num_devices})
        assert slow == pytest.approx(published_s, rel=0.05)
    pair = predict_op("l40s-x8", question | {"num_devices": 2})
    assert pair == pytest.approx(13.4e-3, rel=0.05)
    assert predict_op("l40s-x8", question | {"num_devices": 4}) < 0.5 * 78.4e-3


class TestSwitchesThatAddWithoutPeerAccess:
    """NCCL_P2P_DISABLE takes rings to host memory, and leaves NVLS where the NVSwitch adds."""

    def seconds(self, num_bytes: int, num_devices: int = 8, hardware: str = "h100-sxm-x8", **options: Any) -> float:
        return predict_op(hardware, {"op": "all_reduce", "bytes": num_bytes, "num_devices": num_devices, **options})

    def test_large_all_reduces_of_eight_hopper_gpus_stay_on_the_switch(self) -> None:
        assert self.seconds(64 * MIB, transport="shm") == self.seconds(64 * MIB, algorithm="nvls")
        assert self.seconds(64 * MIB, transport="shm", algorithm="ring") > 5 * self.seconds(64 * MIB)

    def test_small_ones_go_through_host_memory(self) -> None:
        assert self.seconds(8192, transport="shm") == self.seconds(8192, transport="shm", algorithm="ring")
        assert self.seconds(8192, transport="shm") > self.seconds(8192)

    @pytest.mark.parametrize(
        ("hardware", "num_devices", "options"),
        [("a100-sxm4-80gb-x8", 8, {}), ("h100-sxm-x8", 2, {"version": "2.27"}), ("h200-sxm-x2", 2, {})],
    )
    def test_without_nvls_all_go_through_host_memory(
        self, hardware: str, num_devices: int, options: dict[str, Any]
    ) -> None:
        """A100 has none, two GPUs had none before 2.28, and on these two H200 it is off."""
        asked = {"hardware": hardware, "num_devices": num_devices, "transport": "shm", **options}
        assert self.seconds(64 * MIB, **asked) == self.seconds(64 * MIB, **asked, algorithm="ring")

    def test_gathers_have_no_nvls(self) -> None:
        spec = {"op": "all_gather", "bytes": 64 * MIB, "num_devices": 8}
        assert predict_op("h100-sxm-x8", {**spec, "transport": "shm"}) > 5 * predict_op("h100-sxm-x8", spec)

    def test_the_bytes_cross_the_switch(self) -> None:
        spec = {"op": "all_reduce", "bytes": 64 * MIB, "num_devices": 8, "transport": "shm"}
        kinds = {link.kind for link in link_traffic("h100-sxm-x8", spec)}
        assert kinds == {LinkKind.NVLINK}
