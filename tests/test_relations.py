"""What must hold between two predictions, whatever the numbers: more work, more machine, and the honest exceptions.

The exceptions are switches that a library really makes, each named and bounded here. NCCL's tuning believes in what its
search of the links found and does not know that a limit on channels takes most of that away (`ncclTopoTuneModel` reads
the graphs, NCCL_MAX_NCHANNELS is applied to the communicator afterwards): so it stays with LL too long. Two H200 show
it: of one channel 1.5 MiB take 243 us and 1.75 MiB 102 us (validation/measurements).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kraken_sim import simulate
from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Transport
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.errors import KrakenSimError
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import with_time_factor
from kraken_sim.program.ops import Attention, CollectiveKind, DType
from kraken_sim.scenario.spec import scenario_from

if TYPE_CHECKING:
    from kraken_sim.costs.types import CollectiveCost
    from kraken_sim.profiles.profile import HardwareProfile

MEASURED = ("h200-sxm-x2", "h100-sxm-x8", "h200-sxm-x8", "a100-sxm4-80gb-x8", "l40s-x8")
SHIPPED = (*MEASURED, "a100-pcie-80gb-x4", "h100-pcie-x4", "b200-sxm-x8")
PROFILES = {name: load_profile(name) for name in SHIPPED}
ROUNDING = 1 + 1e-9
ALL_REDUCE = CollectiveKind.ALL_REDUCE

sizes = st.floats(4.0, 29.0).map(lambda power: 16 * int(2**power / 16) or 16)
limits = st.sampled_from([None, 1, 2, 4, 8, 16])
machines = st.sampled_from(MEASURED)


def group(profile: HardwareProfile, num_devices: int, *, p2p: bool = True) -> Any:
    topology = profile.topology
    return interconnect_of(topology, topology.group(min(num_devices, len(topology.gpus)), 1), ALL_REDUCE, p2p)


def all_reduce(
    profile: HardwareProfile, num_bytes: int, num_devices: int, *, bandwidth: float = 1.0, **policy: Any
) -> CollectiveCost:
    link = group(profile, num_devices, p2p=policy.get("transport") is not Transport.SHM)
    link = replace(link, bandwidth_bytes_per_s=bandwidth * link.bandwidth_bytes_per_s)
    return collective_cost(ALL_REDUCE, num_bytes, link, profile.device, profile.collectives, CollectivePolicy(**policy))


def switch(first: CollectiveCost, second: CollectiveCost) -> bool:
    return (first.algorithm, first.protocol) != (second.algorithm, second.protocol)


class TestAllReduce:
    @given(name=machines, num_bytes=sizes, more=st.floats(1.0, 64.0), channels=limits, n=st.sampled_from([2, 4, 8]))
    def test_more_bytes_take_longer_but_where_nccl_switches_late(
        self, name: str, num_bytes: int, more: float, channels: int | None, n: int
    ) -> None:
        few, many = (
            all_reduce(PROFILES[name], size, n, channels=channels) for size in (num_bytes, int(more * num_bytes))
        )
        if not switch(few, many):  # a further channel takes bytes off the others, half of them at most
            assert many.busy_s * ROUNDING >= few.busy_s - 0.5 * few.transfer_s * (many.channels > few.channels)
        # NCCL's own channels: the second one, and 9 % over PCIe, whose LL the profile has slower than NCCL believes.
        # Limited: 2.5 times, as measured on two H200 (2.4 from 1.5 to 1.75 MiB on one channel).
        assert many.busy_s >= few.busy_s * (0.7 if channels is None else 0.4)

    @given(name=machines, num_bytes=sizes, faster=st.floats(1.0, 8.0), channels=limits, n=st.sampled_from([2, 4, 8]))
    def test_faster_links_are_no_slower_but_where_nccl_switches_by_them(
        self, name: str, num_bytes: int, faster: float, channels: int | None, n: int
    ) -> None:
        profile = PROFILES[name]
        slow = all_reduce(profile, num_bytes, n, channels=channels)
        fast = all_reduce(profile, num_bytes, n, channels=channels, bandwidth=faster)
        if not switch(slow, fast) and fast.channels >= slow.channels:
            assert fast.busy_s <= slow.busy_s * ROUNDING
        # NCCL leaves LL earlier for Simple, which starts later, or NVLS for a tree that would need the channels.
        assert fast.busy_s <= slow.busy_s * (1.7 if channels is None else 3.5)

    @given(name=machines, num_bytes=sizes, few=st.integers(1, 64), more=st.integers(0, 64), n=st.sampled_from([2, 8]))
    def test_more_channels_are_never_slower(self, name: str, num_bytes: int, few: int, more: int, n: int) -> None:
        profile = PROFILES[name]
        limited, wider = (all_reduce(profile, num_bytes, n, channels=channels) for channels in (few, few + more))
        assert wider.busy_s <= limited.busy_s * ROUNDING
        assert (wider.algorithm, wider.protocol) == (limited.algorithm, limited.protocol)

    @given(name=st.sampled_from(SHIPPED), num_bytes=sizes, faster=st.floats(1.0, 16.0), n=st.sampled_from([2, 4, 8]))
    def test_no_link_is_fast_enough_for_more_channels_than_nccl_has(
        self, name: str, num_bytes: int, faster: float, n: int
    ) -> None:
        assert all_reduce(PROFILES[name], num_bytes, n, bandwidth=faster).channels <= 64

    @given(name=st.sampled_from(SHIPPED), num_bytes=sizes, n=st.sampled_from([2, 4, 8]))
    def test_host_memory_never_beats_what_the_gpus_have_between_them(self, name: str, num_bytes: int, n: int) -> None:
        profile = PROFILES[name]
        direct, staged = (all_reduce(profile, num_bytes, n, transport=way) for way in (Transport.AUTO, Transport.SHM))
        # NCCL may take a ring where the switch is faster, and without peers takes the switch. So it does on four B200
        # at 8 MiB: a ring in LL128 took 84.9 us, in LL at 4 MiB 35.8 (nccl-tests of ai-dynamo/aiconfigurator with NCCL
        # 2.27 and 2.29); here 83.8 and 33.9, and NVLS 73.
        assume(staged.algorithm != "nvls" or direct.algorithm == "nvls")
        assert staged.busy_s * ROUNDING >= direct.busy_s

    @given(name=machines, num_bytes=sizes, protocol=st.sampled_from(["ll", "ll128", "simple"]))
    def test_more_ranks_take_longer_over_the_same_protocol(self, name: str, num_bytes: int, protocol: str) -> None:
        profile = PROFILES[name]
        assume(len(profile.topology.gpus) >= 8 and not (protocol == "ll128" and name == "l40s-x8"))
        latencies = [
            all_reduce(profile, num_bytes, n, algorithm="ring", protocol=protocol).latency_s for n in (2, 4, 8)
        ]
        assert latencies == sorted(latencies)


class TestDecodeAttention:
    @settings(max_examples=200)
    @given(
        name=machines,
        batch=st.integers(1, 128),
        cached=st.integers(128, 131072),
        heads=st.sampled_from([8, 16, 32, 48, 64, 96, 128]),
        kv_heads=st.sampled_from([1, 2, 4, 8]),
        head_dim=st.sampled_from([64, 128]),
    )
    def test_half_the_key_value_heads_cost_hardly_more_whatever_the_kernel(
        self, name: str, batch: int, cached: int, heads: int, kv_heads: int, head_dim: int
    ) -> None:
        """A larger tile computes rows that stay empty, and a packed step is split where one of all heads is not."""
        assume(heads % (2 * kv_heads) == 0)
        profile = PROFILES[name]

        def busy_s(kept: int) -> float:
            op = Attention(batch, 1, cached, heads, kept, head_dim, True, DType.BFLOAT16)
            return attention_cost(op, profile.device, profile.attention).busy_s

        # Without groups another kernel runs, with constants fitted to rows of its own: the two meet within a half.
        assert busy_s(kv_heads) <= 1.6 * busy_s(2 * kv_heads)


MODEL: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "max_position_embeddings": 131072,
}
COOL, LIMITED = "a100-sxm4-80gb-x8", "h200-sxm-x2"
"""A machine whose profile has no power limit, and one that has."""


def latency_s(hardware: str, *, layers: int = 4, **changes: Any) -> float:
    asked = {
        "hardware": hardware,
        "model": {**MODEL, "num_hidden_layers": layers},
        "architecture": {"kind": "standard"},
        "num_devices": 2,
        "batch_size": 1,
        "context_length": 1024,
        **changes,
    }
    return simulate(asked).latency_s


class TestPass:
    @pytest.mark.parametrize("kind", ["standard", "parallel"])
    @pytest.mark.parametrize("phase", ["prefill", "decode"])
    def test_every_further_layer_costs_the_same_while_no_power_limit_is_met(self, kind: str, phase: str) -> None:
        two, four, eight = (
            latency_s(COOL, layers=layers, phase=phase, architecture={"kind": kind}) for layers in (2, 4, 8)
        )
        assert eight - four == pytest.approx(2 * (four - two), rel=1e-9)
        assert four < 2 * two

    def test_twice_the_layers_cost_more_than_twice_only_as_far_as_the_clock_falls(self) -> None:
        """On a rested card: the longer a step, the further down the controller. Under load it is down anyway."""
        for load in ("rested", "sustained"):
            fields: dict[str, Any] = {"context_length": 2048, "runtime": {"load": load}}
            times = [latency_s(LIMITED, layers=layers, **fields) for layers in (2, 4, 8, 16, 32, 64)]
            ratios = [after / before for before, after in pairwise(times)]
            assert (max(ratios) > 2.0) == (load == "rested")
            assert max(ratios) < 2.1
            assert 1.99 < ratios[-1] <= 2.02

    @pytest.mark.parametrize("channels", [None, 4])
    def test_more_tokens_and_more_sequences_take_longer(self, channels: int | None) -> None:
        runtime = {"collective": {"channels": channels}}
        lengths = [latency_s(LIMITED, context_length=tokens, runtime=runtime) for tokens in (64, 512, 1024, 4096)]
        assert lengths == sorted(lengths)
        batches = [
            latency_s(LIMITED, batch_size=batch, phase="decode", runtime=runtime) for batch in (1, 8, 32, 128, 256)
        ]
        assert batches == sorted(batches)

    def test_one_more_sequence_may_let_nccl_leave_ll_and_be_much_faster_on_one_channel(self) -> None:
        """A message of 1.6 MB, 200 tokens of 4,096 in 16 bits, is where two Hopper GPUs switch."""
        runtime = {"collective": {"channels": 1}}
        before, after = (latency_s(LIMITED, batch_size=batch, context_length=4, runtime=runtime) for batch in (52, 53))
        assert 0.4 * before < after < before
        free = [latency_s(LIMITED, batch_size=batch, context_length=4) for batch in (52, 53)]
        assert free[1] >= 0.98 * free[0]


HALVED = ("gemm", "launch")
"""Blocks whose times can be halved with no pass slower by it; where kernels overlap, the others change who waits."""


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """A pass of any machine, model, number format, kernels and state of the card."""
    heads, head_dim = draw(st.sampled_from([8, 16, 32])), draw(st.sampled_from([64, 128]))
    sizes = {"hidden_size": heads * head_dim, "num_attention_heads": heads, "intermediate_size": 3 * heads * head_dim}
    return {
        "hardware": draw(st.sampled_from(SHIPPED)),
        "model": {**MODEL, **sizes, "num_hidden_layers": draw(st.integers(1, 12))},
        "architecture": {"kind": draw(st.sampled_from(["standard", "parallel", "ladder", "desync", "domino"]))},
        "num_devices": draw(st.sampled_from([1, 2, 4])),
        "phase": draw(st.sampled_from(["prefill", "decode"])),
        # From 32 rows on torch gathers an embedding by another kernel than up to 16.
        "batch_size": draw(st.sampled_from([32, 64, 128])),
        "context_length": draw(st.sampled_from([1, 64, 300, 1024])),
        "quantization": draw(st.sampled_from([None, None, "fp8"])),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "auto", "float8"])),
        "runtime": {
            "launch": draw(st.sampled_from(["graph", "eager"])),
            "kernels": draw(st.sampled_from(["pytorch", "pytorch_composed", "fused", "compiled", "serving"])),
            "load": draw(st.sampled_from(["rested", "sustained"])),
        },
    }


class TestAnyPass:
    @settings(max_examples=40, deadline=None)
    @given(question=questions())
    def test_more_work_takes_longer_and_a_better_card_no_longer(self, question: dict[str, Any]) -> None:
        profile = PROFILES[question["hardware"]]
        try:
            before = Predictor(profile).predict(scenario_from(question)).latency_s
        except KrakenSimError:  # a number format that the card does not have, or what needs several devices
            assume(False)
        model = question["model"]
        twice = {"num_hidden_layers": 2 * model["num_hidden_layers"]}
        layers, batch, tokens = (
            Predictor(profile).predict(scenario_from(question | changes)).latency_s
            for changes in (
                {"model": model | twice},
                {"batch_size": 2 * question["batch_size"]},
                {"context_length": 2 * question["context_length"]},
            )
        )
        assert layers > before
        assert min(batch, tokens) > 0.96 * before  # another tile of a GEMM, another protocol of NCCL
        device = profile.device
        memory = replace(
            profile, device=replace(device, hbm_bandwidth_bytes_per_s=2 * device.hbm_bandwidth_bytes_per_s)
        )
        watts = replace(profile, device=replace(device, tdp_w=device.tdp_w and 2 * device.tdp_w))
        for better in (memory, watts, *(with_time_factor(profile, block, 0.5) for block in HALVED)):
            assert Predictor(better).predict(scenario_from(question)).latency_s <= before * ROUNDING
