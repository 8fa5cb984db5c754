"""The rivals of Kraken: what each sends, where, and who waits for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from layout_support import layout_of, program_of

from kraken_sim import simulate
from kraken_sim.architectures.registry import architecture, complete_kinds
from kraken_sim.architectures.workload import Phase, Workload, halves_of
from kraken_sim.errors import InputError
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.presets import preset
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Collective, Elementwise, Gemm, Norm
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Kernel, RecordEvent, WaitEvent
from kraken_sim.validate.passes import validate_passes

if TYPE_CHECKING:
    from kraken_sim.program.program import Program, Segment
    from kraken_sim.validate.passes import Comparison

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
    """Elements of the weights that the layers' GEMMs read."""
    layers = [kernel for kernel in found.kernels() if kernel.name != "lm_head"]
    return sum(kernel.op.n * kernel.op.k for kernel in layers if isinstance(kernel.op, Gemm))


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


@pytest.mark.parametrize(("every", "kept"), [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_a_desync_model_sums_its_residuals_every_few_layers_and_after_the_last(every: int, kept: int) -> None:
    found = program("desync", own={"sync_every": every})
    assert [op.num_bytes for op in collectives(found)] == [ACTIVATION_BYTES] * kept
    before = [kernel.name for kernel in found.kernels()][:-2]
    assert before[-2:] == ["residual_ffn", "all_reduce"]


def test_a_norm_behind_a_dropped_all_reduce_has_weights_on_every_device() -> None:
    standard = parameter_count(CONFIG, layout_of("standard", CONFIG, DEVICES))
    # Of eight norms before blocks the four before FFNs are private, and with every second sum two before attentions.
    extra = {1: 4, 2: 6}
    for every, norms in extra.items():
        layout = layout_of("desync", CONFIG, DEVICES, sync_every=every)
        assert parameter_count(CONFIG, layout) - standard == norms * (DEVICES - 1) * WIDTH


@pytest.mark.parametrize(("share", "dropped"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_sync_point_drop_saves_one_all_reduce_in_each_layer_that_drops_it(share: float, dropped: int) -> None:
    found = program("sync_point_drop", own={"dropped_share": share})
    assert [op.num_bytes for op in collectives(found)] == [ACTIVATION_BYTES] * (2 * LAYERS - dropped)
    onto = [kernel for kernel in found.kernels() if isinstance(kernel.op, Gemm) and kernel.op.accumulate]
    assert [kernel.name for kernel in onto] == ["gemm_down"] * dropped


def test_without_a_drop_it_is_the_standard_model() -> None:
    standard = program("standard")
    for kind, own in (("sync_point_drop", {"dropped_share": 0.0}), ("caat_net", {"reduced_share": 1.0})):
        assert program(kind, own=own).segments == standard.segments


def test_on_one_device_nothing_is_left_of_what_sets_them_apart() -> None:
    alone = [kernel.op for kernel in program("standard", 1).kernels()]
    for kind in ("desync", "sync_point_drop", "caat_net", "sequence_parallel"):
        own = {"dropped_share": 0.0} if kind == "sync_point_drop" else {}
        assert [kernel.op for kernel in program(kind, 1, own=own).kernels()] == alone
        assert architecture(kind).degenerate(architecture(kind).own(), 1) is not None


def test_caat_net_sends_its_share_of_the_channels() -> None:
    found = program("caat_net", own={"reduced_share": 0.25})
    assert [op.num_bytes for op in collectives(found)] == [ACTIVATION_BYTES // 4] * 2 * LAYERS
    layer = names(segment(found, "layer"))
    at = layer.index("all_reduce_attention")
    assert layer[at - 2 : at + 4] == [
        "gemm_out", "slice", "all_reduce_attention", "scale", "concat", "residual_attention",
    ]  # fmt: skip
    scaled = next(kernel.op for kernel in found.kernels() if kernel.name == "scale")
    assert isinstance(scaled, Elementwise)
    assert scaled.num_elements == TOKENS * WIDTH * 3 // 4


def test_a_share_of_no_channel_is_refused() -> None:
    with pytest.raises(InputError, match=r"architecture\.reduced_share: not one of 2048 channels"):
        simulate(question("caat_net") | {"architecture": {"kind": "caat_net", "reduced_share": 1e-9}})


@pytest.mark.parametrize(("tracks", "num_devices"), [(2, 2), (4, 2), (2, 4)])
def test_tracks_meet_every_few_layers(tracks: int, num_devices: int) -> None:
    own = {"tracks": tracks, "sync_every": 2, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4}
    found = program("parallel_track", num_devices, own=own)
    across = [op for op in collectives(found) if op.stride > 1 or num_devices <= tracks]
    assert len(across) == LAYERS // 2
    within = [op for op in collectives(found) if op not in across]
    # Devices that share a track sum its blocks' outputs as a standard model's do.
    assert len(within) == (2 * LAYERS if num_devices > tracks else 0)
    local = [name for name in names(segment(found, "layer")) if name.startswith("send.")]
    assert len(local) == max(0, tracks // num_devices - 1)


def test_a_track_is_a_smaller_transformer_of_equal_parameters() -> None:
    gpt = preset("6.7B")
    wanted = parameter_count(gpt, layout_of("standard", gpt, 4))
    for sync_every in (1, 4):
        layout = layout_of("parallel_track", gpt, 4, sync_every=sync_every)
        assert layout.block.intermediate_size == 4 * layout.block.hidden_size
        assert parameter_count(gpt, layout) == pytest.approx(wanted, rel=0.1)


def test_sequence_parallel_norms_a_share_of_the_tokens_and_moves_as_many_bytes() -> None:
    found, standard = program("sequence_parallel"), program("standard")
    kinds = [op.kind.value for op in collectives(found)]
    assert kinds == ["all_gather", "reduce_scatter"] * 2 * LAYERS + ["all_gather"]
    assert {op.num_bytes for op in collectives(found)} == {ACTIVATION_BYTES}
    rows = {kernel.name: kernel.op.num_tokens for kernel in found.kernels() if isinstance(kernel.op, Norm)}
    assert rows == {"norm_attention": TOKENS // 2, "norm_ffn": TOKENS // 2, "norm_final": 1}
    assert matrices(found) == matrices(standard)
    gemms = [[kernel.op for kernel in p.kernels() if isinstance(kernel.op, Gemm)] for p in (found, standard)]
    assert gemms[0] == gemms[1]


def test_tokens_that_do_not_divide_are_filled_up() -> None:
    found = program("sequence_parallel", 4, phase=Phase.DECODE)
    assert {op.num_bytes for op in collectives(found)} == {4 * WIDTH * 2}


def test_domino_runs_each_half_beside_the_other() -> None:
    found = program("domino", batch=4)
    assert [op.num_bytes for op in collectives(found, COMM_STREAM)] == [ACTIVATION_BYTES // 2] * 4 * LAYERS
    assert collectives(found, MAIN_STREAM) == []
    layer = [name for name in names(segment(found, "layer")) if name.startswith(("wait", "gemm_out", "gemm_down"))]
    assert layer == [
        "wait received_ffn.0", "gemm_out.0", "wait received_ffn.1", "gemm_out.1",
        "wait received_attention.0", "gemm_down.0", "wait received_attention.1", "gemm_down.1",
    ]  # fmt: skip
    # Twice the GEMMs of half the rows: the weights are read twice.
    assert matrices(found) == 2 * matrices(program("standard", batch=4))


@pytest.mark.parametrize(("batch", "halves"), [(2, (1, 1)), (3, (2, 1)), (5, (3, 2))])
def test_halves_are_whole_sequences(batch: int, halves: tuple[int, int]) -> None:
    assert tuple(part.batch_size for part in halves_of(Workload(batch, 64))) == halves


def test_a_single_prompt_is_cut_by_tokens_and_its_second_half_sees_the_first() -> None:
    first, second = halves_of(Workload(1, 1500))
    assert (first.q_len, first.kv_len, second.q_len, second.kv_len) == (768, 768, 732, 1500)
    assert len(halves_of(Workload(1, 1500, Phase.DECODE))) == 1
    work = {"hardware": "h100-sxm-x8", "model": {"preset": "6.7B"}, "num_devices": 8}
    short, long = (
        [
            simulate({**work, "context_length": tokens, "architecture": {"kind": kind}})
            for kind in ("standard", "token_weave")
        ]
        for tokens in (1023, 2048)
    )
    assert short[0].latency_s == short[1].latency_s
    assert long[1].latency_s < long[0].latency_s


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        ("domino", {"batch_size": 1}, "batch_size: domino cuts"),
        ("domino", {"batch_size": 2, "runtime": {"overlap": False}}, "runtime.overlap: domino"),
        ("token_weave", {"context_length": 2048, "runtime": {"overlap": False}}, "runtime.overlap: token_weave"),
        ("parallel_track", {"architecture": {"kind": "parallel_track", "tracks": 3}}, "architecture.tracks: 3 tracks"),
        ("kraken", {"architecture": {"kind": "kraken", "ways": 3}}, "architecture.ways: 3 ways"),
    ],
)
def test_what_cannot_be_cut_or_hidden_is_refused(kind: str, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InputError, match=path):
        simulate(question(kind, **fields))


@pytest.mark.parametrize("kernels", KernelSet)
@pytest.mark.parametrize("kind", complete_kinds("standard"))
def test_every_architecture_has_every_kernel_set_and_folds_exactly(kind: str, kernels: KernelSet) -> None:
    model = {
        "model_type": "llama", "num_hidden_layers": 7, "hidden_size": 4096, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 8192,
    }  # fmt: skip
    asked = question(kind, model=model, batch_size=2, dtype="bfloat16", runtime={"kernels": kernels.value})
    folded, exact = simulate(asked), simulate(asked, exact=True)
    assert folded.latency_s == pytest.approx(exact.latency_s, rel=1e-9)
    assert sum(folded.breakdown_s.values()) == pytest.approx(folded.latency_s, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "mean", "worst"), [("standard", 3.3, 6.6), ("ladder", 3.0, 8.0), ("kraken", 6.1, 14.0)]
)
def test_passes_of_rivals_on_one_device_take_as_long_as_measured(kind: str, mean: float, worst: float) -> None:
    errors = [
        100.0 * abs(c.predicted_s / c.measured_s - 1.0) for c in rivals_measured() if c.architecture.startswith(kind)
    ]
    assert len(errors) >= 10
    assert sum(errors) / len(errors) < mean
    assert max(errors) < worst


@cache
def rivals_measured() -> tuple[Comparison, ...]:
    """Passes of the suite `rivals` on one H200, which nothing was fitted to."""
    path = Path(__file__).parent.parent / "validation" / "measurements" / "h200-sxm-x1-rivals.jsonl"
    return tuple(validate_passes(read_measurements(path)).comparisons)
