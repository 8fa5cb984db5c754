from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_support import layout_of, program_of

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.architectures.registry import architecture
from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.layout import Block, Layout
from kraken_sim.program.ops import Attention, Collective, Copy, Gemm
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Program, RecordEvent, WaitEvent

LAYERS, WIDTH, HEADS, VOCAB = 12, 1024, 16, 51200
CONFIG = TransformerConfig(LAYERS, WIDTH, HEADS, HEADS, WIDTH // HEADS, 4 * WIDTH, VOCAB, 2048)
GROUPED = TransformerConfig(LAYERS, WIDTH, HEADS, 4, WIDTH // HEADS, 4 * WIDTH, VOCAB, 2048)


def laid_out(kind: str, num_devices: int, ways: int | None = None) -> Layout:
    if kind == "kraken":
        return kraken_layout(Block(640, 8, 8, 80, 1280), ways or num_devices, num_devices)
    return layout_of(kind, CONFIG, num_devices)


def build(kind: str, num_devices: int, ways: int | None = None, **work: object) -> Program:
    workload = Workload(1, 512, **work)  # type: ignore[arg-type]
    return program_of(kind, laid_out(kind, num_devices, ways), CONFIG, workload)


def all_reduces(program: Program, stream: int | None = None) -> list[Collective]:
    return [
        kernel.op
        for kernel in program.kernels()
        if isinstance(kernel.op, Collective) and stream in (None, kernel.stream)
    ]


@pytest.mark.parametrize(("kind", "count"), [("standard", 2 * LAYERS), ("parallel", LAYERS), ("kraken", LAYERS)])
def test_all_reduces_of_a_forward_pass(kind: str, count: int) -> None:
    reduces = all_reduces(build(kind, 4))
    assert len(reduces) == count
    width = 640 if kind == "kraken" else WIDTH
    assert {(op.num_bytes, op.num_devices) for op in reduces} == {(512 * width * 2, 4)}


def test_kraken_overlaps_all_but_the_concat_all_reduce() -> None:
    program = build("kraken", 4)
    assert len(all_reduces(program, COMM_STREAM)) == LAYERS - 1
    assert len(all_reduces(program, MAIN_STREAM)) == 1


def test_kraken_without_overlap_keeps_to_one_stream() -> None:
    program = build("kraken", 4, overlap=False)
    assert len(all_reduces(program, MAIN_STREAM)) == LAYERS
    assert not any(isinstance(step, RecordEvent | WaitEvent) for _, _, step in program.steps())


def test_overlap_changes_neither_the_kernels_nor_their_shapes() -> None:
    def names(overlap: bool) -> list[str]:
        return sorted(str((kernel.name, kernel.op)) for kernel in build("kraken", 4, overlap=overlap).kernels())

    assert names(True) == names(False)


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
def test_one_device_has_no_communication(kind: str) -> None:
    assert all_reduces(build(kind, 1)) == []


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_gemm_flops_of_all_devices_are_two_a_weight_and_token(num_devices: int) -> None:
    per_layer = 4 * WIDTH * WIDTH + 8 * WIDTH * WIDTH
    expected = 2 * 512 * per_layer * LAYERS + 2 * VOCAB * WIDTH
    for kind in ("standard", "parallel"):
        gemms = [kernel.op for kernel in build(kind, num_devices).kernels() if isinstance(kernel.op, Gemm)]
        assert num_devices * sum(op.flops for op in gemms) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("num_devices", "ways"), [(2, 2), (4, 4), (2, 4), (1, 4), (4, 2), (8, 2), (8, 1)])
def test_kraken_flops_do_not_depend_on_the_placement(num_devices: int, ways: int) -> None:
    gemms = [kernel.op for kernel in build("kraken", num_devices, ways).kernels() if isinstance(kernel.op, Gemm)]
    width = 640
    layer = 8 * width * width
    expected = 2 * 512 * (ways * layer * LAYERS + ways * width * width) + 2 * VOCAB * width
    assert num_devices * sum(op.flops for op in gemms) == pytest.approx(expected, rel=1e-12)


def test_more_ways_than_devices_exchange_once_a_layer() -> None:
    program = build("kraken", 2, 8)
    assert {op.num_devices for op in all_reduces(program)} == {2}
    assert len(all_reduces(program)) == LAYERS


def test_fewer_ways_than_devices_add_two_all_reduces_inside_each_group() -> None:
    reduces = all_reduces(build("kraken", 8, 2))
    inside = [op for op in reduces if op.num_devices == 4]
    across = [op for op in reduces if op.num_devices == 2]
    assert len(inside) == 2 * LAYERS
    assert all(op.stride == 1 for op in inside)
    assert len(across) == LAYERS - 1
    assert all(op.stride == 4 for op in across)


def test_key_value_heads_are_split_then_replicated() -> None:
    for num_devices, expected in ((1, 4), (2, 2), (4, 1), (8, 1)):
        layout = layout_of("standard", GROUPED, num_devices)
        kernels = list(program_of("standard", layout, GROUPED, Workload(2, 512)).kernels())
        attention = next(kernel.op for kernel in kernels if isinstance(kernel.op, Attention))
        assert attention.num_kv_heads == expected
        qkv = next(kernel.op for kernel in kernels if kernel.name == "gemm_qkv")
        assert isinstance(qkv, Gemm)
        assert qkv.n == 64 * (HEADS // num_devices + 2 * expected)
        cache = next(kernel.op for kernel in kernels if kernel.name == "kv_cache")
        assert cache == Copy(2 * 512 * 2 * 64 * expected * 2, strided=True)


@pytest.mark.parametrize("overlap", [True, False])
def test_copies_around_krakens_all_reduce_come_before_it_then_after(overlap: bool) -> None:
    def names(copies: int) -> list[str]:
        program = build("kraken", 4, overlap=overlap, overlap_copies=copies)
        layer = next(segment for segment in program.segments if segment.name == "layer")
        return [kernel.name for kernel in layer.kernels]

    plain, one, two = (names(copies) for copies in (0, 1, 2))
    assert one == ["send", *plain]
    assert [name for name in two if name != "receive_copy"] == one
    assert two.index("receive_copy") + 1 == two.index("receive")


def test_the_head_sees_the_last_token_of_each_sequence_only() -> None:
    program = program_of("standard", laid_out("standard", 4), CONFIG, Workload(3, 512))
    head = next(kernel.op for kernel in program.kernels() if kernel.name == "lm_head")
    assert head == Gemm(3, VOCAB // 4, WIDTH, head.dtype)  # type: ignore[union-attr]


def test_a_decode_step_has_one_token_a_sequence_and_attends_to_the_cache_and_itself() -> None:
    program = program_of("kraken", laid_out("kraken", 4), CONFIG, Workload(8, 1000, Phase.DECODE))
    attention = next(kernel.op for kernel in program.kernels() if isinstance(kernel.op, Attention))
    assert (attention.batch, attention.q_len, attention.kv_len) == (8, 1, 1001)
    assert all(kernel.op.m == 8 for kernel in program.kernels() if isinstance(kernel.op, Gemm))


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_every_wait_follows_a_record_of_its_event(num_devices: int, ways: int, overlap: bool) -> None:
    recorded: set[str] = set()
    for _, _, step in build("kraken", num_devices, ways, overlap=overlap).steps():
        if isinstance(step, RecordEvent):
            recorded.add(step.event)
        elif isinstance(step, WaitEvent):
            assert step.event in recorded


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="no architecture"):
        architecture("mamba")
