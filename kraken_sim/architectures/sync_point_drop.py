"""Sync-Point Drop (SPD): in chosen layers of a trained model the AllReduce after attention is dropped.

    Y_i = a_i(LN1 X);   Z_i = m_i(LN2(X + Y_i));   X' = X + AR(Y_i + Z_i)

where a_i and m_i are a device's parts of attention and FFN; the other layers are standard ones. The down projection
accumulates onto Y_i. Which layers are chosen (by how little the perplexity changes) moves no time: here the first ones.

Source: Kim et al., "SPD: Sync-Point Drop" (arXiv 2502.20727), whose speed figures drop 70 % of the layers'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from kraken_sim.architectures.architecture import Architecture, ArchitectureFields, degenerate_alone
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.standard import ATTENTION, FEED_FORWARD
from kraken_sim.architectures.wiring import Attend, Exchange, FeedForward, Layers, Normalise, Residual, Wiring
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.architectures.architecture import Question

DROPPED_SHARE: Final = 0.7
"""Share of the layers if nobody says it, the paper's (arXiv 2502.20727, LLaMA2-70B on eight A100)."""


class DropFields(ArchitectureFields):
    """What a scenario may say of it."""

    dropped_share: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] | None = Field(
        default=None, description="sync_point_drop: share of the layers; default: 0.7.", examples=[0.5]
    )


@dataclass(frozen=True, slots=True)
class DropLayout(Layout):
    """A layout of which `dropped_layers` have one AllReduce."""

    dropped_layers: int = 0


def _layout(question: Question[DropFields]) -> DropLayout:
    share = DROPPED_SHARE if question.fields.dropped_share is None else question.fields.dropped_share
    # X is needed again behind X + Y_i.
    return DropLayout(
        whole_layer(question.config),
        question.num_devices,
        extra_streams=1,
        dropped_layers=round(share * question.config.num_hidden_layers),
    )


_DROPPED: Final = (
    Normalise("norm_attention"),
    Attend(),
    Residual("sum_attention", norm_only=True),
    Normalise("norm_ffn"),
    FeedForward(onto=True),
    Residual("residual_ffn", Exchange("all_reduce_ffn")),
)


def _wiring(layout: DropLayout, _: int) -> Wiring:
    """One blocking AllReduce of [T, d] in the layers that drop one, two in the others."""
    layers = (Layers((_DROPPED,), layout.dropped_layers), Layers(((*ATTENTION, *FEED_FORWARD),)))
    return Wiring("sync_point_drop", layers)


def _report(layout: DropLayout) -> Mapping[str, int]:
    return {"dropped_layers": layout.dropped_layers}


SYNC_POINT_DROP: Final[Architecture[DropFields, DropLayout]] = Architecture(
    kind="sync_point_drop",
    description="standard layers, most of them without the AllReduce after attention",
    quality="LLaMA2-70B with 70 % dropped: 0.94 points of accuracy lost (arXiv 2502.20727, as others report it)",
    layout=_layout,
    program=partial(lowered_by, _wiring),
    wiring=_wiring,
    fields=DropFields,
    degenerate=partial(degenerate_alone, "on one device there is nothing to drop, and it is the standard model"),
    searched=False,
    report=_report,
    columns=("dropped_layers",),
)
