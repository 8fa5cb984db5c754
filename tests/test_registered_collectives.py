"""Collectives over registered buffers: NCCL's symmetric-memory kernels and its copies by copy engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import link_traffic, predict_op, simulate
from kraken_sim.costs.collectives.copy_engines import COPY_SHARE
from kraken_sim.errors import InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.standalone.collective_table import sweep_collective
from kraken_sim.standalone.one_op import collective_cost_on, collective_spec

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost

MIB = 2**20
H100 = load_profile("h100-sxm-x8")


def cost(
    num_bytes: int,
    num_devices: int = 8,
    op: str = "all_reduce",
    hardware: str = "h100-sxm-x8",
    **options: Any,
) -> CollectiveCost:
    spec = {"op": op, "bytes": num_bytes, "num_devices": num_devices, "algorithm": "symmetric", **options}
    return collective_cost_on(load_profile(hardware), collective_spec(spec))


class TestSymmetric:
    @pytest.mark.parametrize(
        ("num_bytes", "num_devices", "kernel", "ctas"),
        [
            (8192, 8, "AllReduce_AGxLL_R", 6),
            (16 * MIB, 8, "AllReduce_RSxLDMC_AGxSTMC", 2),
            (16 * MIB, 4, "AllReduce_RSxLDMC_AGxSTMC", 3),
            (16 * MIB, 2, "AllReduce_RSxLD_AGxST", 7),
        ],
    )
    def test_nccl_runs_few_ctas_and_the_switch_from_three_gpus_on(
        self, num_bytes: int, num_devices: int, kernel: str, ctas: int
    ) -> None:
        """By queryModel_lsa: 16 CTAs over all ranks with a switch, else the fewest within 2.5 % of 64."""
        found = cost(num_bytes, num_devices)
        assert kernel in found.detail
        assert found.channels == ctas

    def test_small_messages_take_what_nccl_believes(self) -> None:
        """8 KiB: 4.5 us and ln(1 + e^(x - 1)) us, x = 9 x 8 x 8192 bytes over 320 x 1073.7 bytes/us."""
        assert cost(8192).busy_s == pytest.approx(5.72e-6, rel=0.01)
        assert cost(8192, hardware="b200-sxm-x8").busy_s > 11e-6

    def test_large_messages_move_no_faster_than_multimem_does(self) -> None:
        share = H100.collectives.custom_link_efficiency["multimem"]
        assert cost(2**30).transfer_s == pytest.approx(9 / 8 * 2**30 / (450e9 * share))

    @pytest.mark.parametrize(("op", "kernel"), [("all_gather", "AllGather_ST"), ("reduce_scatter", "ReduceScatter_LD")])
    def test_a_gather_moves_each_ranks_share_to_all_others(self, op: str, kernel: str) -> None:
        found = cost(64 * MIB, 2, op)
        assert kernel in found.detail
        assert found.link_bytes == pytest.approx(32 * MIB)

    def test_without_a_switch_that_adds_none_is_used(self) -> None:
        assert "MC" not in cost(16 * MIB, hardware="a100-sxm4-80gb-x8").detail

    def test_fewer_channels_are_slower_and_never_exceeded(self) -> None:
        limited = cost(16 * MIB, 2, channels=2)
        assert limited.channels == 2
        assert limited.busy_s > cost(16 * MIB, 2).busy_s


class TestCopyEngines:
    def test_no_sm_is_held_and_the_links_are_filled(self) -> None:
        found = cost(2**30, 8, "all_gather", algorithm="copy_engine")
        assert found.channels == 0
        assert found.transfer_s == pytest.approx(7 / 8 * 2**30 / (450e9 * COPY_SHARE["nvlink"]))

    def test_an_all_reduce_sends_whole_messages_and_adds_them(self) -> None:
        """Seven messages over the links, then eight read from HBM and one written."""
        found = cost(2**26, 8, algorithm="copy_engine")
        assert found.link_bytes == 7 * 2**26
        copied = 7 * 2**26 / (450e9 * COPY_SHARE["nvlink"])
        assert found.transfer_s - copied == pytest.approx(9 * 2**26 / (0.8 * 3.35e12))

    @pytest.mark.parametrize(("op", "each"), [("all_gather", 7 / 8), ("all_to_all", 7 / 8), ("all_reduce", 7.0)])
    def test_every_gpu_sends_to_all_others(self, op: str, each: float) -> None:
        spec = {"op": op, "bytes": 8000, "num_devices": 8, "algorithm": "copy_engine"}
        sent = [amount for link, amount in link_traffic(H100, spec).items() if link.source.startswith("gpu")]
        assert sent == [pytest.approx(each * 8000)] * 8


@pytest.mark.parametrize(
    ("hardware", "options", "word"),
    [
        ("h100-sxm-x8", {"version": "2.26"}, "NCCL 2.26 has no symmetric (2.27 and later do)"),
        (
            "h100-sxm-x8",
            {"version": "2.27", "algorithm": "copy_engine"},
            'for example version: "2.28", or algorithm: ring',
        ),
        ("l40s-x8", {}, "joined by pcie"),
        ("rtx5090-x8", {"algorithm": "copy_engine", "version": "2.28"}, "meet in host memory"),
        ("h100-sxm-2x8", {"num_devices": 16}, "one node"),
        ("h100-sxm-x8", {"op": "broadcast"}, "symmetric is for all_gather, all_reduce, reduce_scatter"),
    ],
)
def test_where_they_cannot_run_they_say_so(hardware: str, options: dict[str, Any], word: str) -> None:
    spec = {"op": "all_reduce", "bytes": MIB, "num_devices": 8, "algorithm": "symmetric", **options}
    with pytest.raises(InputError) as caught:
        predict_op(hardware, spec)
    assert word in str(caught.value)


def test_an_overlapped_all_reduce_without_sms_leaves_them_to_the_compute() -> None:
    """One layer of Kraken on two H100: what the overlap costs its compute falls with the SMs that are held."""

    def compute_slowdown(algorithm: str | None) -> float:
        collective = {"algorithm": algorithm} if algorithm else {}
        found = simulate(
            {
                "hardware": "h100-sxm-x8",
                "model": {"preset": "6.7B"},
                "architecture": {"kind": "kraken"},
                "num_devices": 2,
                "context_length": 2048,
                "runtime": {"collective": collective},
            }
        )
        assert found.ttft_s is not None
        return found.overlap_cost.compute_slowdown_s / found.ttft_s

    assert compute_slowdown("symmetric") < 0.7 * compute_slowdown(None)


def test_their_constants_are_called_unmeasured() -> None:
    for algorithm in ("symmetric", "copy_engine"):
        spec = collective_spec({"op": "all_reduce", "bytes": 8, "num_devices": 8, "algorithm": algorithm})
        (text,) = sweep_collective(H100, spec, [MIB], "float").unmeasured
        assert text.startswith(algorithm)
