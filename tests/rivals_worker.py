"""What each process of the tests of rivals does: every case against the reference with a list of devices."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from validation_worker import GQA, LLAMA, QWEN3, TINY

from kraken_sim.program.kernel_sets import KernelSet
from validation.models import build_model
from validation.models.kernels import record_kernels
from validation.models.reference import random_weights
from validation.models.rivals_reference import RivalReference
from validation.models.sharding import padded_vocab_size
from validation.models.weights import load_weights, shard_weights
from validation.models.wired import WiredDecoder

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from validation.models.decoder import Decoder

SIZE = 2


@dataclass(frozen=True)
class RivalCase:
    """A model on all ranks; `own` are the architecture's fields, `reference` the reference's."""

    name: str
    kind: str
    config: TransformerConfig = TINY
    own: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    gradients: bool = True
    kernels: KernelSet = KernelSet.PYTORCH
    length: int = 7
    steps: int = 3
    """Decode steps behind a prefill of the tokens before."""

    @property
    def ways(self) -> int:
        """Sub-layers of a layer."""
        return int(self.own.get("tracks", 1))

    @property
    def seen(self) -> tuple[int, int]:
        """Sequences and tokens of the prefill whose kernels are recorded.

        Rotary prompts of several sequences write the cache sequence by sequence; Domino has one in each half. Tokens
        that do not divide are filled up.
        """
        batch = self.batch if self.config.position_embeddings else 2 if self.kind == "domino" else 1
        if self.kind == "sequence_parallel":
            return 1, self.length - self.length % SIZE
        return batch, self.length


LONG, LONG_GQA = (replace(c, num_hidden_layers=2, max_position_embeddings=1100) for c in (LLAMA, GQA))
TRACK = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
"""The shape of `GQA` and `LLAMA` in an architecture's fields."""


def tracks(name: str, number: int, every: int, config: TransformerConfig = GQA, **fields: Any) -> RivalCase:
    own, reference = {"tracks": number, "sync_every": every}, {"tracks": number, "sync_every": every}
    return RivalCase(f"parallel_track-{name}", "parallel_track", config, own | TRACK, reference, **fields)


LADDER_SETS = (KernelSet.COMPILED, KernelSet.SERVING)


def rival_cases() -> list[RivalCase]:
    """Every architecture that runs by its wiring; gradients where the residual is the same on all devices."""
    drop = RivalCase(
        "sync_point_drop", "sync_point_drop", LLAMA, {"dropped_share": 0.7}, {"dropped_layers": 2}, 2, False
    )
    caat = RivalCase("caat_net", "caat_net", GQA, {"reduced_share": 0.25}, {"reduced_channels": 8}, 2, False)
    return [
        RivalCase("ladder", "ladder", batch=2),
        RivalCase("ladder-gqa", "ladder", GQA),
        RivalCase("ladder-qwen3", "ladder", QWEN3, batch=2),
        *(RivalCase(f"ladder-{kernels}", "ladder", LLAMA, {}, {}, 2, False, kernels) for kernels in LADDER_SETS),
        RivalCase("desync", "desync", TINY, {"sync_every": 1}, {"sync_every": 1}, 2, False),
        RivalCase("desync-every-second", "desync", LLAMA, {"sync_every": 2}, {"sync_every": 2}, 2, False),
        drop,
        replace(drop, name="sync_point_drop-serving", kernels=KernelSet.SERVING),
        caat,
        replace(caat, name="caat_net-llama", config=LLAMA),
        RivalCase("domino", "domino", batch=3),
        RivalCase("domino-llama", "domino", LLAMA, batch=2),
        RivalCase("sequence_parallel", "sequence_parallel", length=8),
        RivalCase("sequence_parallel-uneven", "sequence_parallel", GQA, batch=3),
        RivalCase("sequence_parallel-llama", "sequence_parallel", LLAMA, batch=2),
        RivalCase("sequence_parallel-serving", "sequence_parallel", LLAMA, kernels=KernelSet.SERVING),
        tracks("two", SIZE, 2),
        tracks("four", 2 * SIZE, 1, LLAMA, batch=2),
        tracks("four-serving", 2 * SIZE, 2, LLAMA, gradients=False, kernels=KernelSet.SERVING),
        tracks("shared", 1, 2, LLAMA),
        RivalCase("token_weave-short", "token_weave", batch=2),
        RivalCase("token_weave", "token_weave", LONG, length=1030, steps=1, gradients=False),
        RivalCase("token_weave-sequences", "token_weave", LONG_GQA, batch=2, length=520, steps=1),
    ]


@dataclass
class RivalOutcome:
    """Largest deviations from the reference, relative to its largest value."""

    logits_error: float
    decode_error: float = 0.0
    overlap_difference: float = 0.0
    gradient_errors: dict[str, float] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()


def run(rank: int, folder: str) -> None:
    """Entry point of a process; leaves its outcomes in `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=SIZE)
    outcomes = {case.name: asdict(_check(case, rank)) for case in rival_cases()}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(outcomes))
    dist.barrier()
    dist.destroy_process_group()


def _check(case: RivalCase, rank: int) -> RivalOutcome:
    weights = random_weights("standard", case.config, case.ways)
    model = build_model(case.kind, case.config, num_ways=case.ways, fields=case.own, dtype=torch.float64)
    load_weights(weights, model)
    model.kernels = case.kernels
    reference = RivalReference(case.kind, case.config, weights, SIZE, **case.reference)
    ids = torch.randint(case.config.vocab_size, (case.batch, case.length), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model(ids, model.new_cache(*ids.shape))
        outcome = RivalOutcome(_error(logits, _own(reference.device_logits(ids)[rank], model)))
        outcome.decode_error = _decode_error(model, ids, reference, rank, case.steps)
        if isinstance(model, WiredDecoder):
            model.overlap = False
            outcome.overlap_difference = _error(model(ids), logits)
            model.overlap = True
        batch, length = case.seen
        seen = ids[:batch, :length]
        outcome.kernels = record_kernels(lambda: model(seen, model.new_cache(*seen.shape)))
    if case.gradients:
        outcome.gradient_errors = _gradient_errors(case, model, ids, weights)
    return outcome


def _decode_error(model: Decoder, ids: torch.Tensor, reference: RivalReference, rank: int, steps: int) -> float:
    """A prefill and a step for each later token, against the reference's prefill of as many."""
    cache, first = model.new_cache(*ids.shape), ids.shape[1] - steps
    model(ids[:, :first], cache)
    errors = []
    for place in range(first, ids.shape[1]):
        logits = model(ids[:, place : place + 1], cache, start=place)
        expected = reference.device_logits(ids[:, : place + 1])[rank]
        errors.append(_error(logits, _own(expected, model)))
    return max(errors)


def _gradient_errors(
    case: RivalCase, model: Decoder, ids: torch.Tensor, weights: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Of each rank's own matrices, whose gradient is that of the whole model; a loss over every rank's columns."""
    whole = {name: x.clone().requires_grad_() for name, x in weights.items()}
    devices = RivalReference(case.kind, case.config, whole, SIZE, **case.reference).device_logits(ids)
    slopes = torch.randn(devices[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    padded = [torch.nn.functional.pad(x * slopes, (0, _padding(model))) for x in devices]
    loss = sum((part.chunk(SIZE, dim=-1)[device].sum() for device, part in enumerate(padded)), torch.zeros(()))
    loss.backward()
    expected = shard_weights({name: x.grad for name, x in whole.items() if x.grad is not None}, model)
    (model(ids) * _own(slopes, model)).sum().backward()
    errors = {}
    for name, parameter in model.named_parameters():
        if ".layers." in f".{name}" and name.endswith("weight") and "norm" not in name:
            assert parameter.grad is not None, name
            errors[name] = _error(parameter.grad, expected[name])
    return errors


def _padding(model: Decoder) -> int:
    vocab_size = model.config.vocab_size
    return padded_vocab_size(vocab_size, SIZE) - vocab_size


def _own(logits: torch.Tensor, model: Decoder) -> torch.Tensor:
    """This rank's columns of whole logits, zeros for the padding."""
    return torch.nn.functional.pad(logits, (0, _padding(model))).chunk(SIZE, dim=-1)[model.world.rank]


def _error(value: torch.Tensor, expected: torch.Tensor) -> float:
    assert value.shape == expected.shape, (value.shape, expected.shape)
    difference = (value.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp_min(1e-30))
