"""The PyTorch models: N processes equal one, gradients are whole, kernels are those simulated."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from layout_support import layout_of, program_of

from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.errors import InputError
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.layout import whole_layer
from kraken_sim.models.presets import preset
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Attention, Collective, Copy, DType, Elementwise, Embedding, Gemm, Norm

torch = pytest.importorskip("torch")

import validation_worker as worker  # noqa: E402
from ranks_support import run_ranks  # noqa: E402

from validation.model_grid import TWIN_SETS  # noqa: E402
from validation.models import build_model  # noqa: E402
from validation.models.communication import Group  # noqa: E402
from validation.models.kernels import count_kernels, record_kernels  # noqa: E402
from validation.models.layers import Linear  # noqa: E402
from validation.models.reference import Reference, random_weights  # noqa: E402
from validation.models.sharding import check_shapes, split_heads  # noqa: E402
from validation.models.weights import load_weights, weight_shapes  # noqa: E402
from validation.passes import (  # noqa: E402
    ModelPass,
    build_pass_model,
    list_passes,
    pass_model,
    required_bytes,
    same_weights,
)

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.ops import Op
    from kraken_sim.program.program import Kernel

pytestmark = pytest.mark.torch

CASES = [(size, case) for size in (2, 4) for case in worker.cases(size)]
BY_NAME = pytest.mark.parametrize(("size", "case"), CASES, ids=[f"{size}-{case.name}" for size, case in CASES])
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
TINY = worker.TINY

Outcomes = list[dict[str, dict[str, Any]]]
"""By rank, by case: the fields of a worker's Outcome."""


class Runs:
    """Runs the worker once for each number of processes, when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._outcomes: dict[int, Outcomes] = {}
        self._folder = folder

    def __call__(self, size: int) -> Outcomes:
        if size not in self._outcomes:
            folder = self._folder / str(size)
            folder.mkdir()
            run_ranks(worker.run, size, size, str(folder))
            texts = [(folder / f"rank{rank}.json").read_text() for rank in range(size)]
            self._outcomes[size] = [json.loads(text) for text in texts]
        return self._outcomes[size]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@BY_NAME
def test_n_processes_compute_what_one_process_computes(runs: Runs, size: int, case: worker.Case) -> None:
    errors = [rank[case.name]["logits_error"] for rank in runs(size)]
    assert max(errors) < TOLERANCE[case.dtype]


@BY_NAME
def test_prefill_fills_each_ranks_cache_with_its_keys_and_values(runs: Runs, size: int, case: worker.Case) -> None:
    errors = [rank[case.name]["cache_error"] for rank in runs(size)]
    assert max(errors) < TOLERANCE[case.dtype]


@BY_NAME
def test_steps_after_a_prefill_compute_what_a_longer_prefill_computes(runs: Runs, size: int, case: worker.Case) -> None:
    errors = [rank[case.name]["decode_error"] for rank in runs(size)]
    assert max(errors) < TOLERANCE[case.dtype]


@BY_NAME
def test_overlap_changes_no_bit(runs: Runs, size: int, case: worker.Case) -> None:
    assert [rank[case.name]["overlap_difference"] for rank in runs(size)] == [0.0] * size


@pytest.mark.parametrize(
    ("size", "case"),
    [(size, case) for size, case in CASES if case.gradients],
    ids=[f"{size}-{case.name}" for size, case in CASES if case.gradients],
)
def test_every_weights_gradient_is_that_of_one_process(runs: Runs, size: int, case: worker.Case) -> None:
    for rank in runs(size):
        errors = rank[case.name]["gradient_errors"]
        assert len(errors) > 5 * case.config.num_hidden_layers
        assert {name: error for name, error in errors.items() if error > 1e-12} == {}


@BY_NAME
def test_models_launch_the_kernels_that_the_simulator_simulates(runs: Runs, size: int, case: worker.Case) -> None:
    kernels = program_kernels(case, size)
    gemms = [(op.m, op.n, op.k) for op in (kernel.op for kernel in kernels) if isinstance(op, Gemm)]
    for rank in runs(size):
        assert tuple(rank[case.name]["kernels"]) == kinds_of(kernels, case.config)
        assert [tuple(gemm) for gemm in rank[case.name]["gemms"]] == gemms


@pytest.mark.parametrize("kernels", TWIN_SETS)
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("architecture", ["standard", "parallel", "kraken"])
def test_a_decode_step_launches_the_kernels_that_the_simulator_simulates(
    architecture: str, model_type: str, kernels: KernelSet
) -> None:
    config = {"gpt2": worker.GQA, "llama": worker.LLAMA, "qwen3": worker.QWEN3}[model_type]
    case = worker.Case("decode", architecture, config, ways=2, batch=2, dtype="float32", kernels=kernels)
    model = build_model(architecture, config, num_ways=2, dtype=torch.float32)
    model.kernels = kernels
    cache = model.new_cache(2, 10)
    with torch.inference_mode():
        model(torch.zeros(2, 9, dtype=torch.long), cache)
        seen = record_kernels(lambda: model(torch.zeros(2, 1, dtype=torch.long), cache, start=9))
    assert seen == kinds_of(program_kernels(case, 1, Phase.DECODE), config)


def test_a_kernel_set_that_no_model_here_has_is_refused() -> None:
    model = build_model("standard", TINY)
    model.kernels = KernelSet.SERVING_FUSED
    with pytest.raises(InputError, match="serving"):
        model(torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.parametrize("overlap", [True, False])
def test_a_pass_computes_what_its_model_computes(runs: Runs, overlap: bool) -> None:
    for rank in runs(2):
        outcome = rank[f"pass-overlap-{overlap}"]
        assert outcome["logits_error"] == 0.0
        assert outcome["cache_error"] == 0.0


@cache
def program_kernels(case: worker.Case, size: int, phase: Phase = Phase.PREFILL) -> tuple[Kernel, ...]:
    """The kernels of the simulator's program for a case: a prefill of as many sequences as the worker looks at."""
    config, kind = case.config, case.architecture
    layout = kraken_layout(whole_layer(config), case.ways, size) if kind == "kraken" else layout_of(kind, config, size)
    batch = case.batch if config.position_embeddings or phase is Phase.DECODE else 1
    dtype = DType.FLOAT32 if case.dtype == "float64" else DType(case.dtype)
    work = Workload(batch, context_length=9, phase=phase, dtype=dtype, kernels=case.kernels)
    return tuple(program_of(kind, layout, config, work).kernels())


def kinds_of(kernels: tuple[Kernel, ...], config: TransformerConfig) -> tuple[str, ...]:
    """How the profiler's kinds name the kernels of a program, on a CPU.

    Two differences are known: the simulator adds position rows behind every embedding, a rotary model has none to add;
    and what torch.compile makes two or three kernels of on a GPU is one label on a CPU.
    """
    together = any(kernel.name.startswith("rope_kv_write") for kernel in kernels)
    found: list[str] = []
    for kernel in kernels:
        name = kernel.name.partition(".")[0]
        if together and name in ("rope_kv_write", "rope_q", "norm_k", "norm_rope_q"):
            found += [] if name != "rope_kv_write" else ["norm_rope_store" if config.qk_norm else "rope_store"]
        else:
            found += _kinds(kernel.op, config)
    return tuple(found)


def _kinds(op: Op, config: TransformerConfig) -> list[str]:
    if isinstance(op, Elementwise):
        return [op.function]
    if isinstance(op, Norm) and op.adds:
        return ["add_norm"]
    if isinstance(op, Embedding):
        return ["embedding", "add"] if config.position_embeddings else ["embedding"]
    if isinstance(op, Collective):
        return [op.kind.value]
    names = {Gemm: "gemm", Attention: "attention", Norm: "norm", Copy: "copy"}
    return [names[type(op)]]


@pytest.mark.parametrize(
    ("architecture", "first", "later"),
    [("standard", 11, 11), ("parallel", 9, 9), ("kraken", 11, 13)],
)
def test_kernels_a_layer(runs: Runs, architecture: str, first: int, later: int) -> None:
    kernels = runs(2)[0][architecture]["kernels"]
    all_reduces = {"standard": 2 * 3, "parallel": 3, "kraken": 3}
    assert kernels.count("all_reduce") == all_reduces[architecture]
    around = 2 + 2 + (architecture == "kraken")  # embedding, position add; final norm, head; concat
    assert len(kernels) - all_reduces[architecture] == around + first + 2 * later


@pytest.mark.parametrize(("architecture", "ways"), [("standard", 1), ("parallel", 1), ("kraken", 1), ("kraken", 3)])
def test_one_device_needs_no_process_group(architecture: str, ways: int) -> None:
    weights = random_weights(architecture, TINY, ways)
    model = build_model(architecture, TINY, num_ways=ways, dtype=torch.float64)
    load_weights(weights, model)
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    expected = Reference(architecture, TINY, weights, ways).logits(ids)
    torch.testing.assert_close(model(ids), expected)
    assert "all_reduce" not in count_kernels(lambda: model(ids))


def test_logits_of_all_positions_end_with_those_of_the_last() -> None:
    model = build_model("standard", TINY, dtype=torch.float64)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    every = model(ids, all_positions=True)
    assert every.shape == (1, 5, TINY.vocab_size)
    torch.testing.assert_close(every[:, -1], model(ids))


def test_a_later_token_changes_no_earlier_logits() -> None:
    for architecture in ("standard", "parallel", "kraken"):
        model = build_model(architecture, TINY, num_ways=2, dtype=torch.float64)
        one, two = (model(torch.tensor([[3, 1, 4, last]]), all_positions=True) for last in (5, 6))
        torch.testing.assert_close(one[:, :3], two[:, :3])
        assert not torch.equal(one[:, 3], two[:, 3])


def test_a_standard_model_has_the_parameters_that_the_simulator_counts() -> None:
    for name in ("125M", "6.7B"):
        config = preset(name)
        shapes = weight_shapes("standard", config).values()
        assert sum(torch.Size(shape).numel() for shape in shapes) == parameter_count(config)


@pytest.mark.parametrize(
    ("architecture", "ways", "depth_factor"), [("standard", 1, 1), ("parallel", 1, 1), ("kraken", 4, 4)]
)
def test_residual_projections_start_smaller_by_the_root_of_their_number(
    architecture: str, ways: int, depth_factor: int
) -> None:
    config = replace(preset("125M"), num_hidden_layers=2, vocab_size=64, hidden_size=256, intermediate_size=512)
    model = build_model(architecture, config, num_ways=ways, dtype=torch.float32)
    expected = 0.02 / (2 * 2 * depth_factor) ** 0.5
    deviations = {
        name: float(module.weight.detach().std())
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    }
    for name, deviation in deviations.items():
        wanted = expected if name.endswith((".out", ".down")) else 0.02
        assert deviation == pytest.approx(wanted, rel=0.03), name


def test_replicas_start_with_equal_values_and_shards_with_different_ones() -> None:
    config = replace(TINY, num_key_value_heads=1)
    models = [build_model("standard", config, world=Group(rank, 2), dtype=torch.float32) for rank in range(2)]
    zero, one = (dict(model.named_parameters()) for model in models)
    assert torch.equal(zero["embeddings.tokens.weight"], one["embeddings.tokens.weight"])
    name = "layers.0.attention.qkv.weight"
    queries = 2 * config.head_dim
    assert not torch.equal(zero[name][:queries], one[name][:queries])
    assert torch.equal(zero[name][queries:], one[name][queries:])


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_ranks_hold_the_key_value_heads_that_their_queries_use(size: int, kv_heads: int) -> None:
    config = replace(TINY, num_attention_heads=8, num_key_value_heads=kv_heads)
    queries_a_kv_head = 8 // kv_heads
    for rank in range(size):
        shard = split_heads(config, rank, size)
        queries = range(shard.first_head, shard.first_head + shard.num_heads)
        used = sorted({query // queries_a_kv_head for query in queries})
        assert used == list(range(shard.first_kv_head, shard.first_kv_head + shard.num_kv_heads))


def test_every_shape_that_does_not_fit_is_named_at_once() -> None:
    config = replace(TINY, num_attention_heads=5, num_key_value_heads=3, intermediate_size=49, lm_head_bias=True)
    with pytest.raises(InputError) as caught:
        check_shapes(config, 2)
    paths = {problem.path for problem in caught.value.problems}
    names = {"num_attention_heads", "num_key_value_heads", "intermediate_size", "lm_head_bias"}
    assert paths == {f"model.{name}" for name in names}


def test_ways_and_devices_must_divide_one_another() -> None:
    with pytest.raises(InputError, match=r"architecture\.ways"):
        build_model("kraken", TINY, num_ways=3, world=Group(0, 2), device="meta")
    with pytest.raises(InputError, match=r"architecture\.ways"):
        build_model("kraken", TINY, num_ways=0, device="meta")


def test_an_unknown_architecture_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="kraken"):
        build_model("karken", TINY, device="meta")


def test_a_prompt_longer_than_the_positions_is_refused() -> None:
    model = build_model("standard", TINY)
    with pytest.raises(InputError, match="12 positions"):
        model(torch.zeros(1, 13, dtype=torch.long))


def test_the_grid_has_five_models_three_lengths_four_variants_and_two_launches() -> None:
    passes = list_passes("passes", 2)
    assert len(passes) == len({case.key for case in passes}) == 5 * 3 * 4 * 2
    groups = same_weights(passes)
    assert len(groups) == 5 * 3
    assert {len(group) for group in groups} == {6, 12}
    layers = {case.model["preset"]: case.model.get("num_hidden_layers") for case in passes}
    assert layers == {"1.3B": None, "6.7B": None, "13B": None, "65B": 20, "175B": 24}
    kraken = {case.model["preset"]: case.architecture["hidden_size"] for case in passes if case.overlap}
    assert kraken["6.7B"] == 3584


def test_every_pass_of_the_grid_fits_on_two_h200() -> None:
    assert max(required_bytes(case) for case in list_passes("passes", 2)) < 60e9


@pytest.mark.parametrize("case", list_passes("passes", 2)[::6], ids=lambda case: case.key)
def test_every_pass_of_the_grid_can_be_built(case: Any) -> None:
    model = build_pass_model(case, "meta")
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # On this one process the whole model: on two devices, each has half of it and all of the embeddings.
    assert held < 2 * required_bytes(case)


def test_on_cpus_passes_are_small_and_eager() -> None:
    for suite in ("quick", "passes", "full"):
        passes = list_passes(suite, 2, device_type="cpu")
        assert {(case.launch, case.dtype, case.condition) for case in passes} == {("eager", "float32", "gloo")}
        assert max(required_bytes(case) for case in passes) < 1e9


def test_one_device_runs_two_sub_layers_and_has_nothing_to_overlap() -> None:
    kraken = [case for case in list_passes("quick", 1) if case.architecture["kind"] == "kraken"]
    assert {(case.architecture["ways"], case.overlap) for case in kraken} == {(2, False)}


def test_an_unknown_suite_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="quick"):
        list_passes("quik", 2)


def test_a_graph_needs_cuda() -> None:
    case = worker.tiny_pass({"kind": "standard"}, 1, launch="graph")
    with pass_model(case, "cpu") as model, pytest.raises(InputError, match=r"runtime\.launch"):
        ModelPass(model, case)


def test_a_decode_pass_runs_one_token_of_each_sequence_over_a_filled_cache() -> None:
    case = worker.tiny_pass({"kind": "standard"}, 1, phase="decode")
    with pass_model(case, "cpu") as model, ModelPass(model, case) as step:
        assert step.input_ids.shape == (2, 1)
        step.run()
        first, cache = step.logits, step.cache.data.clone()
        step.run()
        assert first is not None
        assert step.logits is not None
        torch.testing.assert_close(step.logits, first, rtol=0, atol=0)
        torch.testing.assert_close(step.cache.data, cache, rtol=0, atol=0)
        assert cache.shape[2] == 17
        step.cache.data[:, :, :16] = 0.0
        step.run()
        assert not torch.equal(step.logits, first)


def test_a_step_after_other_tokens_needs_their_cache_and_has_one_token() -> None:
    model = build_model("standard", TINY)
    with pytest.raises(InputError, match="start"):
        model(torch.zeros(1, 1, dtype=torch.long), start=3)
    with pytest.raises(InputError, match="start"):
        model(torch.zeros(1, 2, dtype=torch.long), model.new_cache(1, 5), start=3)


@pytest.mark.parametrize(
    ("kernels", "first", "layer"),
    [
        ("pytorch", ("norm", "gemm", "rope", "copy", "attention", "gemm", "add"), 12),
        (
            "pytorch_composed",
            ("pow", "mean", "add", "rsqrt", "mul", "mul", "gemm"),
            33,
        ),  # float32: half precision converts 4 times
        ("fused", ("norm", "gemm", "rope", "copy", "attention", "gemm", "add"), 12),
        ("compiled", ("norm", "gemm", "rope_store", "attention", "gemm", "add_norm", "gemm"), 9),
        ("serving", ("norm", "gemm", "rope", "copy", "attention", "gemm", "add_norm", "gemm"), 10),
    ],
)
def test_a_kernel_set_has_its_kernels_a_layer(kernels: str, first: tuple[str, ...], layer: int) -> None:
    counts = []
    for depth in (1, 2):
        model = build_model("standard", replace(worker.LLAMA, num_hidden_layers=depth), dtype=torch.float32)
        model.kernels = KernelSet(kernels)
        ids = torch.tensor([[3, 1, 4, 1]])
        with torch.inference_mode():
            seen = record_kernels(lambda model=model, ids=ids: model(ids, model.new_cache(*ids.shape)))  # type: ignore[misc]
        assert seen[0] == "embedding"
        assert seen[1 : 1 + len(first)] == first
        counts.append(len(seen))
    assert counts[1] - counts[0] == layer


def test_a_pass_runs_on_one_device_and_its_memory_is_given_back() -> None:
    case = worker.tiny_pass({"kind": "parallel"}, 1)
    with pass_model(case, "cpu") as model, ModelPass(model, case) as prefill:
        prefill.run()
        assert prefill.logits is not None
        assert prefill.logits.shape == (2, 101)
        assert float(prefill.cache.data.abs().amax(dim=(1, 2, 3, 4, 5)).min()) > 0
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
