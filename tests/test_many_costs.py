"""Costs of many shapes at once have the bits that each shape's has alone: the formulas are written once for both."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kraken_sim.costs.attention import attention_cost
from kraken_sim.costs.collectives import collective_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.gemm import gemm_cost
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.many import DividedError, apart, same
from kraken_sim.program.ops import Attention, CollectiveKind, Copy, DType, Elementwise, Embedding, Gemm, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kraken_sim.profiles.profile import HardwareProfile

NUM = 300
HALF = DType.FLOAT16
FLOAT8 = DType.FLOAT8_E4M3
MACHINES = ("h200-sxm-x8", "a100-sxm4-80gb-x8", "v100-dgx1-x8", "rtx4090-x8", "b200-sxm-x8")


@pytest.fixture(scope="module", params=MACHINES)
def profile(request: pytest.FixtureRequest) -> HardwareProfile:
    return load_profile(request.param)


def sizes(seed: int, most: int) -> list[int]:
    """Some small, some round, some odd."""
    rng = random.Random(seed)
    return [
        rng.choice([1, rng.randint(1, 16), 64 * rng.randint(1, most // 64), rng.randint(1, most)]) for _ in range(NUM)
    ]


def flags(seed: int) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < 0.5 for _ in range(NUM)]


def assert_alike(make: Callable[..., Any], price: Callable[[Any], Any], *columns: Iterable[Any]) -> None:
    columns = tuple(list(column) for column in columns)
    alone = [price(make(*row)) for row in zip(*columns, strict=True)]
    together = price(make(*map(np.array, columns)))
    for field in fields(together):
        if field.name != "detail":
            found = np.broadcast_to(getattr(together, field.name), NUM).tolist()
            assert found == [getattr(cost, field.name) for cost in alone], field.name


def test_products(profile: HardwareProfile) -> None:
    def make(m: Any, n: Any, k: Any, accumulate: Any, bias: Any) -> Gemm:
        return Gemm(m, n, k, HALF, accumulate, bias=bias)

    def price(op: Gemm) -> Any:
        return gemm_cost(op, profile.device, profile.gemm_of(None)[1])

    assert_alike(make, price, sizes(1, 9000), sizes(2, 9000), sizes(3, 9000), flags(4), flags(5))


@pytest.mark.parametrize("head_dim", [64, 128])
def test_attention_of_prefills_and_of_decode_steps(profile: HardwareProfile, head_dim: int) -> None:
    def price(op: Attention) -> Any:
        return attention_cost(op, profile.device, profile.attention_of(op)[1])

    def prefill(batch: Any, q_len: Any, before: Any, groups: Any) -> Attention:
        return Attention(batch, q_len + 1, before + q_len + 1, 4 * groups, groups, head_dim, True, HALF)

    def decode(batch: Any, cached: Any, num_heads: Any) -> Attention:
        return Attention(batch, 1, cached + 1, num_heads, num_heads, head_dim, True, HALF)

    before = [length * (length % 3 == 0) for length in sizes(3, 3000)]
    assert_alike(prefill, price, sizes(1, 64), sizes(2, 4000), before, sizes(4, 64))
    assert_alike(decode, price, sizes(1, 64), sizes(2, 9000), sizes(4, 64))


MAKERS: dict[str, Callable[..., Any]] = {
    "layer norm": lambda tokens, width, cold: Norm(tokens, width, HALF, cold_parameters=cold, cold_inputs=1 * cold),
    "fused norm": lambda tokens, width, cold: Norm(tokens, width, HALF, "rms_norm", True, 1, cold_inputs=1 * cold),
    "gelu": lambda tokens, width, _: Elementwise("gelu", tokens * width, 1, HALF),
    "add": lambda tokens, width, cold: Elementwise("add", tokens * width, 2, HALF, cold_inputs=1 * cold),
    "mean": lambda tokens, width, _: Elementwise("mean", tokens * width, 1, HALF, num_outputs=0, rows=tokens),
    "quantize": lambda tokens, width, _: Elementwise("quantize", tokens * width, 1, HALF, 1, FLOAT8, rows=tokens),
    "copy": lambda tokens, width, _: Copy(2 * tokens * width),
    "slices": lambda tokens, width, _: Copy(2 * tokens * width, strided=True),
    "embedding": lambda tokens, width, _: Embedding(tokens, width, HALF),
    "rotary embedding": lambda tokens, width, _: Embedding(tokens, width, HALF, positions=False),
}


@pytest.mark.parametrize("kernel", MAKERS)
def test_memory_bound_kernels(profile: HardwareProfile, kernel: str) -> None:
    def price(op: Any) -> Any:
        return memory_bound_cost(op, profile.device, profile.memory_bound)

    assert_alike(MAKERS[kernel], price, sizes(1, 9000), sizes(2, 9000), flags(3))


POLICIES = {
    "as NCCL picks": CollectivePolicy(),
    "few channels": CollectivePolicy(channels=4),
    "one protocol": CollectivePolicy(protocol="simple"),
    "rings": CollectivePolicy(algorithm="ring"),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER])
def test_collectives_whatever_nccl_picks_for_each(profile: HardwareProfile, kind: CollectiveKind, policy: str) -> None:
    rng = random.Random(7)
    messages = [rng.choice([int(2 ** rng.uniform(0, 33)), 8192 * rng.randint(1, 64)]) for _ in range(NUM)]
    over = interconnect_of(profile.topology, profile.topology.group(4, 1), kind, True)

    def price(num_bytes: Any) -> Any:
        return collective_cost(kind, num_bytes, over, profile.device, profile.collectives, POLICIES[policy])

    def many_or_one(num_bytes: Any) -> Any:
        return apart(price, num_bytes) if isinstance(num_bytes, np.ndarray) else price(num_bytes)

    assert_alike(lambda num_bytes: num_bytes, many_or_one, messages)


def test_what_decides_on_the_structure_is_the_same_or_divides_the_points() -> None:
    assert same(np.array([3, 3])) == 3
    assert same(7) == 7
    with pytest.raises(DividedError) as divided:
        same(np.array([1, 2, 1]) > 1)
    assert divided.value.labels.tolist() == [False, True, False]
