"""Desynchronised residual: most AllReduces are dropped, and devices then carry residuals of their own.

    dropped:  x_i = x_i + f_i(LN_i x_i)               kept:  x = AR( f_i(LN_i x_i) + x_i / N )

Attention's AllReduces are dropped, and all of the FFN's but every `sync_every`-th and the last. A kept one averages the
residuals. A norm behind a dropped one has weights of its own on each device, so a model is trained for its N.

Source: Zhang et al., "Ladder-Residual" (arXiv 2501.06589), and the authors' code (github
mayank31398/ladder-residual-inference, gpt_fast/gpt_desync_TP.py: attention False, mlp True is its "2x").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import Field

from kraken_sim.architectures.architecture import Architecture, ArchitectureFields, Size, degenerate_alone
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.wiring import (
    Attend,
    Exchange,
    FeedForward,
    Layers,
    Normalise,
    Residual,
    SendStream,
    Wiring,
)
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.architectures.architecture import Question
    from kraken_sim.architectures.wiring import Steps


class DesyncFields(ArchitectureFields):
    """What a scenario may say of it."""

    sync_every: Size | None = Field(
        default=None,
        description="Layers from one AllReduce of the residual to the next; default: desync 1, parallel_track 4.",
        examples=[2],
    )


@dataclass(frozen=True, slots=True)
class SyncedLayout(Layout):
    """A layout whose devices meet every `sync_every` layers."""

    sync_every: int = 1


def _layout(question: Question[DesyncFields]) -> SyncedLayout:
    depth = question.config.num_hidden_layers
    every = min(question.fields.sync_every or 1, depth)
    dropped_ffns = depth - -(-depth // every)
    return SyncedLayout(
        whole_layer(question.config), question.num_devices, private_norms=depth + dropped_ffns, sync_every=every
    )


_BLOCKS: Final = (
    Normalise("norm_attention"),
    Attend(),
    Residual("residual_attention"),
    Normalise("norm_ffn"),
    FeedForward(),
    Residual("residual_ffn"),
)
_SUM: Final = SendStream(Exchange("all_reduce"), mean=True)


def meeting_now_and_then(name: str, layer: Steps, by: SendStream, every: int, depth: int) -> Wiring:
    """Equal layers with a collective of the residual every so many of them, and behind the last."""
    period = (*[layer] * (every - 1), (*layer, by))
    return Wiring(name, (Layers(period),), end=(by,) if depth % every else ())


def _wiring(layout: SyncedLayout, depth: int) -> Wiring:
    """L / `sync_every` blocking AllReduces of [T, d], one more where that does not divide."""
    return meeting_now_and_then("desync", _BLOCKS, _SUM, layout.sync_every, depth)


def _report(layout: SyncedLayout) -> Mapping[str, int]:
    return {"sync_every": layout.sync_every}


DESYNC: Final[Architecture[DesyncFields, SyncedLayout]] = Architecture(
    kind="desync",
    description="a standard layer without most of its AllReduces; the residuals of devices are averaged now and then",
    layout=_layout,
    program=partial(lowered_by, _wiring),
    wiring=_wiring,
    fields=DesyncFields,
    degenerate=partial(degenerate_alone, "on one device nothing is dropped, and it is the standard model"),
    searched=False,
    report=_report,
    columns=("sync_every",),
)
