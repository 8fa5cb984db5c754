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
from kraken_sim.architectures.builder import ProgramBuilder
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.hf import closest_divisor
from kraken_sim.models.kraken_width import FFN_FACTOR, kraken_config_for_latency
from kraken_sim.models.layout import Layout, devices_per_block
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Program, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Block


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


def _program(layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    """A forward pass with L - 1 AllReduces on a second stream and one blocking one after the concat."""
    build = ProgramBuilder(config, layout, work)
    build.embedding()
    start = build.take()
    _first_layer(build)
    first = build.take()
    _layer(build)
    layer = build.take()
    _concat(build)
    build.lm_head()
    segments = [Segment("embedding", start), Segment("layer_first", first)]
    if config.num_hidden_layers > 1:
        segments.append(Segment("layer", layer, config.num_hidden_layers - 1))
    segments.append(Segment("head", build.take()))
    return Program("kraken", layout.num_devices, tuple(segments))


def _suffixes(layout: Layout) -> list[str]:
    """What the names of each local sub-layer's kernels end in."""
    return [f".{index}" if layout.local > 1 else "" for index in range(layout.local)]


def _first_layer(build: ProgramBuilder) -> None:
    """Nothing to receive yet: x is the shared embedding."""
    for suffix in _suffixes(build.layout):
        build.norm("norm_attention", suffix)
        build.attention(suffix=suffix)
        _attention_sum(build, suffix)
        _feed_forward(build, suffix)


def _attention_sum(build: ProgramBuilder, suffix: str) -> None:
    """The sum x + y of a sub-layer that receives nothing, which the norm of its FFN reads."""
    name = "all_reduce_group_attention"
    build.residual("residual_attention", suffix, all_reduce=name, num_devices=build.layout.group)


def _feed_forward(build: ProgramBuilder, suffix: str) -> None:
    build.norm("norm_ffn", suffix)
    build.ffn(suffix)
    build.residual("residual_ffn", suffix, all_reduce="all_reduce_group_ffn", num_devices=build.layout.group)


def _layer(build: ProgramBuilder) -> None:
    """A layer that receives the sum of the previous layer's outputs.

    Where a norm makes the sum that it reads, x exists only behind the attention's norm, and is sent from there.
    """
    layout, several = build.layout, build.layout.blocks_per_layer > 1
    overlap = build.work.overlap and layout.exchange > 1
    gemms = Category.OVERLAPPED_GEMM if overlap else Category.GEMM
    copies = Category.OVERLAPPED_GEMM if overlap else Category.OTHER
    suffixes, sums_in_norm = _suffixes(layout), bool(build.pending)
    for suffix in suffixes if sums_in_norm else ():
        build.norm("norm_attention", suffix)
    if several:
        _send(build, copies, overlap=overlap)
    for suffix in suffixes:
        if not sums_in_norm:
            build.norm("norm_attention", suffix)
        build.attention(gemms, suffix)
        if several:
            # The norm of the FFN reads y + s, so x + y is made while s is under way.
            build.all_reduce("all_reduce_group_attention" + suffix, layout.group)
            build.add("residual_attention" + suffix)
        else:
            _attention_sum(build, suffix)
    if overlap:
        build.wait("received", MAIN_STREAM, Category.OVERLAPPED_GEMM)
    if several and build.work.overlap_copies > 1:
        build.copy("receive_copy", build.work.num_tokens * build.width, copies)
    for suffix in suffixes:
        if several:
            build.residual("receive", suffix)
        _feed_forward(build, suffix)


def _send(build: ProgramBuilder, copies: Category, *, overlap: bool) -> None:
    """The local outputs go to a buffer of their own (x_i is still needed) and are summed over devices.

    An AllReduce that does not sum in place reads x_i itself and needs no copy before it.
    """
    layout = build.layout
    if layout.local == 1 and build.work.overlap_copies > 0:
        build.copy("send", build.work.num_tokens * build.width, copies)
    for index in range(1, layout.local):
        build.add(f"send.{index}", copies)
    stream = COMM_STREAM if overlap else MAIN_STREAM
    if overlap:
        build.record("send", MAIN_STREAM)
        build.wait("send", COMM_STREAM)
    build.all_reduce("all_reduce", layout.exchange, stream, stride=layout.group)
    if overlap:
        build.record("received", COMM_STREAM)


def _concat(build: ProgramBuilder) -> None:
    """W_concat maps the concatenated outputs back to one width: row parallel, then a blocking AllReduce."""
    build.settle()
    layout = build.layout
    for index, suffix in enumerate(_suffixes(layout)):
        bias = build.config.mlp_bias
        build.quantize("concat", layout.concat_slice, suffix)
        build.gemm("gemm_concat" + suffix, build.width, layout.concat_slice, accumulate=index > 0, bias=bias)
    build.all_reduce("all_reduce_concat", layout.num_devices)


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
