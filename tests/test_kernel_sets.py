"""Kernel sets: a layer's kernels are those that engines launch, in their order, and move the bytes that theirs do."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from layout_support import kraken_of, layout_of, program_of
from rich.console import Console

from kraken_sim import compare, simulate, sweep
from kraken_sim.architectures.registry import kinds
from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.cli import main
from kraken_sim.costs.collectives.custom import custom_all_reduce
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.procure.candidates import procure
from kraken_sim.explore.procure.request import ProcureRequest
from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.models.hf import config_from_fields
from kraken_sim.models.presets import preset
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import (
    Attention,
    Collective,
    CollectiveKind,
    Copy,
    DType,
    Elementwise,
    Embedding,
    Gemm,
    Norm,
)
from kraken_sim.report.html import render_html
from kraken_sim.report.validation import validation_report
from kraken_sim.validate.passes import scenario_of_pass, validate_passes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.program.ops import Op
    from kraken_sim.program.program import Program

MEASURED: Final = [
    Path(__file__).parent.parent / "validation" / "measurements" / f"h200-sxm-x1-llama-passes{part}.jsonl"
    for part in ("", "-2")
]
LLAMA_FIELDS: Final[dict[str, object]] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 32_000,
}
LLAMA: Final = config_from_fields(LLAMA_FIELDS | {"max_position_embeddings": 8192})
QWEN: Final = replace(LLAMA, qk_norm=True)
GPT2: Final = replace(preset("1.3B"), num_hidden_layers=4)
FUSED_BELOW: Final = ((2, 64 << 20),)

_PARTS: Final = ("Memset", "splitKreduce", "lean_reduction")
"""Nodes that a GEMM or an attention brings with it."""

_NAMES: Final = (
    ("gather", "embedding"),
    ("indexSelect", "embedding"),
    ("nvjet", "gemm"),
    ("gemv", "gemm"),
    ("sdpa", "attention"),
    ("layer_norm", "norm"),
    ("triton_red", "norm"),
    ("triton_per", "norm"),
    ("silu_split", "silu_mul"),
    ("silu", "silu"),
    ("flip", "rope"),
    ("pow_tensor", "pow"),
    ("MeanOps", "mean"),
    ("rsqrt", "rsqrt"),
    ("neg_k", "neg"),
    ("CatArray", "cat"),
    ("copy", "copy"),
    ("nocast<at::native::direc", "copy"),
    ("nocast<at::native::(anon", "silu"),
    ("Memcpy", "copy"),
    ("_add", "add"),
    ("BinaryFunctor", "mul"),
    ("gpu_kernel_impl_nocast<at::native::Binar", "mul"),
)
"""Parts of the names of CUDA kernels; the first that fits says which."""


def kernel_of(name: str) -> str:
    """The kind of a kernel that the profiler saw; a generated one that writes the cache has a copy in its name."""
    if "flip" in name and "copy" in name and "triton_poi" in name:
        return "rope_kv_write"
    return next((kind for part, kind in _NAMES if part in name), name)


def kind_of_op(op: Op) -> str:
    """The same of an op of a program."""
    if isinstance(op, Elementwise):
        return "copy" if op.function == "convert" else op.function
    names = {Gemm: "gemm", Attention: "attention", Norm: "norm", Copy: "copy", Embedding: "embedding"}
    return names[type(op)]


def seen_passes() -> Iterator[tuple[PassRecord, KernelsRecord]]:
    """Passes whose first kernels the profiler saw."""
    for path in MEASURED:
        file = read_measurements(path)
        passes = {record.key: record for record in file.select(PassRecord)}
        for seen in file.select(KernelsRecord):
            yield passes[seen.of], seen


SEEN: Final = list(seen_passes())


@pytest.mark.parametrize(("record", "seen"), SEEN, ids=[f"{r.kernels}-{r.phase}-{i}" for i, (r, _) in enumerate(SEEN)])
def test_a_program_has_the_kernels_that_the_profiler_saw_in_their_order(
    record: PassRecord, seen: KernelsRecord
) -> None:
    names = [kernel.name for kernel in seen.kernels]
    found = [kernel_of(name) for name in names if not any(part in name for part in _PARTS)]
    program = Predictor().prepare(scenario_of_pass(record, {}, "h200-sxm-x2")).program
    assert len(found) > 30
    assert [kind_of_op(kernel.op) for kernel in islice(program.kernels(), len(found))] == found


def program(
    kernels: str,
    kind: str = "standard",
    num_devices: int = 2,
    config: object = LLAMA,
    *,
    decode: bool = False,
    limits: tuple[tuple[int, int], ...] = (),
) -> Program:
    """128 tokens of a model by a kernel set."""
    assert isinstance(config, type(LLAMA))
    layout = kraken_of(config, 2, num_devices) if kind == "kraken" else layout_of(kind, config, num_devices)
    phase = Phase.DECODE if decode else Phase.PREFILL
    work = Workload(1, 128, phase, DType.BFLOAT16, kernels=KernelSet(kernels), all_reduce_norm_bytes=limits)
    return program_of(kind, layout, config, work)


def layer(found: Program) -> list[str]:
    """The names of the kernels of a layer that is not the first."""
    segment = next(segment for segment in found.segments if segment.name == "layer")
    return [kernel.name for kernel in segment.kernels]


def test_a_serving_layer_adds_in_its_norms_and_has_ten_kernels_and_two_all_reduces() -> None:
    assert layer(program("serving")) == [
        "add_norm_attention", "gemm_qkv", "rope", "kv_cache", "attention", "gemm_out", "all_reduce_attention",
        "add_norm_ffn", "gemm_up", "silu_mul", "gemm_down", "all_reduce_ffn",
    ]  # fmt: skip


def test_the_first_layers_norm_has_no_add_and_the_last_sum_stands_alone() -> None:
    found = program("serving")
    names = {segment.name: [kernel.name for kernel in segment.kernels] for segment in found.segments}
    assert [(segment.name, segment.repeat) for segment in found.segments][1:3] == [("layer_first", 1), ("layer", 3)]
    assert names["layer_first"][0] == "norm_attention"
    assert names["layer_first"][1:] == names["layer"][1:]
    assert names["head"] == ["residual_ffn", "norm_final", "lm_head"]


def test_a_fused_serving_layer_norms_in_its_all_reduces_and_turns_in_its_attention() -> None:
    fused = [
        "all_reduce_ffn_add_norm_attention", "gemm_qkv", "rope_kv_write", "attention", "gemm_out",
        "all_reduce_attention_add_norm_ffn", "gemm_up", "silu_mul", "gemm_down",
    ]  # fmt: skip
    assert layer(program("serving_fused", limits=FUSED_BELOW)) == fused
    decode = layer(program("serving_fused", limits=FUSED_BELOW, decode=True))
    assert decode == [name for name in fused if name != "rope_kv_write"]


def test_an_all_reduce_above_the_limit_leaves_the_norm_alone() -> None:
    num_bytes = 128 * 4096 * 2
    at, below = (layer(program("serving_fused", limits=((2, limit),))) for limit in (num_bytes, num_bytes - 1))
    assert "all_reduce_attention_add_norm_ffn" in at
    assert below == [
        name if name != "rope" else "rope_kv_write" for name in layer(program("serving")) if name != "kv_cache"
    ]


def test_an_all_reduce_of_another_number_of_devices_and_a_layer_norm_stay_alone() -> None:
    assert "all_reduce_ffn" in layer(program("serving_fused", num_devices=4, limits=FUSED_BELOW))
    assert "all_reduce_ffn" in layer(program("serving_fused", config=GPT2, limits=FUSED_BELOW))
    assert layer(program("serving_fused", config=GPT2)) == layer(program("compiled", config=GPT2))


def test_kraken_sends_what_a_norm_has_summed_and_still_sums_beside_the_all_reduce() -> None:
    assert layer(program("serving_fused", "kraken", limits=FUSED_BELOW)) == [
        "add_norm_attention", "send", "all_reduce", "gemm_qkv", "rope_kv_write", "attention", "gemm_out",
        "residual_attention", "add_norm_ffn", "gemm_up", "silu_mul", "gemm_down",
    ]  # fmt: skip


def test_two_sub_layers_of_a_device_are_both_summed_before_they_are_sent() -> None:
    names = layer(program("serving", "kraken", num_devices=1))
    assert names[:3] == ["add_norm_attention.0", "add_norm_attention.1", "send.1"]
    assert "all_reduce" not in names


def test_a_shared_sub_layer_norms_in_the_all_reduces_of_its_group() -> None:
    found = layer(program("serving_fused", "kraken", num_devices=4, limits=FUSED_BELOW))
    assert found[0] == "all_reduce_group_ffn_add_norm_attention"
    # The norm of the FFN reads what is received, so the attention's sum has no norm behind it.
    assert found[found.index("gemm_out") :][:3] == ["gemm_out", "all_reduce_group_attention", "residual_attention"]


@pytest.mark.parametrize("kind", ["standard", "parallel", "kraken"])
@pytest.mark.parametrize("config", [LLAMA, QWEN, GPT2], ids=["llama", "qwen3", "gpt2"])
def test_every_set_has_the_same_gemms_and_attentions_and_reduces_the_same_bytes(kind: str, config: object) -> None:
    def shared(kernels: str) -> list[tuple[object, ...]]:
        ops = [kernel.op for kernel in program(kernels, kind, config=config, limits=FUSED_BELOW).kernels()]
        found: list[tuple[object, ...]] = [(op,) for op in ops if isinstance(op, Gemm | Attention)]
        return found + [(op.num_bytes, op.num_devices) for op in ops if isinstance(op, Collective)]

    everything = {kernels.value: sorted(map(repr, shared(kernels))) for kernels in KernelSet}
    assert all(found == everything["pytorch"] for found in everything.values())


@pytest.mark.parametrize("kernels", KernelSet)
def test_no_set_moves_fewer_bytes_than_its_tensors_have(kernels: str) -> None:
    """Each norm reads and writes [T, d], each of the two sums of a layer reads one tensor more and is written."""
    tensor = 128 * 4096 * 2
    found = program(kernels, num_devices=1)
    moved = 0.0
    for kernel in next(segment for segment in found.segments if segment.name == "layer").kernels:
        op = kernel.op
        if isinstance(op, Norm):
            moved += (2 + op.adds + op.writes_sum) * op.num_tokens * op.hidden_size * 2
        elif isinstance(op, Elementwise) and ("norm" in kernel.name or "residual" in kernel.name):
            moved += op.moved_bytes
    # Sums in norms 8, apart 10; composed norms 18 tensors each (with fp32 inside) but for rows of one number.
    least = {"pytorch": 10, "fused": 10, "pytorch_composed": 6 + 2 * 18}.get(kernels, 8)
    assert moved / tensor == pytest.approx(least, rel=0.001)


ANSWERING: Final = [kind for kind in kinds() if kind not in ("domino", "file", "sub_layer_file")]
"""The architectures that run a single prompt."""

QUESTION: Final[dict[str, object]] = {
    "hardware": "h200-sxm-x8",
    "model": LLAMA_FIELDS,
    "num_devices": 4,
    "context_length": 128,
    "dtype": "bfloat16",
}


def ask(kernels: str = "serving_fused", **fields: Any) -> Prediction:
    return simulate({**QUESTION, "runtime": {"kernels": kernels}, **fields})


def test_all_reduces_take_in_their_norms_up_to_the_engines_limit() -> None:
    # The last layer's AllReduce has no norm of all its tokens behind it. 256 tokens of 4096 are 2 MiB, vLLM's limit.
    assert [ask(context_length=tokens).norms_in_all_reduces for tokens in (128, 256, 257)] == [(7, 8), (7, 8), (0, 8)]
    legacy = {"kernels": "serving_fused", "collective": {"selection": "tensorrt_llm_legacy"}}
    # TensorRT-LLM's table goes on to 512 tokens.
    assert [ask(context_length=t, runtime=legacy).norms_in_all_reduces for t in (512, 513)] == [(7, 8), (0, 8)]


def test_one_device_has_no_all_reduce_and_so_nothing_to_refuse() -> None:
    found = ask(hardware="a100-sxm4-80gb-x8", num_devices=1)
    assert found.norms_in_all_reduces == (0, 0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hardware": "a100-sxm4-80gb-x8"}, "is ampere"),
        ({"hardware": "l40s-x8"}, "is ada"),
        ({"hardware": "h100-pcie-x4"}, "needs NVLink.*pcie"),
        ({"model": {"preset": "1.3B"}}, "LayerNorms"),
        ({"dtype": "float32"}, "16 bits"),
    ],
)
def test_what_cannot_norm_in_its_all_reduces_is_refused_with_the_nearest_set(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"runtime.kernels: .*{why}.*kernels: serving"):
        ask(**fields)
    ask("serving", **fields)


def test_an_all_reduce_with_a_norm_takes_more_than_its_kernel_and_less_than_the_two_apart() -> None:
    profile = load_profile("h200-sxm-x8")
    policy = CollectivePolicy(Library.CUSTOM, algorithm="one_shot")
    pricing = Pricing(profile, policy, num_devices=4)
    for tokens in (1, 16, 128):
        norm = Norm(tokens, 4096, DType.BFLOAT16, "rms_norm", fused=True, adds=1, writes_sum=True)
        alone = Collective(CollectiveKind.ALL_REDUCE, tokens * 4096 * 2, 4)
        fused = pricing.collective(replace(alone, norm=norm))
        kernel = custom_all_reduce(
            alone.num_bytes, "one_shot_tensorrt_llm", profile.topology.interconnect(4), profile.collectives
        )
        assert kernel.busy_s < fused.busy_s < kernel.busy_s + pricing.kernel(norm).busy_s
        assert fused.busy_s == pytest.approx(fused.latency_s + fused.transfer_s)
        assert fused.link_bytes == kernel.link_bytes


def test_above_an_engines_one_shot_size_two_shots_are_taken() -> None:
    pricing = Pricing(load_profile("h200-sxm-x8"), num_devices=2)
    norm = Norm(1, 4096, DType.BFLOAT16, "rms_norm", fused=True, adds=1, writes_sum=True)
    sizes = {32 << 20: "one_shot", (32 << 20) + 4096: "two_shot"}
    for num_bytes, algorithm in sizes.items():
        op = Collective(CollectiveKind.ALL_REDUCE, num_bytes, 2, norm=norm)
        assert pricing.collective(op).algorithm == algorithm


def test_a_comparison_of_sets_says_what_each_is_worth_and_what_it_does_to_a_gain() -> None:
    found = compare(QUESTION, kernels=["pytorch", "serving_fused"])
    assert found.kernel_sets == ("pytorch", "serving_fused")
    asked = [(p.resolved.kind, p.scenario.runtime.kernels) for p in found]
    assert asked == [(kind, kernels) for kernels in found.kernel_sets for kind in ANSWERING]
    times, n = [p.latency_s for p in found], len(ANSWERING)
    assert found.speedups_percent == pytest.approx([100 * (times[i // n * n] / t - 1) for i, t in enumerate(times)])
    assert found.kernels_speedups_percent == pytest.approx([100 * (times[i % n] / t - 1) for i, t in enumerate(times)])
    assert found.records[n]["kernels"] == "serving_fused"
    page = render_html(found)
    assert page.count("One layer: kraken, serving_fused") == 1
    assert "with serving_fused kernels" in page
    assert "against pytorch" in page


@pytest.mark.parametrize("kernels", KernelSet)
def test_every_set_is_folded_exactly(kernels: str) -> None:
    """A first layer of its own, sums that cross from a layer to the next: simulated one by one they take as long."""
    asked = {**QUESTION, "architecture": {"kind": "kraken"}, "runtime": {"kernels": kernels}}
    assert simulate(asked).latency_s == pytest.approx(simulate(asked, exact=True).latency_s, rel=1e-9)


def test_a_purchase_says_that_a_machine_cannot_run_the_kernels() -> None:
    price = {"per_hour": 12.0, "source": "an example", "date": "2026-01-01"}
    load, sla = {"prompts_per_s": 1, "max_utilisation": 0.8}, {"ttft": "12 ms", "percentile": 99}
    workload = {"name": "chat", "share": 1.0, "model": QUESTION["model"], "prompt_tokens": 2048, "output_tokens": 8}
    request = {
        "name": "kernels", "currency": "EUR", "sla": sla, "load": load,
        "workloads": [workload | {"dtype": "bfloat16", "runtime": {"kernels": "serving_fused"}}],
        "candidates": [{"name": "a100", "hardware": "a100-sxm4-80gb-x8", "price": price}],
    }  # fmt: skip
    with pytest.raises(InfeasibleError, match=r"1 x a100.*TTFT.*runtime\.kernels: .*is ampere"):
        procure(ProcureRequest.model_validate(request))


def test_an_unknown_set_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'serving'"):
        compare(QUESTION, kernels=["servin"])
    with pytest.raises(InputError, match=r"runtime\.kernels.*must be one of"):
        ask("vllm")


def test_kernel_sets_and_the_state_of_the_card_can_be_swept() -> None:
    runtime = {"kernels": ["pytorch", "serving"], "load": ["sustained", "rested"]}
    rows = sweep({**QUESTION, "hardware": "h200-sxm-x2", "num_devices": 2, "runtime": runtime}, jobs=1).records
    assert [(row["runtime.kernels"], row["runtime.load"]) for row in rows] == [
        ("pytorch", "sustained"), ("pytorch", "rested"), ("serving", "sustained"), ("serving", "rested"),
    ]  # fmt: skip
    # The rested card has all of its clock, but its first launch begins some 50 us later.
    assert rows[1]["latency_s"] <= rows[0]["latency_s"] + 1e-4


def test_the_command_line_compares_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "kraken-6.7b-on-two-h200", "--kernels", "pytorch,compiled", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    half = len(rows) // 2
    assert [row["kernels"] for row in rows] == ["pytorch"] * half + ["compiled"] * half
    assert rows[half]["speedup_percent"] == rows[0]["kernels_speedup_percent"] == 0.0
    assert main(["compare", "kraken-6.7b-on-two-h200", "--kernels", "pytorch, compiled"]) == 0
    shown = capsys.readouterr().out
    assert "kraken, compiled" in shown
    assert "against pytorch" in shown
    assert main(["compare", "kraken-6.7b-on-two-h200", "--kernels", "pytorch,"]) == 2
    assert "--kernels" in capsys.readouterr().err


def test_a_validation_shows_the_errors_of_each_set_and_load() -> None:
    result = validate_passes(read_measurements(MEASURED[1].with_name("h200-sxm-x1-llama-passes-2-again.jsonl")))
    console = Console(record=True, width=200)
    console.print(validation_report(result))
    shown = console.export_text()
    assert "Errors by kernel set and load" in shown
    assert all(kernels in shown for kernels in {c.record.kernels.value for c in result.comparisons})


def test_a_pass_is_predicted_with_its_own_set_and_load() -> None:
    record = SEEN[0][0]
    asked = scenario_of_pass(record.model_copy(update={"kernels": KernelSet.FUSED, "load": CardLoad.RESTED}), {}, "x")
    assert (asked.runtime.kernels, asked.runtime.load) == (KernelSet.FUSED, CardLoad.RESTED)
    assert scenario_of_pass(record.model_copy(update={"load": None}), {}, "x").runtime.load is CardLoad.SUSTAINED
