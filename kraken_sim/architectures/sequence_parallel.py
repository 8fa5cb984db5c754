"""Megatron's sequence parallelism: the standard layer, whose norms and sums have each device's tokens only.

    u = AG(LN1 x^(i));  x^(i) += RS(a_i(u));   v = AG(LN2 x^(i));  x^(i) += RS(m_i(v))

where x^(i) is the residual of T / N tokens, AG an AllGather and RS a ReduceScatter over the tokens. The function is the
standard layer's. All collectives block. Where T does not divide by N the last share is filled up.

Source: Korthikanti et al., "Reducing Activation Recomputation" (arXiv 2205.05198), section 4.2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture, degenerate_alone
from kraken_sim.architectures.lowering import lowered
from kraken_sim.architectures.wiring import (
    Attend,
    Exchange,
    FeedForward,
    Layers,
    Normalise,
    Residual,
    Send,
    SendStream,
    Wiring,
    always,
)
from kraken_sim.models.layout import tensor_parallel
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import ArchitectureFields, Question
    from kraken_sim.models.layout import Layout


def _layout(question: Question[ArchitectureFields]) -> Layout:
    return tensor_parallel(question.config, question.num_devices)


def _gather(name: str) -> Exchange:
    return Exchange(f"all_gather_{name}", kind=CollectiveKind.ALL_GATHER)


def _scatter(name: str) -> Exchange:
    return Exchange(f"reduce_scatter_{name}", kind=CollectiveKind.REDUCE_SCATTER)


_LAYER: Final = (
    Normalise("norm_attention"),
    Send(_gather("attention")),
    Attend(),
    Residual("residual_attention", _scatter("attention")),
    Normalise("norm_ffn"),
    Send(_gather("ffn")),
    FeedForward(),
    Residual("residual_ffn", _scatter("ffn")),
)

SEQUENCE_PARALLEL_WIRING: Final = Wiring(
    "sequence_parallel", (Layers((_LAYER,)),), end=(SendStream(_gather("final")),), split_tokens=True
)
"""2 L AllGathers and 2 L ReduceScatters of [T, d], and an AllGather before the final norm."""


SEQUENCE_PARALLEL: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="sequence_parallel",
    description="a standard layer with AllGather before and ReduceScatter behind each block; norms have T / N tokens",
    quality="the same function",
    layout=_layout,
    program=partial(lowered, SEQUENCE_PARALLEL_WIRING),
    wiring=partial(always, SEQUENCE_PARALLEL_WIRING),
    degenerate=partial(degenerate_alone, "one device has all tokens, and it is the standard model"),
    searched=False,
)
