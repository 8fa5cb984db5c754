"""Parallel Track: complete smaller Transformers side by side, which meet every few layers.

    in a layer:               h_i = h_i + MHA_i(LN h_i);   h_i = h_i + FFN_i(LN h_i)        (no communication)
    every `sync_every` layers: h = AR(h_1 .. h_n);   h_i = h for all i

A track has a width d_t of its own, of as many parameters in all as the base model (12 n d_t² = 12 d² for a GPT-like
layer), and an FFN as many times as wide as the model's. Whether the AllReduce is a sum or a mean, and what becomes of
layers behind the last full period, is not public: here all layers end with one. Devices and tracks may differ as for
Kraken.

Source: "Parallel Track Transformers" (arXiv 2602.07306), known from its abstract and third parties' notes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import Field

from kraken_sim.architectures.architecture import Architecture, DeviceCount
from kraken_sim.architectures.desync import DesyncFields, SyncedLayout, meeting_now_and_then
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.sub_layers import (
    ALONE,
    COLUMNS,
    SubLayerFields,
    count_problem,
    sub_layer_of,
    sub_layer_problems,
    sub_layer_shape,
)
from kraken_sim.architectures.wiring import Exchange, Over, SendStream
from kraken_sim.models.kraken_width import SubLayers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.architecture import Question
    from kraken_sim.architectures.wiring import Wiring
    from kraken_sim.errors import Problem
    from kraken_sim.models.layout import Layout

SYNC_EVERY: Final = 4
"""Layers from one AllReduce to the next if nobody says it, the middle one of the paper's 2, 4 and 8."""


class TrackFields(DesyncFields, SubLayerFields):
    """What a scenario may say of tracks: how many, how often they meet, and the shape of one."""

    tracks: DeviceCount | None = Field(
        default=None, description="parallel_track: tracks; default: num_devices.", examples=[8]
    )


def _fits(fields: TrackFields, num_devices: int) -> Iterator[Problem]:
    return count_problem("tracks", fields.tracks or num_devices, num_devices)


def _layout(question: Question[TrackFields]) -> SyncedLayout:
    config, fields = question.config, question.fields
    tracks = fields.tracks or question.num_devices
    sides = SubLayers(config.intermediate_size / config.hidden_size, concat=False)
    block = sub_layer_of(question, tracks, sides)
    every = min(fields.sync_every or SYNC_EVERY, config.num_hidden_layers)
    return SyncedLayout(block, question.num_devices, tracks, sync_every=every)


def _problems(question: Question[TrackFields], layout: Layout) -> Iterator[Problem]:
    return sub_layer_problems(question, layout, "architecture.tracks")


_SUM: Final = SendStream(Exchange("all_reduce", Over.BLOCKS))


def _wiring(layout: SyncedLayout, depth: int) -> Wiring:
    """L / `sync_every` blocking AllReduces of [T, d_t], one more where that does not divide."""
    return meeting_now_and_then("parallel_track", ALONE, _SUM, layout.sync_every, depth)


def _degenerate(fields: TrackFields, num_devices: int) -> str | None:
    if num_devices == 1 and fields.tracks is None:
        return "one track is the standard model; give tracks or more devices"
    return None


def _written(fields: TrackFields, layout: Layout) -> TrackFields:
    return fields.model_copy(update={"tracks": layout.blocks_per_layer, **sub_layer_shape(layout)})


def _report(layout: SyncedLayout) -> Mapping[str, int]:
    tracks = {"tracks": layout.blocks_per_layer, "sync_every": layout.sync_every}
    return tracks | sub_layer_shape(layout) | {"head_dim": layout.block.head_dim}


PARALLEL_TRACK: Final[Architecture[TrackFields, SyncedLayout]] = Architecture(
    kind="parallel_track",
    description="smaller Transformers side by side, whose residuals are summed every few layers",
    quality=(
        "6B, 8 tracks, meeting every 8 layers: MMLU 0.360 for 0.560; 30B: 0.615 for 0.630 (arXiv "
        "2602.07306, as others report it)"
    ),
    layout=_layout,
    program=partial(lowered_by, _wiring),
    wiring=_wiring,
    fields=TrackFields,
    fits=_fits,
    check=_problems,
    degenerate=_degenerate,
    searched=False,
    written=_written,
    report=_report,
    columns=("tracks", "sync_every", *COLUMNS),
)
