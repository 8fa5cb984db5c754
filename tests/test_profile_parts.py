from __future__ import annotations

import dataclasses
from collections.abc import Mapping  # noqa: TC003  (read_fields looks the types up)
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.hardware.topology.graph import LinkKind, NodeKind
from kraken_sim.profiles.blocks import Reading, read_fields, required_fields
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.topology_file import TopologyFile, build_topology
from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from kraken_sim.hardware.topology.topology import Topology

SOURCE = Provenance(ProvenanceKind.FITTED, "a test")


@dataclasses.dataclass(frozen=True, slots=True)
class Constants:
    launch_s: float
    rate_bytes_per_s: float
    max_ctas: int
    kernel: str
    tile_efficiency: Mapping[str, float]
    base_s: Mapping[str, Mapping[str, float]]
    peak_flops: Mapping[DType, float]
    kernels: Mapping[str, Mapping[str, float]]
    scale: float = 1.0


GOOD: dict[str, Any] = {
    "launch_s": "2.7 us",
    "rate_bytes_per_s": "20 GB/s",
    "max_ctas": 24,
    "kernel": "nvjet",
    "tile_efficiency": {"256x128": 0.85, "128x128": 1},
    "base_s": {"nvlink": {"ll": "4 us"}, "pcie": {"ll": "6 us"}},
    "peak_flops": {"float16": "989 TFLOP/s"},
    "kernels": {"norm": {"launch_s": "2 us", "ctas_per_sm": 8}},
}


# Blocks ---------------------------------------------------------------------------------------------------


def test_fields_are_read_by_the_units_their_names_say() -> None:
    reading = Reading()
    constants = Constants(**read_fields(Constants, GOOD, "block.values", reading, SOURCE))
    assert not reading.problems
    assert constants.launch_s == 2.7e-6
    assert constants.rate_bytes_per_s == 20e9
    assert constants.max_ctas == 24
    assert isinstance(constants.max_ctas, int)
    assert constants.base_s["pcie"]["ll"] == 6e-6
    assert constants.peak_flops[DType.FLOAT16] == 989e12
    assert constants.kernels == {"norm": {"launch_s": 2e-6, "ctas_per_sm": 8}}
    assert constants.scale == 1.0
    assert reading.provenance["block.tile_efficiency.256x128"] is SOURCE


def test_one_value_of_a_block_may_have_its_own_source() -> None:
    reading = Reading()
    own = {"value": "3 us", "kind": "measured", "source": "a bench"}
    fields = read_fields(Constants, GOOD | {"launch_s": own}, "block.values", reading, SOURCE)
    assert fields["launch_s"] == 3e-6
    assert reading.provenance["block.launch_s"] == Provenance(ProvenanceKind.MEASURED, "a bench")
    assert reading.provenance["block.rate_bytes_per_s"] is SOURCE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"launch_s": 2.7e-6}, "block.launch_s: a time needs a number and a unit"),
        ({"launch_s": "-1 us"}, "block.launch_s: a time must not be negative"),
        ({"launch_s": None}, "block.launch_s: must be a value, not null"),
        ({"max_ctas": 2.5}, "block.max_ctas: must be a whole number"),
        ({"max_ctas": True}, "block.max_ctas: must be a plain number"),
        ({"kernel": 3}, "block.kernel: must be text"),
        ({"tile_efficiency": 0.7}, "block.tile_efficiency: must be a mapping"),
        ({"tile_efficiency": {"256x128": "fast"}}, "block.tile_efficiency.256x128: must be a plain number"),
        ({"kernels": {"norm": {"launch_s": 2e-6}}}, "block.kernels.norm.launch_s: a time needs a number and a unit"),
        ({"base_s": {"nvlink": {"ll": 4e-6}}}, "block.base_s.nvlink.ll: a time needs a number and a unit"),
        ({"peak_flops": {"float61": "1 TFLOP/s"}}, "did you mean 'float16'"),
        ({"lanch_s": "1 us"}, "did you mean 'launch_s'"),
        ({"launch_s": {"value": "1 us"}}, "block.launch_s.source: must say where the value is from"),
        ({"launch_s": {"value": "1 us", "kind": "measurd", "source": "x"}}, "did you mean 'measured'"),
    ],
)
def test_wrong_value_is_reported_with_its_path(change: dict[str, Any], expected: str) -> None:
    reading = Reading()
    read_fields(Constants, GOOD | change, "block", reading, SOURCE)
    assert any(expected in str(problem) for problem in reading.problems)


def test_all_missing_fields_are_reported_at_once_with_examples() -> None:
    reading = Reading()
    read_fields(Constants, {}, "block", reading, SOURCE)
    assert {problem.path for problem in reading.problems} == {f"block.{n}" for n in required_fields(Constants)}
    assert all(problem.example for problem in reading.problems)


# Topology files -------------------------------------------------------------------------------------------

BOX: dict[str, Any] = {
    "kind": "datasheet",
    "source": "a test",
    "nodes": {
        "gpu": {"kind": "gpu", "count": 4},
        "host": {"kind": "host", "count": 2},
    },
    "links": [
        {"from": "gpu*", "to": "host*", "match": "blocks", "kind": "pcie", "gen": 4,
         "bandwidth": "31.5 GB/s", "latency": "0.5 us"},
        {"from": "host0", "to": "host1", "kind": "socket", "bandwidth": "96 GB/s", "latency": "0.2 us"},
    ],
}  # fmt: skip
NVLINK = {"from": "gpu0", "to": "gpu1", "kind": "nvlink", "bandwidth": "25 GB/s", "latency": "0.3 us"}


def build(data: dict[str, Any]) -> tuple[Topology | None, list[str]]:
    reading = Reading()
    topology = build_topology(TopologyFile.model_validate(data), reading)
    return topology, [str(problem) for problem in reading.problems]


def with_link(**change: object) -> dict[str, Any]:
    return BOX | {"links": [*BOX["links"], NVLINK | change]}


def test_blocks_put_gpus_below_sockets_in_order() -> None:
    topology, problems = build(BOX)
    assert not problems
    assert topology is not None
    assert [(link.a, link.b) for link in topology.links[:4]] == [
        ("gpu0", "host0"), ("gpu1", "host0"), ("gpu2", "host1"), ("gpu3", "host1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "pairs"),
    [
        ({"from": "gpu*", "to": "gpu*"}, {"01", "02", "03", "12", "13", "23"}),
        ({"from": "gpu{0..1}", "to": "gpu{2..3}", "match": "pairs"}, {"02", "13"}),
        ({"from": "gpu[01]", "to": "gpu2,gpu3"}, {"02", "03", "12", "13"}),
        ({"from": "gpu0", "to": "gpu?"}, {"01", "02", "03"}),
    ],
)
def test_patterns_name_links(change: dict[str, str], pairs: set[str]) -> None:
    topology, problems = build(with_link(**change))
    assert not problems
    assert topology is not None
    found = {link.a[3:] + link.b[3:] for link in topology.links if link.kind is LinkKind.NVLINK}
    assert found == pairs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"to": "gpo1"}, "topology.links.2.to: no such node (got 'gpo1'); did you mean 'gpu1'?"),
        ({"to": "gpu9*"}, "topology.links.2.to: no such node"),
        ({"to": "gpu0"}, "topology.links.2: a link joins two different nodes"),
        ({"to": "host0"}, "topology.links.2: a nvlink link joins gpu and nvswitch, not a host"),
        ({"bandwidth": "0 GB/s"}, "topology.links.2.bandwidth: must be more than zero; plausible is 1 MB/s to 1 PB/s"),
        ({"bandwidth": "25 GB"}, "topology.links.2.bandwidth: GB is a unit of amount of data"),
        ({"latency": 3}, "topology.links.2.latency: a time needs a number and a unit"),
        ({"gen": 4}, "topology.links.2.gen: only PCIe links have a generation"),
        ({"kind": "pcie", "to": "host1"}, "topology.links.2.gen: is required for a PCIe link"),
        ({"kind": "pcie", "to": "host1", "gen": 4}, "topology.links.2: gpu0 - host1 (pcie): closes a cycle"),
        ({"from": "gpu*", "to": "gpu{0..2}", "match": "pairs"}, "pairs need equal numbers of nodes, not 4 and 3"),
        ({"from": "gpu*", "to": "gpu{0..2}", "match": "blocks"}, "4 nodes do not fall into 3 equal blocks"),
    ],
)
def test_wrong_link_is_reported_where_it_stands_in_the_file(change: dict[str, Any], expected: str) -> None:
    topology, problems = build(with_link(**change))
    assert topology is None
    assert any(problem.startswith(expected) or expected in problem for problem in problems)


def test_preset_is_the_machine_written_out() -> None:
    pcie = {"gen": 5, "bandwidth": "63 GB/s", "latency": "0.5 us"}
    preset = {
        "num_gpus": 8, "num_hosts": 2, "cpu": "sapphire_rapids", "pcie": pcie,
        "nvlink": {"count": 18, "bandwidth": "25 GB/s", "latency": "0.25 us"},
        "socket": {"count": 3, "bandwidth": "32 GB/s", "latency": "0.2 us"},
    }  # fmt: skip
    topology, problems = build({"kind": "datasheet", "source": "a test", "nvswitch_node": preset})
    assert not problems
    assert topology is not None
    for size in (2, 4, 8):
        for p2p in (True, False):
            shipped = load_profile("h100-sxm-x8").topology.interconnect(size, p2p=p2p)
            assert topology.interconnect(size, p2p=p2p) == shipped


def test_preset_without_its_switch_or_socket_says_so() -> None:
    preset = {"num_gpus": 8, "num_hosts": 2, "pcie": {"gen": 5, "bandwidth": "63 GB/s", "latency": "0.5 us"}}
    _, problems = build({"kind": "datasheet", "source": "a test", "nvswitch_node": preset})
    assert any(problem.startswith("topology.nvswitch_node.nvlink: is required") for problem in problems)
    assert any(problem.startswith("topology.nvswitch_node.socket: is required") for problem in problems)


def test_single_node_group_keeps_its_name() -> None:
    topology, _ = build(BOX | {"nodes": BOX["nodes"] | {"nvswitch": {"kind": "nvswitch"}},
                               "links": [*BOX["links"], NVLINK | {"from": "gpu*", "to": "nvswitch"}]})  # fmt: skip
    assert topology is not None
    assert topology.kinds["nvswitch"] is NodeKind.NVSWITCH
