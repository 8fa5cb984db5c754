"""The one split of all fits: a shape is on one side, whatever its forms, and stays there whatever else is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.calibration.attention import attention_shape
from kraken_sim.calibration.collectives import all_reduce_shape
from kraken_sim.calibration.contention import pair_shape
from kraken_sim.calibration.gemm import gemm_shape
from kraken_sim.calibration.memory_bound import memory_bound_shape
from kraken_sim.calibration.overlap import pair_samples, sustained_samples
from kraken_sim.calibration.power import load_shape
from kraken_sim.calibration.samples import all_reduce_samples, attention_samples, gemm_samples
from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.calibration.split import Fit, each_left_out, shape_of, split, split_again
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Attention, Copy, DType, Elementwise, Gemm, Norm

if TYPE_CHECKING:
    from collections.abc import Callable

MEASUREMENTS = Path(__file__).parents[1] / "validation" / "measurements"
Measured = tuple[tuple[int, str], float]
SAMPLES = st.lists(st.tuples(st.tuples(st.integers(0, 60), st.sampled_from("ab")), st.floats(0, 1)), min_size=1)


def key(sample: Measured) -> tuple[int, str]:
    return sample[0]


def keys(samples: list[Measured]) -> set[tuple[int, str]]:
    return {key(sample) for sample in samples}


@given(SAMPLES, st.sampled_from([0.1, 0.3, 0.5]))
def test_every_sample_is_on_one_side_and_no_key_on_both(samples: list[Measured], held: float) -> None:
    fitted, held_out = split(samples, key, held)
    assert sorted([*fitted, *held_out]) == sorted(samples)
    assert keys(fitted).isdisjoint(keys(held_out))


@given(SAMPLES.flatmap(lambda samples: st.tuples(st.just(samples), st.permutations(samples))))
def test_the_order_of_the_samples_does_not_matter(both: tuple[list[Measured], list[Measured]]) -> None:
    assert split(both[0], key) == split(both[1], key)


@given(SAMPLES)
def test_of_few_keys_one_is_held_out_and_half_are_fitted(samples: list[Measured]) -> None:
    fitted, held_out = (len(keys(side)) for side in split(samples, key))
    assert fitted >= held_out
    assert (held_out >= 1) == (fitted + held_out > 1)


@given(st.integers(0, 10**9), st.integers(1, 40))
def test_more_samples_move_no_key_to_the_other_side(first: int, more: int) -> None:
    before = [((first + index, "a"), 1.0) for index in range(120)]
    after = before + [((first + 120 + index, "b"), 1.0) for index in range(more)]
    fitted, held_out = (keys(side) for side in split(before, key))
    later_fitted, later_held_out = (keys(side) for side in split(after, key))
    assert fitted <= later_fitted
    assert held_out <= later_held_out


@pytest.mark.parametrize("held", [0.2, 0.3, 0.5])
def test_of_many_keys_the_share_asked_for_is_held_out(held: float) -> None:
    shapes = [((m, n), 1.0) for m in range(60) for n in map(str, range(50))]
    assert len(split(shapes, key, held)[1]) / len(shapes) == pytest.approx(held, abs=0.02)


def test_the_side_of_a_key_is_the_same_today_as_ever() -> None:
    """Python salts its own hashes anew in each run; a split that used them would move shapes between fits."""
    _, held_out = split([((m, "m"), 1.0) for m in range(20)], key)
    assert sorted(m for (m, _), _ in held_out) == [0, 2, 3, 7, 8, 9, 12, 19]


def test_a_fitted_part_split_again_is_again_fitted_and_held_out() -> None:
    fitted, _ = split([((m, "m"), 1.0) for m in range(500)], key)
    draws = [split_again(fitted, key, draw, 0.2) for draw in range(2)]
    for inner, outer in draws:
        assert len(outer) / len(fitted) == pytest.approx(0.2, abs=0.06)
        assert sorted([*inner, *outer]) == sorted(fitted)
    assert draws[0] != draws[1]


@given(SAMPLES)
def test_leaving_each_out_judges_every_sample_once_and_fits_nothing_of_its_key(samples: list[Measured]) -> None:
    judged = []
    for fitted, held_out in each_left_out(samples, key):
        assert len(keys(held_out)) == 1
        assert keys(held_out).isdisjoint(keys(fitted))
        assert len(fitted) + len(held_out) == len(samples)
        judged += held_out
    assert sorted(judged) == sorted(samples)


def test_a_form_is_no_shape() -> None:
    gemm = Gemm(8, 16, 32, DType.FLOAT16)
    assert shape_of(gemm) == shape_of(Gemm(8, 16, 32, DType.BFLOAT16, accumulate=True))
    assert shape_of(gemm) != shape_of(replace(gemm, n=32, k=16))
    attention = Attention(1, 64, 64, 4, 4, 128, True, DType.FLOAT16)
    assert shape_of(attention) == shape_of(replace(attention, causal=False))
    # a copy between slices is another kernel
    assert shape_of(Copy(64)) != shape_of(Copy(64, strided=True))


def test_a_plain_kernel_stays_on_its_side_when_ops_learn_to_tell_more_apart() -> None:
    assert shape_of(Gemm(8, 16, 32, DType.FLOAT16)) == ("Gemm", 8, 16, 32)
    attention = Attention(1, 2, 3, 4, 5, 6, True, DType.FLOAT16)
    assert shape_of(attention) == ("Attention", 1, 2, 3, 4, 5, 6)
    assert shape_of(replace(attention, kv_dtype=DType.FLOAT8_E4M3)) == shape_of(attention)
    assert shape_of(Norm(8, 16, DType.FLOAT16)) == ("Norm", 8, 16)
    assert shape_of(Elementwise("gelu", 64, 1, DType.FLOAT16)) == ("Elementwise", "gelu", 64, 1, 1)
    assert shape_of(Norm(8, 16, DType.FLOAT16, adds=1)) != shape_of(Norm(8, 16, DType.FLOAT16))
    assert shape_of(Norm(8, 16, DType.FLOAT16, function="rms_norm")) != shape_of(Norm(8, 16, DType.FLOAT16))


def test_errors_of_a_fit_are_those_of_what_it_held_out() -> None:
    fit = Fit("constants", (("small", 0.1), ("large", -0.3)), ("seen",))
    assert fit.residual == pytest.approx(0.2)
    overall, large, small = fit.class_errors("kernel", lambda sample: (0, sample))
    assert (overall.count, overall.worst) == (2, 0.3)
    assert overall.bias == pytest.approx(-0.1)
    assert (large.name, large.mean, small.name, small.mean) == ("large", 0.3, "small", 0.1)
    assert Fit("constants", ()).residual is None


@pytest.fixture(scope="module")
def shipped() -> MeasurementFile:
    return read_measurements(MEASUREMENTS / "h200-sxm-x2-microbench.jsonl")


PROFILE = load_profile("h200-sxm-x2")
KINDS: dict[str, tuple[Callable[[MeasurementFile], list[Any]], Callable[[Any], tuple[object, ...]]]] = {
    "gemm": (lambda file: gemm_samples(file, PROFILE.device, 5e-7), gemm_shape),
    "attention": (attention_samples, attention_shape),
    "memory-bound": (memory_bound_samples, memory_bound_shape),
    "all_reduce": (lambda file: all_reduce_samples(file, 5e-7), all_reduce_shape),
    "pair": (pair_samples, pair_shape),
    "sustained": (lambda file: sustained_samples(file, PROFILE), load_shape),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_measured_shape_is_both_fitted_and_held_out(kind: str, shipped: MeasurementFile) -> None:
    """Pairs in another start order, products in another chain, collectives with other channels were once both."""
    samples_of, shape = KINDS[kind]
    samples = samples_of(shipped)
    fitted, held_out = split(samples, shape)
    assert {shape(sample) for sample in fitted}.isdisjoint(shape(sample) for sample in held_out)
    repeated = len(samples) - len({shape(sample) for sample in samples})
    assert repeated > 0, "a file in which each shape was measured once would show nothing"
    assert 0.2 < len(held_out) / len(samples) <= 0.5
