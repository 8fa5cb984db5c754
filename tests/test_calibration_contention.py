"""The fit of contention: pairs made by the simulator give its constants back, and overlap is never free."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from kraken_sim.calibration.contention import (
    PairSample,
    _prepare,
    fit_contention,
    ideal_error,
    pair_shape,
    predict_pair_s,
)
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.contention import ContentionConstants, fill_speed
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Attention, Collective, CollectiveKind, Copy, DType, Gemm, Norm

HALF = DType.FLOAT16
PROFILE = load_profile("h200-sxm-x2")
TRUTH = replace(PROFILE.contention, compute_slowdown=1.5, collective_memory_slowdown=0.8)


def pairs(constants: ContentionConstants) -> list[PairSample]:
    """Layers' overlapped sections of several sizes beside several AllReduces, as the simulator runs them."""
    cases = product((128, 512, 2048), (1792, 3584), (1 << 18, 1 << 21, 1 << 24), (None, 4))
    return [_pair(*case, constants) for case in cases]


def _pair(tokens: int, width: int, num_bytes: int, channels: int | None, constants: ContentionConstants) -> PairSample:
    heads = width // 128
    compute = (
        Norm(tokens, width, HALF),
        Gemm(tokens, 3 * width, width, HALF),
        Attention(1, tokens, tokens, heads, heads, 128, True, HALF),
        Gemm(tokens, width, width, HALF),
    )
    policy = CollectivePolicy(channels=channels)
    pricing, gap_s = Pricing(PROFILE, policy), PROFILE.launch.graph_node_gap_s
    alone_s = sum(pricing.kernel(op).busy_s + gap_s for op in compute)
    collective_s = pricing.collective(Collective(CollectiveKind.ALL_REDUCE, num_bytes, 2)).busy_s + gap_s
    sample = PairSample(compute, num_bytes, 2, policy, 1.0, alone_s, collective_s, "default")
    return replace(sample, together_s=predict_pair_s(_prepare(sample, PROFILE), PROFILE, constants))


def test_pairs_made_with_known_constants_give_them_back() -> None:
    fit = fit_contention(pairs(TRUTH), PROFILE)
    assert fit.residual is not None
    assert fit.residual < 0.01
    assert fit.residual < 0.2 * ideal_error(sample for sample, _ in fit.held_out)
    assert fit.constants.collective_memory_slowdown == pytest.approx(0.8, abs=0.1)


def test_a_pair_is_the_same_shape_under_every_condition_and_number_format() -> None:
    default, capped = (_pair(128, 1792, 1 << 18, channels, PROFILE.contention) for channels in (None, 4))
    assert pair_shape(default) == pair_shape(replace(capped, condition="channels-4"))
    brain = tuple(replace(op, dtype=DType.BFLOAT16) for op in default.compute if not isinstance(op, Copy))
    assert len(brain) == len(default.compute)
    assert pair_shape(replace(default, compute=brain)) == pair_shape(default)
    assert pair_shape(replace(default, num_bytes=1 << 21)) != pair_shape(default)


def test_a_pair_takes_at_least_as_long_as_its_longer_side() -> None:
    for sample in pairs(PROFILE.contention):
        assert sample.together_s >= 0.98 * max(sample.compute_alone_s, sample.collective_alone_s)


def test_fewer_pairs_than_a_fit_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_contention(pairs(TRUTH)[:5], PROFILE)


def test_fewer_ctas_speed_up_only_what_memory_limits() -> None:
    assert fill_speed(0.5, 1.0, 0.4) == 1.0
    assert fill_speed(0.5, 0.6, 1.0) == pytest.approx(1 / 0.6)
    assert fill_speed(1.0, 0.6, 1.0) == 1.0
