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

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import BlockShape, ProgramBuilder
from kraken_sim.program.program import COMM_STREAM, MAIN_STREAM, Category, Program, Segment

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.kraken_width import KrakenShape


@dataclass(frozen=True, slots=True)
class Placement:
    """How sub-layers meet devices: `local` sub-layers a device, each over a `group` of devices."""

    ways: int
    num_devices: int

    @property
    def local(self) -> int:
        """Sub-layers that one device runs."""
        return max(1, self.ways // self.num_devices)

    @property
    def group(self) -> int:
        """Devices that share one sub-layer."""
        return max(1, self.num_devices // self.ways)

    @property
    def exchange(self) -> int:
        """Ranks of the AllReduce between sub-layers."""
        return min(self.ways, self.num_devices)


def kraken_program(config: TransformerConfig, kraken: KrakenShape, work: Workload) -> Program:
    """A forward pass with L - 1 AllReduces on a second stream and one blocking one after the concat."""
    build = ProgramBuilder(work)
    place = Placement(kraken.ways, work.num_devices)
    block = BlockShape(
        hidden_size=kraken.hidden_size,
        num_heads=kraken.num_attention_heads // place.group,
        num_kv_heads=max(1, kraken.num_key_value_heads // place.group),
        head_dim=kraken.head_dim,
        intermediate_size=kraken.intermediate_size // place.group,
        gated_ffn=config.gated_ffn,
        rotary=not config.position_embeddings,
        qk_norm=config.qk_norm,
    )
    build.embedding(kraken.hidden_size)
    start = build.take()
    _first_layer(build, block, place)
    first = build.take()
    _layer(build, block, place)
    layer = build.take()
    _concat(build, block, place)
    build.lm_head(kraken.hidden_size, config.vocab_size)
    segments = [Segment("embedding", start), Segment("layer_first", first)]
    if config.num_hidden_layers > 1:
        segments.append(Segment("layer", layer, config.num_hidden_layers - 1))
    segments.append(Segment("head", build.take()))
    return Program("kraken", work.num_devices, tuple(segments))


def _suffix(place: Placement, index: int) -> str:
    return f".{index}" if place.local > 1 else ""


def _first_layer(build: ProgramBuilder, block: BlockShape, place: Placement) -> None:
    """Nothing to receive yet: x is the shared embedding."""
    width = block.hidden_size
    for index in range(place.local):
        suffix = _suffix(place, index)
        build.norm("norm_attention" + suffix, width)
        build.attention(block, suffix=suffix)
        build.all_reduce("all_reduce_group_attention" + suffix, width, place.group)
        build.add("residual_attention" + suffix, width)
        _feed_forward(build, block, place, suffix)


def _feed_forward(build: ProgramBuilder, block: BlockShape, place: Placement, suffix: str) -> None:
    build.norm("norm_ffn" + suffix, block.hidden_size)
    build.ffn(block, suffix)
    build.all_reduce("all_reduce_group_ffn" + suffix, block.hidden_size, place.group)
    build.add("residual_ffn" + suffix, block.hidden_size)


def _layer(build: ProgramBuilder, block: BlockShape, place: Placement) -> None:
    """A layer that receives the sum of the previous layer's outputs."""
    width = block.hidden_size
    overlap = build.work.overlap and place.exchange > 1
    gemms = Category.OVERLAPPED_GEMM if overlap else Category.GEMM
    copies = Category.OVERLAPPED_GEMM if overlap else Category.OTHER
    if place.ways > 1:
        _send(build, block, place, copies, overlap=overlap)
    for index in range(place.local):
        suffix = _suffix(place, index)
        build.norm("norm_attention" + suffix, width)
        build.attention(block, gemms, suffix)
        build.all_reduce("all_reduce_group_attention" + suffix, width, place.group)
        build.add("residual_attention" + suffix, width)
    if overlap:
        build.wait("received", MAIN_STREAM, Category.OVERLAPPED_GEMM)
    if place.ways > 1 and build.work.overlap_copies > 1:
        build.copy("receive_copy", build.work.num_tokens * width, copies)
    for index in range(place.local):
        suffix = _suffix(place, index)
        if place.ways > 1:
            build.add("receive" + suffix, width)
        _feed_forward(build, block, place, suffix)


def _send(build: ProgramBuilder, block: BlockShape, place: Placement, copies: Category, *, overlap: bool) -> None:
    """The local outputs go to a buffer of their own (x_i is still needed) and are summed over devices.

    An AllReduce that does not sum in place reads x_i itself and needs no copy before it.
    """
    width = block.hidden_size
    if place.local == 1 and build.work.overlap_copies > 0:
        build.copy("send", build.work.num_tokens * width, copies)
    for index in range(1, place.local):
        build.add(f"send.{index}", width, copies)
    stream = COMM_STREAM if overlap else MAIN_STREAM
    if overlap:
        build.record("send", MAIN_STREAM)
        build.wait("send", COMM_STREAM)
    build.all_reduce("all_reduce", width, place.exchange, stream, stride=place.group)
    if overlap:
        build.record("received", COMM_STREAM)


def _concat(build: ProgramBuilder, block: BlockShape, place: Placement) -> None:
    """W_concat maps the concatenated outputs back to one width: row parallel, then a blocking AllReduce."""
    width = block.hidden_size
    for index in range(place.local):
        name = "gemm_concat" + _suffix(place, index)
        build.gemm(name, width, width // place.group, accumulate=index > 0)
    build.all_reduce("all_reduce_concat", width, build.work.num_devices)
