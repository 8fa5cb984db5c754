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

from typing import TYPE_CHECKING, Final

from pydantic import Field

from kraken_sim.architectures.architecture import (
    Architecture,
    ArchitectureFields,
    DeviceCount,
    Question,
    Size,
    split_problems,
)
from kraken_sim.architectures.lowering import lowered
from kraken_sim.architectures.wiring import (
    Add,
    Attend,
    BeginStream,
    Concat,
    EachBlock,
    Exchange,
    FeedForward,
    Normalise,
    Over,
    Receive,
    Reduce,
    Residual,
    Wiring,
)
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.hf import closest_divisor
from kraken_sim.models.kraken_width import FFN_FACTOR, kraken_config_for_latency
from kraken_sim.models.layout import Layout, devices_per_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block
    from kraken_sim.program.program import Program


class KrakenFields(ArchitectureFields):
    """What a scenario may say of a Kraken: how many sub-layers, and the shape of one."""

    ways: DeviceCount | None = Field(
        default=None, description="Kraken: sub-layers a layer; default: num_devices.", examples=[2]
    )
    hidden_size: Size | None = Field(
        default=None,
        description="Kraken: width of a sub-layer; default: from the parameter budget.",
        examples=[3584],
    )
    num_attention_heads: Size | None = Field(
        default=None,
        description="Kraken: query heads of one sub-layer; default: from the width.",
        examples=[28],
    )
    num_key_value_heads: Size | None = Field(
        default=None,
        description="Kraken: key/value heads of one sub-layer; default: the model's ratio.",
        examples=[4],
    )
    intermediate_size: Size | None = Field(
        default=None,
        description="Kraken: width of a sub-layer's FFN; default: twice its hidden_size.",
        examples=[7168],
    )


KrakenQuestion = Question[KrakenFields]


def _fits(fields: KrakenFields, num_devices: int) -> Iterator[Problem]:
    """A device holds several sub-layers, or several devices share one."""
    ways = fields.ways or num_devices
    if ways % num_devices and num_devices % ways:
        message = f"{ways} ways do not fit {num_devices} devices: one must be a multiple of the other"
        yield Problem("architecture.ways", message, ways, str(num_devices))


def _layout(question: KrakenQuestion) -> Layout:
    fields = question.fields
    ways = fields.ways or question.num_devices
    return kraken_layout(_sub_layer(question, ways), ways, question.num_devices)


def kraken_layout(sub_layer: Block, ways: int, num_devices: int) -> Layout:
    """`ways` sub-layers a layer on so many devices.

    Beside the activations of its sub-layers a device keeps the received sum and the copy it was sent from.
    """
    return Layout(sub_layer, num_devices, ways, concat=True, extra_streams=2)


def _sub_layer(question: KrakenQuestion, ways: int) -> Block:
    """One sub-layer: what the fields say, the rest from the parameter budget."""
    fields, heads = question.fields, question.fields.num_attention_heads
    if fields.hidden_size is not None and heads is not None and fields.hidden_size % heads:
        message = f"hidden_size {fields.hidden_size} does not divide by {heads} heads"
        example = str(closest_divisor(fields.hidden_size, heads))
        raise InputError.single("architecture.num_attention_heads", message, heads, example)
    try:
        return kraken_config_for_latency(
            question.config,
            ways,
            hidden_size=fields.hidden_size,
            num_attention_heads=heads,
            num_key_value_heads=fields.num_key_value_heads,
            intermediate_size=fields.intermediate_size,
            devices_per_sub_layer=devices_per_block(question.num_devices, ways),
        )
    except ValueError as error:
        example = "num_attention_heads: 28 with hidden_size: 3584"
        raise InputError.single("architecture.hidden_size", str(error), fields.hidden_size, example) from None


def _check(_: KrakenQuestion, layout: Layout) -> Iterator[Problem]:
    heads, kv_heads = layout.block.num_attention_heads, layout.block.num_key_value_heads
    if heads % kv_heads:
        message = f"the {heads} heads of a sub-layer do not divide by it"
        example = str(closest_divisor(heads, kv_heads))
        yield Problem("architecture.num_key_value_heads", message, kv_heads, example)
    yield from split_problems(layout, "architecture.ways")


def _degenerate(fields: KrakenFields, num_devices: int) -> str | None:
    if num_devices == 1 and fields.ways is None:
        return "a Kraken of one sub-layer is none; give ways or more devices"
    return None


def _written(fields: KrakenFields, layout: Layout) -> KrakenFields:
    block = layout.block
    shape = {
        "ways": layout.blocks_per_layer,
        "hidden_size": block.hidden_size,
        "num_attention_heads": block.num_attention_heads,
        "num_key_value_heads": block.num_key_value_heads,
        "intermediate_size": block.intermediate_size,
    }
    return fields.model_copy(update=shape)


def _report(layout: Layout) -> Mapping[str, int]:
    block = layout.block
    return {
        "ways": layout.blocks_per_layer,
        "hidden_size": block.hidden_size,
        "num_attention_heads": block.num_attention_heads,
        "num_key_value_heads": block.num_key_value_heads,
        "head_dim": block.head_dim,
        "intermediate_size": block.intermediate_size,
    }


_GROUP_ATTENTION: Final = Exchange("all_reduce_group_attention")
_GROUP_FFN: Final = Exchange("all_reduce_group_ffn")
_SUM: Final = Exchange("all_reduce", Over.BLOCKS)

_FEED_FORWARD: Final = (Normalise("norm_ffn"), FeedForward(), Residual("residual_ffn", _GROUP_FFN))

_ALONE: Final = (
    EachBlock(
        (Normalise("norm_attention"), Attend(), Residual("residual_attention", _GROUP_ATTENTION), *_FEED_FORWARD)
    ),
)
"""A layer that receives nothing: the first one, whose x is the shared embedding, and all of a single sub-layer."""

_LAYER: Final = (
    BeginStream(_SUM),
    # The norm of the FFN reads y + s, so x + y is made while s is under way.
    EachBlock((Normalise("norm_attention"), Attend(), Reduce(_GROUP_ATTENTION), Add("residual_attention"))),
    Receive(_SUM.name),
    EachBlock((Residual("receive"), *_FEED_FORWARD)),
)
"""A layer that receives the sum of the previous layer's outputs."""

_END: Final = (Concat(Exchange("all_reduce_concat", Over.ALL)),)

WIRING: Final = Wiring("kraken", (_LAYER,), first=(_ALONE,), end=_END)
"""L - 1 AllReduces on a second stream and one blocking one after the concat."""

_WIRING_OF_ONE: Final = Wiring("kraken", (_ALONE,), end=_END)


def _program(layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    return lowered(WIRING if layout.blocks_per_layer > 1 else _WIRING_OF_ONE, layout, config, work)


KRAKEN: Final[Architecture[KrakenFields, Layout]] = Architecture(
    kind="kraken",
    description="independent sub-layers whose outputs are summed beside the attention of the next layer",
    layout=_layout,
    program=_program,
    fields=KrakenFields,
    fits=_fits,
    check=_check,
    degenerate=_degenerate,
    overlaps=True,
    written=_written,
    ffn_expansion=FFN_FACTOR,
    report=_report,
    columns=("ways", "hidden_size", "num_attention_heads", "num_key_value_heads"),
)
