"""The rivals of Kraken: what each sends, where, and who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from layout_support import layout_of, program_of

from kraken_sim import simulate
from kraken_sim.architectures.workload import Workload
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.counts import parameter_count
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Collective, Elementwise, Gemm, Norm
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel, RecordEvent, WaitEvent

if TYPE_CHECKING:
    from kraken_sim.program.program import Program, Segment

LAYERS, WIDTH, TOKENS, DEVICES = 4, 1024, 96, 2
ACTIVATION_BYTES = TOKENS * WIDTH * 2
CONFIG: Final = TransformerConfig(
    LAYERS, WIDTH, 16, 4, 64, 4096, 51200, 2048,
    gated_ffn=True, position_embeddings=False, attention_bias=False, mlp_bias=False, norm_bias=False,
)  # fmt: skip


def program(
    kind: str, num_devices: int = DEVICES, *, batch: int = 1, own: dict[str, Any] | None = None, **work: Any
) -> Program:
    layout = layout_of(kind, CONFIG, num_devices, **(own or {}))
    return program_of(kind, layout, CONFIG, Workload(batch, TOKENS // batch, **work))


def collectives(found: Program, stream: int | None = None) -> list[Collective]:
    kernels = (kernel for kernel in found.kernels() if stream in (None, kernel.stream))
    return [kernel.op for kernel in kernels if isinstance(kernel.op, Collective)]


def segment(found: Program, name: str) -> Segment:
    return next(segment for segment in found.segments if segment.name == name)


def names(found: Segment) -> list[str]:
    """Kernels, and waits of the main stream, in the order of launch."""
    return [
        step.name if isinstance(step, Kernel) else f"wait {step.event}"
        for step in found.steps
        if isinstance(step, Kernel) or (isinstance(step, WaitEvent) and step.stream == MAIN_STREAM)
    ]


def matrices(found: Program) -> float:
    return sum(op.n * op.k for op in (kernel.op for kernel in found.kernels()) if isinstance(op, Gemm))


def question(kind: str, **fields: Any) -> dict[str, Any]:
    model = {"preset": "1.3B", "num_hidden_layers": 8}
    base = {"hardware": "h100-sxm-x8", "model": model, "num_devices": 4, "context_length": 512}
    return {**base, "architecture": {"kind": kind}, **fields}


def test_a_ladder_sends_every_output_beside_the_next_block() -> None:
    found = program("ladder")
    assert [op.num_bytes for op in collectives(found, COMM_STREAM)] == [ACTIVATION_BYTES] * 2 * LAYERS
    assert collectives(found, MAIN_STREAM) == []
    attention = ["norm_attention", "gemm_qkv", "rope", "kv_cache", "attention", "gemm_out", "all_reduce_attention"]
    ffn = ["norm_ffn", "gemm_up", "silu_mul", "gemm_down", "all_reduce_ffn"]
    assert names(segment(found, "layer_first")) == [*attention, *ffn]
    assert names(segment(found, "layer")) == [
        "wait received_attention", "residual_attention", *attention, "wait received_ffn", "residual_ffn", *ffn,
    ]  # fmt: skip
    assert names(segment(found, "head"))[:4] == [
        "wait received_attention", "residual_attention", "wait received_ffn", "residual_ffn",
    ]  # fmt: skip


def test_a_ladders_sum_is_on_its_way_before_anything_else_is_launched() -> None:
    steps = segment(program("ladder"), "layer").steps
    place = next(i for i, step in enumerate(steps) if isinstance(step, Kernel) and step.name == "gemm_out")
    assert steps[place + 1] == RecordEvent("send_attention", MAIN_STREAM)
    assert steps[place + 2] == WaitEvent("send_attention", COMM_STREAM)
    reduce = steps[place + 3]
    assert isinstance(reduce, Kernel)
    assert (reduce.name, reduce.stream) == ("all_reduce_attention", COMM_STREAM)
    assert steps[place + 4] == RecordEvent("received_attention", COMM_STREAM)


def test_without_overlap_or_on_one_device_a_ladder_has_nothing_beside_compute() -> None:
    blocking, alone = program("ladder", overlap=False), program("ladder", 1)
    assert len(collectives(blocking, MAIN_STREAM)) == 2 * LAYERS
    for found in (blocking, alone):
        assert all(not isinstance(step, WaitEvent | RecordEvent) for _, _, step in found.steps())
    assert collectives(alone) == []
    # Another function than the standard model's, but as many sums.
    adds = [
        kernel.name for kernel in alone.kernels() if isinstance(kernel.op, Elementwise) and kernel.op.function == "add"
    ]
    assert len(adds) == 2 * LAYERS


def test_a_ladders_norms_take_its_sums_in_but_for_the_two_at_the_end() -> None:
    found = program("ladder", kernels=KernelSet.SERVING)
    adding = [kernel for kernel in found.kernels() if isinstance(kernel.op, Norm) and kernel.op.adds]
    assert len(adding) == 2 * (LAYERS - 1)
    assert names(segment(found, "head"))[:4] == [
        "wait received_attention", "wait received_ffn", "residual_attention", "residual_ffn",
    ]  # fmt: skip


def test_a_ladder_has_the_matrices_and_the_parameters_of_the_standard_model() -> None:
    assert matrices(program("ladder")) == matrices(program("standard"))
    layouts = [layout_of(kind, CONFIG, DEVICES) for kind in ("ladder", "standard")]
    assert parameter_count(CONFIG, layouts[0]) == parameter_count(CONFIG, layouts[1])


def test_a_ladder_hides_all_but_its_last_all_reduces() -> None:
    ladder, standard = (simulate(question(kind)) for kind in ("ladder", "standard"))
    assert ladder.exposed_communication_s < 0.2 * standard.exposed_communication_s
    assert ladder.hidden_communication_s > 0.8 * standard.exposed_communication_s
    assert ladder.latency_s < simulate(question("ladder", runtime={"overlap": False})).latency_s
    assert ladder.latency_s == pytest.approx(simulate(question("ladder"), exact=True).latency_s, rel=1e-9)


def test_a_ladder_is_worth_less_the_faster_its_links() -> None:
    def gain(hardware: str) -> float:
        asked = [question(kind, hardware=hardware, context_length=2048) for kind in ("standard", "ladder")]
        standard, ladder = (simulate(data).latency_s for data in asked)
        return standard / ladder

    assert gain("h100-pcie-x4") > gain("h100-sxm-x8") > 1.0
