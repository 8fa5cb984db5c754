"""Domino and TokenWeave: a standard layer on two halves of the tokens, the AllReduce of one beside the other's compute.

    attn(0) | AR mlp(1) of the layer before      attn(1) | AR attn(0)      mlp(0) | AR attn(1)      mlp(1) | AR mlp(0)

The function is the standard model's. GEMMs have half of the rows, weights are read twice, and the last AllReduce of the
pass stands alone.

Domino cuts the sequences of a batch. TokenWeave cuts tokens, in a single sequence too, whose second half attends to the
keys of the first; below 1,024 tokens it cuts nothing. Its fused kernel (AllReduce, sum and norm on 4 to 8 SMs) is not
modelled: here its AllReduces are those of the runtime.

Sources: Wang et al., "Domino" (arXiv 2409.15241; DeepSpeed, runtime/domino/transformer.py, across layers); Gond et al.,
"TokenWeave" (arXiv 2505.11329; github microsoft/tokenweave).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture, degenerate_alone
from kraken_sim.architectures.lowering import lowered
from kraken_sim.architectures.standard import STANDARD_WIRING
from kraken_sim.architectures.wiring import (
    Attend,
    Begin,
    Exchange,
    FeedForward,
    Layers,
    Normalise,
    OfPart,
    Take,
    Wiring,
    always,
)
from kraken_sim.architectures.workload import halves_of
from kraken_sim.errors import Problem
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.architectures.architecture import ArchitectureFields, Question
    from kraken_sim.architectures.workload import Workload

LEAST_TOKENS: Final = 1024
"""From so many tokens on TokenWeave cuts them (github microsoft/tokenweave, docs/AddTokenWeave.md)."""

_ATTENTION: Final = Exchange("all_reduce_attention")
_FFN: Final = Exchange("all_reduce_ffn")


def _layout(question: Question[ArchitectureFields]) -> Layout:
    # One part's output is under way while the other's is made.
    return Layout(whole_layer(question.config), question.num_devices, extra_streams=1)


def _attention(part: int) -> OfPart:
    taken = Take("residual_ffn", _FFN.name, layers_back=1)
    return OfPart(part, (taken, Normalise("norm_attention"), Attend(), Begin(_ATTENTION)))


def _ffn(part: int) -> OfPart:
    taken = Take("residual_attention", _ATTENTION.name)
    return OfPart(part, (taken, Normalise("norm_ffn"), FeedForward(), Begin(_FFN)))


def _last(part: int) -> OfPart:
    return OfPart(part, (Take("residual_ffn", _FFN.name),))


DOMINO_WIRING: Final = Wiring(
    "domino",
    (Layers(((_attention(0), _attention(1), _ffn(0), _ffn(1)),)),),
    end=(_last(0), _last(1)),
    two_parts=True,
)
"""4 L AllReduces of half of [T, d], all but the last one beside the other half."""

TOKEN_WEAVE_WIRING: Final = replace(
    DOMINO_WIRING,
    name="token_weave",
    uncut=replace(STANDARD_WIRING, name="token_weave"),
    least_tokens=LEAST_TOKENS,
)
"""Domino's steps on halves of the tokens, a standard model's where there are few."""


def _needs_overlap(kind: str, work: Workload) -> Iterator[Problem]:
    if work.ragged:
        yield Problem("sequences", f"{kind} cuts sequences that are alike", example="batch_size: 8")
    if not work.overlap:
        message = f"{kind} cuts the tokens for nothing where no collective may run beside compute"
        yield Problem("runtime.overlap", message, work.overlap, "true")


def _domino_asks(_: Layout, work: Workload) -> Iterator[Problem]:
    if work.batch_size == 1:
        yield Problem("batch_size", "domino cuts the sequences of a batch in two", work.batch_size, "2")
    yield from _needs_overlap("domino", work)


def _weave_asks(_: Layout, work: Workload) -> Iterator[Problem]:
    if work.num_tokens >= LEAST_TOKENS and len(halves_of(work)) > 1:
        yield from _needs_overlap("token_weave", work)


DOMINO: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="domino",
    description="a standard layer on two halves of the batch, each half's AllReduces beside the other's compute",
    quality="the same function",
    layout=_layout,
    program=partial(lowered, DOMINO_WIRING),
    wiring=partial(always, DOMINO_WIRING),
    asks=_domino_asks,
    degenerate=partial(degenerate_alone, "one device has no AllReduce to hide"),
    searched=False,
    overlaps=True,
)

TOKEN_WEAVE: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="token_weave",
    description="a standard layer on two halves of the tokens, each half's AllReduces beside the other's compute",
    quality="the same function",
    layout=_layout,
    program=partial(lowered, TOKEN_WEAVE_WIRING),
    wiring=partial(always, TOKEN_WEAVE_WIRING),
    asks=_weave_asks,
    degenerate=partial(degenerate_alone, "one device has no AllReduce to hide"),
    searched=False,
    overlaps=True,
)
