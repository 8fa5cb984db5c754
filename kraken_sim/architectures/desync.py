"""Desynchronised residual: most AllReduces are dropped, and devices then carry residuals of their own.

    dropped:  x_i = x_i + f_i(LN_i x_i)               kept:  x = AR( f_i(LN_i x_i) + x_i / N )

Attention's AllReduces are dropped, and all of the FFN's but every `sync_every`-th and the last. A kept one averages the
residuals. A norm behind a dropped one has weights of its own on each device, so a model is trained for its N.

Source: Zhang et al., "Ladder-Residual" (arXiv 2501.06589), and the authors' code (github
mayank31398/ladder-residual-inference, gpt_fast/gpt_desync_TP.py: attention False, mlp True is its "2x").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import Field

from kraken_sim.architectures.architecture import Architecture, ArchitectureFields, Size
from kraken_sim.architectures.lowering import lowered
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
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.program import Program


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


def _wiring(layout: SyncedLayout, depth: int) -> Wiring:
    """L / `sync_every` blocking AllReduces of [T, d]; a last part of a period ends with one too."""
    period = (*[_BLOCKS] * (layout.sync_every - 1), (*_BLOCKS, _SUM))
    return Wiring("desync", (Layers(period),), end=(_SUM,) if depth % layout.sync_every else ())


def _program(layout: SyncedLayout, config: TransformerConfig, work: Workload) -> Program:
    return lowered(_wiring(layout, config.num_hidden_layers), layout, config, work)


def _degenerate(_: DesyncFields, num_devices: int) -> str | None:
    return "on one device nothing is dropped, and it is the standard model" if num_devices == 1 else None


def _report(layout: SyncedLayout) -> Mapping[str, int]:
    return {"sync_every": layout.sync_every}


DESYNC: Final[Architecture[DesyncFields, SyncedLayout]] = Architecture(
    kind="desync",
    description="a standard layer without most of its AllReduces; the residuals of devices are averaged now and then",
    layout=_layout,
    program=_program,
    wiring=_wiring,
    fields=DesyncFields,
    degenerate=_degenerate,
    searched=False,
    report=_report,
    columns=("sync_every",),
)
