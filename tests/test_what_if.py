"""What-ifs: links of another bandwidth, blocks of constants that err, and what they do to a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from explore_support import asked
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.graph import LinkKind
from kraken_sim.predict.metrics import totals
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import (
    KERNEL_BLOCKS,
    PERTURBED_BLOCKS,
    gpu_bandwidth_bytes_per_s,
    gpu_link_kinds,
    with_bandwidth_factor,
    with_time_factor,
)

if TYPE_CHECKING:
    from kraken_sim.profiles.profile import HardwareProfile

H200, H100, L40S = (load_profile(name) for name in ("h200-sxm-x2", "h100-sxm-x8", "l40s-x8"))
RING: dict[str, Any] = {"collective": {"algorithm": "ring", "protocol": "simple", "channels": 8}}


def standard(**changes: Any) -> Any:
    return asked(architecture={"kind": "standard"}, **changes)


@pytest.mark.parametrize("block", KERNEL_BLOCKS)
def test_a_block_that_errs_moves_a_serial_step_by_its_share(block: str) -> None:
    # A standard layer overlaps nothing, so the step is a sum: one block 10 % slower adds 10 % of its seconds.
    # The machine has no power model, whose clock would answer to the load.
    scenario = standard(hardware="a100-sxm4-80gb-x8", num_devices=4)
    profile = load_profile(scenario.hardware)
    before = simulate(scenario, profile=profile)
    after = simulate(scenario, profile=with_time_factor(profile, block, 1.1))
    gained = after.latency_s - before.latency_s
    assert gained == pytest.approx(0.1 * totals(before.timeline).blocks_s[block], rel=1e-3)


def test_launch_and_contention_are_scaled_where_they_act() -> None:
    blocking = asked(runtime={"overlap": False})
    assert (
        simulate(blocking, profile=with_time_factor(H200, "contention", 2.0)).latency_s == simulate(blocking).latency_s
    )
    assert simulate(asked(), profile=with_time_factor(H200, "contention", 2.0)).latency_s > simulate(asked()).latency_s
    assert simulate(blocking, profile=with_time_factor(H200, "launch", 2.0)).latency_s > simulate(blocking).latency_s


@pytest.mark.parametrize("block", PERTURBED_BLOCKS)
def test_factors_undo_each_other_and_never_touch_the_profile(block: str) -> None:
    twice = with_time_factor(with_time_factor(H200, block, 2.0), block, 0.5)
    assert simulate(asked(), profile=twice).latency_s == pytest.approx(
        simulate(asked(), profile=H200).latency_s, rel=1e-9
    )
    assert not H200.time_factors


@pytest.mark.parametrize(("block", "factor"), [("gemms", 1.0), ("gemm", 0.0), ("gemm", float("nan"))])
def test_a_wrong_block_or_factor_is_refused(block: str, factor: float) -> None:
    with pytest.raises(ValueError, match="positive factor"):
        with_time_factor(H200, block, factor)


def test_only_the_links_between_gpus_are_scaled() -> None:
    assert gpu_link_kinds(H100) == {LinkKind.NVLINK}
    assert gpu_link_kinds(L40S) == {LinkKind.PCIE, LinkKind.SOCKET}
    nodes = load_profile("h100-sxm-2x8")
    rate = gpu_bandwidth_bytes_per_s(nodes, 16)
    assert gpu_bandwidth_bytes_per_s(with_bandwidth_factor(nodes, 0.5), 16) == pytest.approx(0.5 * rate)
    halved = with_bandwidth_factor(H100, 0.5)
    for before, after in zip(H100.topology.links, halved.topology.links, strict=True):
        factor = 0.5 if before.kind is LinkKind.NVLINK else 1.0
        assert after.bandwidth_bytes_per_s == factor * before.bandwidth_bytes_per_s
    assert gpu_bandwidth_bytes_per_s(halved, 8) == 0.5 * gpu_bandwidth_bytes_per_s(H100, 8)
    assert gpu_bandwidth_bytes_per_s(H100, 1) == 0.0
    with pytest.raises(InputError, match="bandwidth_factor"):
        with_bandwidth_factor(H100, -1.0)


@settings(max_examples=25, deadline=None)
@given(
    low=st.floats(0.02, 4.0),
    high=st.floats(0.02, 4.0),
    kind=st.sampled_from(["standard", "parallel"]),
    profile=st.sampled_from([H100, L40S]),
    tokens=st.sampled_from([64, 512, 2048]),
)
def test_more_bandwidth_never_makes_a_machine_slower_while_nccl_does_the_same(
    low: float, high: float, kind: str, profile: HardwareProfile, tokens: int
) -> None:
    # NCCL itself may pick a worse algorithm or more channels on faster links, so its choice is held fixed.
    scenario = asked(
        hardware=profile.name,
        model={"preset": "1.3B"},
        architecture={"kind": kind},
        num_devices=8,
        context_length=tokens,
        runtime=RING,
    )
    slow, fast = (with_bandwidth_factor(profile, factor) for factor in sorted((low, high)))
    assert simulate(scenario, profile=fast).latency_s <= simulate(scenario, profile=slow).latency_s * (1.0 + 1e-9)
