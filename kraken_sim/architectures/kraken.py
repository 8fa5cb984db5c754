"""Kraken: every layer is `ways` independent sub-layers; the one AllReduce runs beside the next attention.

    layer 1:      a_i = x + Attn_i(LN1(x));        x_i = a_i + FFN_i(LN2(a_i))
    layer l > 1:  s   = AR(x_i)                    (launched before the attention, needed by LN2)
                  y_i = Attn_i(LN1(x_i))           (concurrent with the AR)
                  a_i = x_i + y_i
                  x_i = a_i + FFN_i(LN2(y_i + s))  because a_i + Σ_{j≠i} x_j = y_i + s
    end:          AR(W_concat_i · x_i), then the final norm and the unembedding

Source: Prabhakar, Zhang and Wentzlaff, "Kraken" (arXiv 2408.07802), section 3.

Devices and ways may differ. With more ways than devices, a device runs ways / N sub-layers one after the
other and adds their outputs before the AllReduce. With fewer, each sub-layer is tensor parallel over a
group of N / ways neighbouring devices, which costs two blocking AllReduces inside the group.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture, Question
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.sub_layers import (
    ALONE,
    COLUMNS,
    FEED_FORWARD,
    GROUP_ATTENTION,
    WaysFields,
    count_problem,
    sub_layer_of,
    sub_layer_problems,
    sub_layer_shape,
)
from kraken_sim.architectures.wiring import (
    Add,
    Attend,
    BeginStream,
    Concat,
    EachBlock,
    Exchange,
    Layers,
    Normalise,
    Over,
    Receive,
    Residual,
    Send,
    Wiring,
)
from kraken_sim.models.kraken_width import FFN_FACTOR
from kraken_sim.models.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.errors import Problem
    from kraken_sim.models.layout import Block


class KrakenFields(WaysFields):
    """What a scenario may say of a Kraken: how many sub-layers, and the shape of one."""


KrakenQuestion = Question[KrakenFields]


def _fits(fields: KrakenFields, num_devices: int) -> Iterator[Problem]:
    return count_problem("ways", fields.ways or num_devices, num_devices)


def _layout(question: KrakenQuestion) -> Layout:
    fields = question.fields
    ways = fields.ways or question.num_devices
    return kraken_layout(sub_layer_of(question, ways), ways, question.num_devices)


def kraken_layout(sub_layer: Block, ways: int, num_devices: int) -> Layout:
    """`ways` sub-layers a layer on so many devices.

    Beside the activations of its sub-layers a device keeps the received sum and the copy it was sent from.
    """
    return Layout(sub_layer, num_devices, ways, concat=True, extra_streams=2)


def _degenerate(fields: KrakenFields, num_devices: int) -> str | None:
    if num_devices == 1 and fields.ways is None:
        return "a Kraken of one sub-layer is none; give ways or more devices"
    return None


def _written(fields: KrakenFields, layout: Layout) -> KrakenFields:
    return fields.model_copy(update={"ways": layout.blocks_per_layer, **sub_layer_shape(layout)})


def _report(layout: Layout) -> Mapping[str, int]:
    return {"ways": layout.blocks_per_layer, **sub_layer_shape(layout), "head_dim": layout.block.head_dim}


_SUM: Final = Exchange("all_reduce", Over.BLOCKS)

_LAYER: Final = (
    BeginStream(_SUM),
    # The norm of the FFN reads y + s, so x + y is made while s is under way.
    EachBlock((Normalise("norm_attention"), Attend(), Send(GROUP_ATTENTION), Add("residual_attention"))),
    Receive(_SUM.name),
    EachBlock((Residual("receive"), *FEED_FORWARD)),
)
"""A layer that receives the sum of the previous layer's outputs."""

_END: Final = (Concat(Exchange("all_reduce_concat", Over.ALL)),)

KRAKEN_WIRING: Final = Wiring("kraken", (Layers((ALONE,), 1), Layers((_LAYER,))), _END)
"""L - 1 AllReduces on a second stream and one blocking one after the concat; the first layer has x from all."""

_WIRING_OF_ONE: Final = Wiring("kraken", (Layers((ALONE,)),), _END)
"""A single sub-layer receives nothing."""


def _wiring(layout: Layout, _: int) -> Wiring:
    return KRAKEN_WIRING if layout.blocks_per_layer > 1 else _WIRING_OF_ONE


KRAKEN: Final[Architecture[KrakenFields, Layout]] = Architecture(
    kind="kraken",
    description="independent sub-layers whose outputs are summed beside the attention of the next layer",
    quality="perplexity comparable with GPT-2 of the same size, to 760M (arXiv 2408.07802)",
    layout=_layout,
    program=partial(lowered_by, _wiring),
    wiring=_wiring,
    fields=KrakenFields,
    fits=_fits,
    check=sub_layer_problems,
    degenerate=_degenerate,
    overlaps=True,
    written=_written,
    ffn_expansion=FFN_FACTOR,
    report=_report,
    columns=("ways", *COLUMNS),
)
