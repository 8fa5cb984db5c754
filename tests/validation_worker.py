"""What each process of the model tests does: every case of its world size, against the reference."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.models.config import TransformerConfig
from kraken_sim.program.kernel_sets import KernelSet
from validation.model_grid import TWIN_SETS
from validation.models import build_model
from validation.models.kernels import record_gemms, record_kernels
from validation.models.kraken import KrakenDecoder
from validation.models.reference import Reference, random_weights
from validation.models.sharding import padded_vocab_size, split_heads
from validation.models.weights import load_weights, shard_weights
from validation.passes import ModelPass, pass_model

if TYPE_CHECKING:
    from validation.models.decoder import Decoder

TINY = TransformerConfig(
    num_hidden_layers=3,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=8,
    intermediate_size=48,
    vocab_size=50,
    max_position_embeddings=12,
)
GQA = replace(TINY, num_key_value_heads=2)
LLAMA = replace(
    GQA,
    gated_ffn=True,
    position_embeddings=False,
    attention_bias=False,
    mlp_bias=False,
    norm_bias=False,
    tie_word_embeddings=False,
)
QWEN3 = replace(LLAMA, qk_norm=True, head_dim=12, tie_word_embeddings=True)
QWEN2 = replace(LLAMA, attention_bias=True, attention_output_bias=False)


@dataclass(frozen=True)
class Case:
    """A model on all ranks of a run."""

    name: str
    architecture: str
    config: TransformerConfig = TINY
    ways: int = 1
    batch: int = 1
    dtype: str = "float64"
    gradients: bool = True
    kernels: KernelSet = KernelSet.PYTORCH


@dataclass
class Outcome:
    """Largest deviations from the reference, relative to the reference's largest value."""

    logits_error: float
    cache_error: float
    decode_error: float = 0.0
    overlap_difference: float = 0.0
    gradient_errors: dict[str, float] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()
    gemms: tuple[tuple[int, int, int], ...] = ()


def cases(size: int) -> list[Case]:
    """The cases of a run with `size` processes."""
    untied = replace(TINY, tie_word_embeddings=False)
    common = [
        Case("standard", "standard"),
        Case("parallel", "parallel"),
        Case("kraken", "kraken", ways=size),
        Case("standard-gqa-batch2", "standard", GQA, batch=2),
        Case("parallel-gqa-batch2-untied", "parallel", replace(GQA, tie_word_embeddings=False), batch=2),
        Case("kraken-gqa-batch2", "kraken", GQA, ways=size, batch=2),
        Case("kraken-untied", "kraken", untied, ways=size),
        Case("kraken-two-ways-a-rank", "kraken", ways=2 * size),
        Case("kraken-two-ranks-a-way", "kraken", ways=size // 2),
    ]
    common += [
        Case("standard-llama-batch2", "standard", LLAMA, batch=2),
        Case("parallel-llama", "parallel", LLAMA),
        Case("kraken-llama-batch2", "kraken", LLAMA, ways=size, batch=2),
        Case("standard-qwen3", "standard", QWEN3),
        Case("standard-qwen2-batch2", "standard", QWEN2, batch=2),
    ]
    if size == 2:
        others = TWIN_SETS[1:]
        common += [
            Case(f"{kind}-{name}-{kernels}", kind, config, size, batch=2, gradients=False, kernels=kernels)
            for kind in ("standard", "parallel", "kraken")
            for name, config in (("gpt2", GQA), ("llama", LLAMA), ("qwen3", QWEN3))
            for kernels in others
        ]
        common += [
            Case("kraken-qwen3-two-ways-a-rank", "kraken", QWEN3, ways=4),
            Case("kraken-llama-two-ranks-a-way", "kraken", LLAMA, ways=1, batch=2),
            Case("standard-llama-bfloat16", "standard", LLAMA, dtype="bfloat16", gradients=False),
            Case("kraken-three-ways-a-rank", "kraken", GQA, ways=6, batch=2),
            Case("standard-bfloat16", "standard", ways=1, dtype="bfloat16", gradients=False),
            Case("kraken-float16", "kraken", ways=2, dtype="float16", gradients=False),
            Case("kraken-float32", "kraken", ways=2, dtype="float32", gradients=False),
        ]
    return common


def run(rank: int, size: int, folder: str) -> None:
    """Entry point of a process; leaves its outcomes in `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    outcomes = {case.name: asdict(_check(case)) for case in cases(size)}
    for overlap in (True, False):
        outcomes[f"pass-overlap-{overlap}"] = asdict(_check_pass(overlap, size))
    Path(folder, f"rank{rank}.json").write_text(json.dumps(outcomes))
    dist.barrier()
    dist.destroy_process_group()


def _check(case: Case) -> Outcome:
    weights = random_weights(case.architecture, case.config, case.ways)
    dtype = getattr(torch, case.dtype)
    model = build_model(case.architecture, case.config, num_ways=case.ways, dtype=dtype)
    load_weights(weights, model)
    model.kernels = case.kernels
    reference = Reference(case.architecture, case.config, weights, case.ways)
    ids = torch.randint(case.config.vocab_size, (case.batch, 9), generator=torch.Generator().manual_seed(1))

    cache = model.new_cache(*ids.shape)
    with torch.inference_mode():
        logits = model(ids, cache)
        outcome = Outcome(
            logits_error=_error(logits, _own_columns(reference.logits(ids), model)),
            cache_error=_cache_error(model, cache.data, reference),
        )
        outcome.decode_error = _decode_error(model, ids, reference)
        if isinstance(model, KrakenDecoder):
            model.overlap = False
            outcome.overlap_difference = _error(model(ids), logits)
            model.overlap = True
        # Rotary prompts of several sequences repeat the positions and write the cache sequence by sequence.
        seen = ids if case.config.position_embeddings else ids[:1]
        cache = model.new_cache(*seen.shape)
        outcome.kernels = record_kernels(lambda: model(seen, cache))
        outcome.gemms = record_gemms(lambda: model(seen, cache))
    if case.gradients:
        outcome.gradient_errors = _gradient_errors(case, model, ids, weights)
    return outcome


def _decode_error(model: Decoder, ids: torch.Tensor, reference: Reference) -> float:
    """A prefill of four tokens and a step for each later one, against the reference's prefill of as many."""
    cache = model.new_cache(*ids.shape)
    model(ids[:, :4], cache)
    errors = []
    for place in range(4, ids.shape[1]):
        logits = model(ids[:, place : place + 1], cache, start=place)
        errors.append(_error(logits, _own_columns(reference.logits(ids[:, : place + 1]), model)))
    return max([*errors, _cache_error(model, cache.data, reference)])


def tiny_pass(architecture: dict[str, object], num_devices: int, **fields: object) -> PassCase:
    """A prefill that a CPU runs in milliseconds."""
    model = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 101,
        "max_position_embeddings": 32,
    }
    case = {
        "architecture": architecture,
        "model": model,
        "num_devices": num_devices,
        "phase": "prefill",
        "batch_size": 2,
        "context_length": 16,
        "dtype": "float32",
        "launch": "eager",
        "overlap": False,
        "condition": "gloo",
    }
    return PassCase.model_validate(case | fields)


def _check_pass(overlap: bool, size: int) -> Outcome:
    """A pass on random weights against the same pass's model called directly, blocking."""
    architecture = {"kind": "kraken", "ways": size, "hidden_size": 64, "num_attention_heads": 4}
    case = tiny_pass(architecture, size, overlap=overlap)
    with pass_model(case, "cpu") as model, ModelPass(model, case) as prefill:
        prefill.run()
        assert isinstance(model, KrakenDecoder)
        assert model.overlap is overlap
        model.overlap = False
        with torch.inference_mode():
            cache = model.new_cache(*prefill.input_ids.shape)
            expected = model(prefill.input_ids, cache)
        assert prefill.logits is not None
        assert bool(expected.isfinite().all())
        return Outcome(_error(prefill.logits, expected), _error(prefill.cache.data, cache.data))


def _gradient_errors(
    case: Case, model: Decoder, ids: torch.Tensor, weights: dict[str, torch.Tensor]
) -> dict[str, float]:
    whole = {name: x.clone().requires_grad_() for name, x in weights.items()}
    logits = Reference(case.architecture, case.config, whole, case.ways).logits(ids)
    slopes = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=logits.dtype)
    (logits * slopes).sum().backward()
    expected = shard_weights({name: x.grad for name, x in whole.items() if x.grad is not None}, model)
    (model(ids) * _own_columns(slopes, model)).sum().backward()
    errors = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradient = parameter.grad
        if ".qkv." in name:
            gradient = _sum_over_replicas(gradient, model)
        errors[name] = _error(gradient, expected[name])
    return errors


def _sum_over_replicas(gradient: torch.Tensor, model: Decoder) -> torch.Tensor:
    """Key/value heads that several ranks hold: their gradients are parts of the whole one."""
    config, tensor = model.config, model.tensor
    if tensor.size <= config.num_key_value_heads:
        return gradient
    heads = [split_heads(config, rank, tensor.size) for rank in range(tensor.size)]
    parts = [torch.empty_like(gradient) for _ in heads]
    dist.all_gather(parts, gradient, group=tensor.handle)
    own = heads[tensor.rank]
    queries = own.num_heads * config.head_dim
    replicas = [part for part, other in zip(parts, heads, strict=True) if other.first_kv_head == own.first_kv_head]
    return torch.cat([gradient[:queries], torch.stack(replicas).sum(0)[queries:]])


def _own_columns(logits: torch.Tensor, model: Decoder) -> torch.Tensor:
    """This rank's columns of whole logits, zeros for the padding."""
    vocab_size, world = model.config.vocab_size, model.world
    padding = padded_vocab_size(vocab_size, world.size) - vocab_size
    return torch.nn.functional.pad(logits, (0, padding)).chunk(world.size, dim=-1)[world.rank]


def _cache_error(model: Decoder, cache: torch.Tensor, reference: Reference) -> float:
    heads = split_heads(model.config, model.tensor.rank, model.tensor.size)
    own = slice(heads.first_kv_head, heads.first_kv_head + heads.num_kv_heads)
    errors = []
    for slot, placement in enumerate(model.placements()):
        keys_values = reference.keys_values[placement.layer, placement.way][:, :, :, own]
        errors.append(_error(cache[slot], keys_values.permute(1, 2, 0, 3, 4)))
    return max(errors)


def _error(value: torch.Tensor, expected: torch.Tensor) -> float:
    assert value.shape == expected.shape, (value.shape, expected.shape)
    difference = (value.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp_min(1e-30))
