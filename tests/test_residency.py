from __future__ import annotations

from dataclasses import replace

import pytest

from kraken_sim.costs.memory_bound import memory_bound_cost
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import Attention, DType, Elementwise, Gemm, Norm
from kraken_sim.program.program import Category, Kernel, Program, Segment
from kraken_sim.program.residency import streamed_bytes, with_cold_operands

BF16 = DType.BFLOAT16
MB = 1e6
PROFILE = load_profile("h200-sxm-x2")
DEVICE, CONSTANTS = PROFILE.device, PROFILE.memory_bound


def kernels(*ops: Gemm | Norm | Elementwise | Attention) -> tuple[Kernel, ...]:
    return tuple(Kernel(f"kernel_{number}", op, Category.OTHER) for number, op in enumerate(ops))


def layers(width: int, count: int, inner: int) -> Program:
    """A norm, a square GEMM and an add; a norm, a GEMM `inner` times as wide and an add."""
    norm, add = Norm(1, width, BF16, "rms_norm"), Elementwise("add", width, 2, BF16)
    square, wide = Gemm(1, width, width, BF16), Gemm(1, inner * width, width, BF16)
    return Program("layers", 1, (Segment("layer", kernels(norm, square, add, norm, wide, add), count),))


def cold(program: Program, held_bytes: float) -> list[tuple[str, int]]:
    """What is cold, in host order: ("norm", 1) or ("add", 1) where it is."""
    found = []
    for kernel in with_cold_operands(program, held_bytes).segments[0].kernels:
        if isinstance(kernel.op, Norm):
            found.append(("norm", int(kernel.op.cold_parameters)))
        if isinstance(kernel.op, Elementwise):
            found.append(("add", kernel.op.cold_inputs))
    return found


def test_a_residual_is_out_of_l2_behind_more_weights_than_it_holds() -> None:
    # 8.4 MB of square weights, four times that of wide ones.
    assert cold(layers(2048, 4, 4), 20 * MB) == [("norm", 1), ("add", 0), ("norm", 1), ("add", 1)]
    assert cold(layers(2048, 4, 4), 5 * MB) == [("norm", 1), ("add", 1), ("norm", 1), ("add", 1)]


def test_parameters_wait_for_the_next_step_in_l2_only_where_the_whole_step_fits() -> None:
    assert cold(layers(256, 2, 1), 20 * MB) == [("norm", 0), ("add", 0), ("norm", 0), ("add", 0)]
    assert cold(layers(2048, 1, 4), 50 * MB)[0] == ("norm", 0)
    assert cold(layers(2048, 2, 4), 50 * MB)[0] == ("norm", 1)


def test_the_residual_that_a_fused_norm_takes_in_is_cold_as_that_of_an_add() -> None:
    norm = Norm(1, 2048, BF16, "rms_norm", fused=True, adds=1, writes_sum=True)
    program = Program("fused", 1, (Segment("layer", kernels(norm, Gemm(1, 8192, 2048, BF16)), 3),))
    for held, inputs in ((20 * MB, 1), (40 * MB, 0)):
        changed = next(with_cold_operands(program, held).segments[0].kernels).op
        assert isinstance(changed, Norm)
        assert changed.cold_inputs == inputs


def test_a_cache_streams_through_l2_as_weights_do() -> None:
    prefill = Attention(4, 512, 512, 32, 8, 128, True, BF16)
    decode = Attention(4, 1, 512, 32, 8, 128, False, BF16)
    assert streamed_bytes(kernels(decode)) == pytest.approx(4 * (2 * 512 * 8 + 32) * 128 * 2)
    assert streamed_bytes(kernels(prefill)) == pytest.approx(4 * 512 * 32 * 128 * 2)


def busy_s(op: Norm | Elementwise) -> float:
    return memory_bound_cost(op, DEVICE, CONSTANTS).busy_s


def test_cold_parameters_cost_torchs_norm_a_latency_for_every_1024_elements_and_a_generated_one_a_single_one() -> None:
    for function in ("layer_norm", "rms_norm"):
        extra = []
        for width in (1024, 4096, 8192):
            norm = Norm(16, width, BF16, function)
            extra.append(busy_s(replace(norm, cold_parameters=True)) - busy_s(norm))
        assert extra[1] == pytest.approx(4 * extra[0])
        assert extra[2] == pytest.approx(8 * extra[0])
        made = Norm(16, 8192, BF16, function, fused=True)
        assert busy_s(replace(made, cold_parameters=True)) - busy_s(made) < 0.2 * extra[2]


def test_ctas_that_take_turns_hide_what_the_first_of_them_wait_for() -> None:
    norm = Norm(8192, 4096, BF16, "rms_norm")
    assert busy_s(replace(norm, cold_parameters=True)) == busy_s(norm)


def test_a_cold_residual_comes_at_the_rate_of_hbm() -> None:
    add = Elementwise("add", 2048 * 2048, 2, BF16)
    extra = busy_s(replace(add, cold_inputs=1)) - busy_s(add)
    num_bytes = 2 * 2048 * 2048
    assert 0.3 * num_bytes / DEVICE.hbm_bandwidth_bytes_per_s < extra < 3 * num_bytes / DEVICE.hbm_bandwidth_bytes_per_s
    assert memory_bound_cost(replace(add, cold_inputs=1), DEVICE, CONSTANTS).hbm_bytes == pytest.approx(num_bytes)
