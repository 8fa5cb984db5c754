"""Collectives other than AllReduce in a program: what they cost, who shares their links, what runs beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_sim import predict_op, simulate
from kraken_sim.architectures.builder import ProgramBuilder
from kraken_sim.architectures.workload import Workload
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.engine.simulation import run
from kraken_sim.models.layout import tensor_parallel
from kraken_sim.models.presets import preset
from kraken_sim.predict.pipeline import engine_machine
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Collective, CollectiveKind, DType
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Program, Segment
from kraken_sim.report.trace import message_bytes, nccl_kernel, write_traces

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.engine.timeline import Span, Timeline
    from kraken_sim.profiles.profile import HardwareProfile

MIB = 2**20
AR, AG, RS, A2A, BC, P2P = CollectiveKind
H100 = load_profile("h100-sxm-x8")
L40S = load_profile("l40s-x8-slow-host")


def priced(profile: HardwareProfile, num_devices: int, policy: CollectivePolicy | None = None) -> Pricing:
    return Pricing(profile, policy or CollectivePolicy(), num_devices=num_devices)


def program(build: ProgramBuilder, num_devices: int, repeat: int = 3) -> Program:
    return Program("test", num_devices, (Segment("layer", build.take(), repeat),))


def timeline(profile: HardwareProfile, asked: Program, *, eager: bool = False, exact: bool = False) -> Timeline:
    """The folded timeline, or every rank of every repetition."""
    return run(asked, engine_machine(profile, priced(profile, asked.num_devices)), eager=eager, exact=exact)


def builder(num_devices: int = 4, tokens: int = 2048) -> ProgramBuilder:
    config = preset("6.7B")
    return ProgramBuilder(config, tensor_parallel(config, num_devices), Workload(1, tokens))


def first_rank(found: Timeline) -> list[Span]:
    return [span for span in found.spans if span.rank == 0]


def gather_and_scatter(num_bytes: int, num_devices: int) -> ProgramBuilder:
    """What sequence parallelism does around a layer's GEMM."""
    build = builder(num_devices)
    build.collective("gather", AG, num_bytes, num_devices)
    build.gemm("gemm", 4096, 4096)
    build.collective("scatter", RS, num_bytes, num_devices)
    return build


def gather_beside_gemms(num_bytes: int, num_devices: int) -> ProgramBuilder:
    build = builder(num_devices)
    build.norm("norm")
    build.record("fork", MAIN_STREAM)
    build.wait("fork", COMM_STREAM)
    build.collective("gather", AG, num_bytes, num_devices, COMM_STREAM)
    build.record("join", COMM_STREAM)
    for number in range(3):
        build.gemm(f"gemm_{number}", 4096, 4096)
    build.wait("join", MAIN_STREAM, Category.OVERLAPPED_GEMM)
    return build


def sends(num_bytes: int, num_devices: int) -> ProgramBuilder:
    """A stage hands its activation on."""
    build = builder(num_devices)
    build.gemm("gemm", 4096, 4096)
    build.collective("send", P2P, num_bytes, num_devices)
    return build


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_an_all_gather_and_a_reduce_scatter_send_what_a_rings_halves_send(num_devices: int) -> None:
    """(n-1)/n of the bytes each, as an AllReduce by ring sends twice that, and neither beats the line rate."""
    pricing, size = priced(H100, num_devices), 256 * MIB
    asked = program(gather_and_scatter(size, num_devices), num_devices, repeat=1)
    spans = [span for span in first_rank(timeline(H100, asked)) if isinstance(span.op, Collective)]
    ring = priced(H100, num_devices, CollectivePolicy(algorithm="ring")).collective(Collective(AR, size, num_devices))
    costs = [pricing.collective(span.op) for span in spans if isinstance(span.op, Collective)]
    assert [cost.link_bytes for cost in costs] == [pytest.approx((num_devices - 1) / num_devices * size)] * 2
    assert sum(cost.link_bytes for cost in costs) == pytest.approx(ring.link_bytes)
    line = H100.topology.interconnect(num_devices).bandwidth_bytes_per_s
    efficiency = H100.collectives.link_efficiency["nvlink"]["simple"]
    for span, cost in zip(spans, costs, strict=True):
        assert span.duration_s == pytest.approx(cost.busy_s, abs=1e-11)
        assert cost.link_bytes / line < cost.transfer_s < 2.0 * cost.link_bytes / (line * efficiency)


def test_they_are_charged_as_communication_and_price_as_predict_op_says() -> None:
    asked = program(gather_and_scatter(MIB, 4), 4, repeat=1)
    gap_s = H100.launch.graph_node_gap_s
    for span in first_rank(timeline(H100, asked)):
        if isinstance(span.op, Collective):
            assert span.category is Category.ALL_REDUCE
            question = {"op": span.op.kind.value, "bytes": MIB, "num_devices": 4}
            assert span.duration_s == pytest.approx(predict_op(H100, question) - gap_s, abs=1e-11)


class TestPointToPoint:
    def test_two_gpus_that_exchange_do_what_an_all_to_all_of_twice_as_much_does(self) -> None:
        """Of an AllToAll between two, each keeps half of its bytes and sends the other half."""
        for power in range(3, 27):
            pricing = priced(H100, 2)
            send, both = (
                pricing.collective(Collective(P2P, 2**power, 2)),
                pricing.collective(Collective(A2A, 2 ** (power + 1), 2)),
            )
            assert send.busy_s == pytest.approx(both.busy_s)
            assert send.link_bytes == 2**power

    def test_large_messages_take_the_share_of_the_line_that_sends_reach_however_many_send(self) -> None:
        """On NVSwitch every GPU has its own way in and out."""
        pair, all_eight = (priced(H100, n).collective(Collective(P2P, 2**30, n)) for n in (2, 8))
        line = H100.topology.interconnect(2).bandwidth_bytes_per_s
        assert all_eight.transfer_s == pytest.approx(pair.transfer_s, rel=0.05)
        assert 0.5 * line < pair.link_bytes / pair.transfer_s < line

    def test_the_slowest_way_to_the_next_rank_sets_the_pace(self) -> None:
        """On a DGX-1 GPUs 0 and 1 have one link and 0 and 3 two; 0 and 5 have none, so PCIe carries it."""
        topology = load_profile("v100-dgx1-x8").topology

        def line(*gpus: str) -> float:
            return interconnect_of(topology, gpus, P2P).bandwidth_bytes_per_s

        assert line("gpu0", "gpu1") == 25e9
        assert line("gpu0", "gpu3") == 50e9
        assert line("gpu0", "gpu3", "gpu2", "gpu1") == 25e9
        assert line("gpu0", "gpu5") < 25e9

    def test_the_order_of_the_ranks_counts_and_not_that_of_a_good_ring(self) -> None:
        """From socket to socket at every hop, four sends each way share the link between the sockets."""
        orders = (("gpu0", "gpu1", "gpu4", "gpu5"), ("gpu0", "gpu4", "gpu1", "gpu5"))
        near, far = (interconnect_of(L40S.topology, gpus, P2P).bandwidth_bytes_per_s for gpus in orders)
        assert far == pytest.approx(min(near, 0.5 * socket_bytes_per_s()))
        ring = [interconnect_of(L40S.topology, gpus, AG).bandwidth_bytes_per_s for gpus in orders]
        assert ring[0] == ring[1]

    def test_between_nodes_the_last_rank_of_each_goes_through_its_own_nic(self) -> None:
        profile = load_profile("h100-sxm-2x8")
        cost = priced(profile, 16).collective(Collective(P2P, 2**30, 16))
        efficiency = profile.collectives.link_efficiency["network"]["simple"]
        nic = interconnect_of(profile.topology, profile.topology.group(16), P2P).bandwidth_bytes_per_s
        assert cost.transfer_s == pytest.approx(2**30 / (nic * efficiency))
        assert nic == pytest.approx(profile.topology.interconnect(16).bandwidth_bytes_per_s / 8)

    def test_a_message_is_cut_into_more_channels_only_when_its_parts_are_large(self) -> None:
        pricing = priced(H100, 8)
        channels = [pricing.collective(Collective(P2P, size, 8)).channels for size in (1024, MIB, 2**29)]
        assert channels[0] == 1
        assert channels == sorted(channels)
        assert channels[2] > channels[1]


def socket_bytes_per_s() -> float:
    return next(link.total_bytes_per_s for link in L40S.topology.links if link.kind.value == "socket")


@pytest.mark.parametrize("kind", [AG, RS, A2A, P2P])
def test_groups_that_meet_on_the_link_between_sockets_slow_each_other(kind: CollectiveKind) -> None:
    """Four groups of two, each across the sockets of an L40S box, against one such group alone."""
    one = priced(L40S, 2).collective(Collective(kind, 64 * MIB, 2))
    across = replace(L40S, topology=L40S.topology.with_ranks_on((0, 4)))
    alone = priced(across, 2).collective(Collective(kind, 64 * MIB, 2))
    four = priced(L40S, 8).collective(Collective(kind, 64 * MIB, 2, stride=4))
    assert "4 groups share links" in four.detail
    assert four.transfer_s > 1.5 * alone.transfer_s > one.transfer_s


def test_groups_on_nvswitch_have_links_of_their_own() -> None:
    for kind in (AG, RS, P2P):
        alone, together = (priced(H100, n).collective(Collective(kind, 64 * MIB, 4)) for n in (4, 8))
        assert together == alone


def test_different_collectives_under_way_at_once_share_links() -> None:
    pricing = priced(L40S, 8)
    gather, send = Collective(AG, 64 * MIB, 8), Collective(P2P, 64 * MIB, 2, stride=4)
    speeds = pricing.link_speeds(frozenset((gather, send)))
    assert set(speeds) == {gather, send}
    assert min(speeds.values()) < 1.0


def test_a_gather_beside_gemms_costs_less_than_one_after_the_other_and_more_than_the_longer() -> None:
    size = 64 * MIB
    beside = timeline(H100, program(gather_beside_gemms(size, 4), 4, repeat=1))
    gather = next(span for span in first_rank(beside) if span.name == "gather")
    gemms = [span for span in first_rank(beside) if span.name.startswith("gemm_")]
    alone_s = sum(span.alone_s for span in gemms)
    assert gather.stream == COMM_STREAM
    assert sum(span.duration_s for span in gemms) > alone_s  # its channels hold SMs
    assert max(gather.alone_s, alone_s) < gemms[-1].end_s - gather.start_s < gather.alone_s + alone_s
    assert gather.end_s > gemms[0].start_s


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("build", [gather_and_scatter, gather_beside_gemms, sends])
@settings(max_examples=8, deadline=None)
@given(power=st.integers(8, 26), num_devices=st.sampled_from([2, 4]), repeat=st.integers(1, 6))
def test_folded_is_what_every_rank_and_layer_would_do(
    build: object, eager: bool, power: int, num_devices: int, repeat: int
) -> None:
    assert callable(build)
    asked = program(build(2**power, num_devices), num_devices, repeat)
    folded, full = (timeline(H100, asked, eager=eager, exact=exact) for exact in (False, True))
    assert {span.rank for span in full.spans} == set(range(num_devices))
    assert folded.duration_s == pytest.approx(full.duration_s, rel=1e-9)
    ends = [[span.end_s for span in first_rank(found)] for found in (folded, full)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)


def test_one_device_communicates_with_nobody() -> None:
    build = builder(1)
    for kind in CollectiveKind:
        build.collective("nothing", kind, MIB, 1)
    assert build.take() == ()


def test_an_all_reduces_policy_leaves_the_other_collectives_to_nccl() -> None:
    """A scenario forces an algorithm of AllReduce or asks for custom kernels, which only it has."""
    gather, send = Collective(AG, MIB, 4), Collective(P2P, MIB, 4)
    plain = priced(H100, 4)
    for policy in (CollectivePolicy(algorithm="tree"), CollectivePolicy(Library.CUSTOM, algorithm="one_shot")):
        assert priced(H100, 4, policy).collective(gather) == plain.collective(gather)
    ll128 = priced(H100, 4, CollectivePolicy(protocol="ll128"))
    assert ll128.collective(gather).protocol == "ll128"
    assert ll128.collective(send) == plain.collective(send)


class TestTrace:
    @pytest.mark.parametrize(
        ("kind", "algorithm", "dtype", "name"),
        [
            (AR, "ring", DType.FLOAT16, "ncclDevKernel_AllReduce_Sum_f16_RING_LL"),
            (AR, "tree", DType.BFLOAT16, "ncclDevKernel_AllReduce_Sum_bf16_TREE_LL"),
            (AR, "nvls", DType.FLOAT32, "ncclDevKernel_AllReduce_Sum_f32_RING_LL"),
            (AG, "ring", DType.FLOAT16, "ncclDevKernel_AllGather_RING_LL"),
            (RS, "ring", DType.FLOAT16, "ncclDevKernel_ReduceScatter_Sum_f16_RING_LL"),
            (BC, "ring", DType.FLOAT16, "ncclDevKernel_Broadcast_RING_LL"),
            (A2A, "send_recv", DType.FLOAT16, "ncclDevKernel_SendRecv"),
            (P2P, "send_recv", DType.FLOAT16, "ncclDevKernel_SendRecv"),
        ],
    )
    def test_kernels_have_nccls_names(self, kind: CollectiveKind, algorithm: str, dtype: DType, name: str) -> None:
        assert nccl_kernel(kind, algorithm, dtype) == name

    @pytest.mark.parametrize(
        ("kind", "expected"), [(AR, (64, 64)), (AG, (16, 64)), (RS, (64, 16)), (A2A, (64, 64)), (P2P, (64, 64))]
    )
    def test_the_larger_buffer_is_the_ops_bytes(self, kind: CollectiveKind, expected: tuple[int, int]) -> None:
        assert message_bytes(Collective(kind, 64, 4)) == expected

    def test_a_written_trace_says_kernel_group_and_elements(self, tmp_path: Path) -> None:
        """Eight tokens of a 1.3B model."""
        scenario = {"hardware": "h100-sxm-x8", "model": {"preset": "1.3B"}, "context_length": 8, "dtype": "bfloat16"}
        prediction = simulate(scenario)
        file, *_ = write_traces(prediction, tmp_path)
        events = json.loads(file.read_text())["traceEvents"]
        found = next(event for event in events if event["name"].startswith("nccl"))
        assert found["name"].startswith("ncclDevKernel_AllReduce_Sum_bf16_")
        assert found["args"]["Group size"] == 8
        assert found["args"]["In msg nelems"] == 8 * prediction.resolved.config.hidden_size
        custom = scenario | {"runtime": {"collective": {"library": "custom", "algorithm": "one_shot"}}}
        file, *_ = write_traces(simulate(custom), tmp_path)
        assert "vllm::cross_device_reduce_1stage (" in file.read_text()
