"""Layers of several sub-layers with a width of their own: what Kraken and Parallel Track say, check and wire alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from kraken_sim.architectures.architecture import ArchitectureFields, DeviceCount, Question, Size, split_problems
from kraken_sim.architectures.wiring import Attend, EachBlock, Exchange, FeedForward, Normalise, Residual
from kraken_sim.errors import InputError, Problem
from kraken_sim.models.hf import closest_divisor
from kraken_sim.models.kraken_width import OF_KRAKEN, SubLayers, kraken_config_for_latency
from kraken_sim.models.layout import devices_per_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.models.layout import Block, Layout


class SubLayerFields(ArchitectureFields):
    """What a scenario may say of the shape of one sub-layer."""

    hidden_size: Size | None = Field(
        default=None,
        description="Kraken, parallel_track: width of a sub-layer; default: from the parameter budget.",
        examples=[3584],
    )
    num_attention_heads: Size | None = Field(
        default=None,
        description="Kraken, parallel_track: query heads of one sub-layer; default: from the width.",
        examples=[28],
    )
    num_key_value_heads: Size | None = Field(
        default=None,
        description="Kraken, parallel_track: key/value heads of one sub-layer; default: the model's ratio.",
        examples=[4],
    )
    intermediate_size: Size | None = Field(
        default=None,
        description="Kraken, parallel_track: width of a sub-layer's FFN; default: twice its hidden_size, a track's as "
        "many times as the model's.",
        examples=[7168],
    )


class WaysFields(SubLayerFields):
    """The same, with how many sub-layers a layer has."""

    ways: DeviceCount | None = Field(
        default=None, description="Kraken, sub_layer_file: sub-layers a layer; default: num_devices.", examples=[2]
    )


GROUP_ATTENTION: Final = Exchange("all_reduce_group_attention")
"""The sum of a sub-layer's attention over the devices that share it."""

FEED_FORWARD: Final = (
    Normalise("norm_ffn"),
    FeedForward(),
    Residual("residual_ffn", Exchange("all_reduce_group_ffn")),
)
"""The second half of a sub-layer."""

ALONE: Final = (
    EachBlock((Normalise("norm_attention"), Attend(), Residual("residual_attention", GROUP_ATTENTION), *FEED_FORWARD)),
)
"""A layer whose sub-layers receive nothing from each other."""

COLUMNS: Final = ("hidden_size", "num_attention_heads", "num_key_value_heads")
"""The numbers of a sub-layer that have a column in tables of many answers."""


def count_problem(name: str, number: int, num_devices: int) -> Iterator[Problem]:
    """A device holds several sub-layers, or several devices share one; `name` is the field with their number."""
    if number % num_devices and num_devices % number:
        message = f"{number} {name} do not fit {num_devices} devices: one must be a multiple of the other"
        yield Problem(f"architecture.{name}", message, number, str(num_devices))


def sub_layer_of(question: Question[Any], number: int, sub_layers: SubLayers = OF_KRAKEN) -> Block:
    """One of `number` sub-layers: what the fields say, the rest from the parameter budget.

    Raises:
        InputError: the fields describe none.
    """
    fields, heads = question.fields, question.fields.num_attention_heads
    if fields.hidden_size is not None and heads is not None and fields.hidden_size % heads:
        message = f"hidden_size {fields.hidden_size} does not divide by {heads} heads"
        example = str(closest_divisor(fields.hidden_size, heads))
        raise InputError.single("architecture.num_attention_heads", message, heads, example)
    try:
        return kraken_config_for_latency(
            question.config,
            number,
            hidden_size=fields.hidden_size,
            num_attention_heads=heads,
            num_key_value_heads=fields.num_key_value_heads,
            intermediate_size=fields.intermediate_size,
            devices_per_sub_layer=devices_per_block(question.num_devices, number),
            sub_layers=sub_layers,
        )
    except ValueError as error:
        example = "num_attention_heads: 28 with hidden_size: 3584"
        raise InputError.single("architecture.hidden_size", str(error), fields.hidden_size, example) from None


def sub_layer_problems(_: Question[Any], layout: Layout, path: str = "architecture.ways") -> Iterator[Problem]:
    """What keeps a sub-layer's heads and FFN from its devices."""
    heads, kv_heads = layout.block.num_attention_heads, layout.block.num_key_value_heads
    if heads % kv_heads:
        message = f"the {heads} heads of a sub-layer do not divide by it"
        example = str(closest_divisor(heads, kv_heads))
        yield Problem("architecture.num_key_value_heads", message, kv_heads, example)
    yield from split_problems(layout, path)


def sub_layer_shape(layout: Layout) -> dict[str, int]:
    """The shape of a sub-layer under the names of its fields."""
    block = layout.block
    return {
        "hidden_size": block.hidden_size,
        "num_attention_heads": block.num_attention_heads,
        "num_key_value_heads": block.num_key_value_heads,
        "intermediate_size": block.intermediate_size,
    }
