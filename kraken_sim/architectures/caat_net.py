"""CAAT-Net, partial channel reduce: only the first q of d channels are summed, the others stay private.

    f_i = a_i or m_i;   u_i[:q] = Σ_j f_j[:q]  (AR);   u_i[q:] = √N · f_i[q:];   x_i = x_i + u_i      twice a layer

where a_i and m_i are a device's parts of attention and FFN. Norms run on the mix, with common weights. Each device's
share of the vocabulary reads its own residual. A model is trained for its N.

Source: Lamprecht et al. (arXiv 2506.19645) and the authors' code (github itlamp/Megatron-LM-comms,
tensor_parallel/mappings.py: a copy of the channels, its AllReduce, a concatenation; half of the channels by default).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from kraken_sim.architectures.architecture import Architecture, ArchitectureFields, degenerate_alone, split_problems
from kraken_sim.architectures.lowering import lowered_by
from kraken_sim.architectures.wiring import Attend, Exchange, FeedForward, Normalise, Residual, Wiring, equal_layers
from kraken_sim.errors import Problem
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.architectures.architecture import Question

REDUCED_SHARE: Final = 0.5
"""Share of the channels if nobody says it, the authors' default (github itlamp/Megatron-LM-comms)."""


class CaatFields(ArchitectureFields):
    """What a scenario may say of it."""

    reduced_share: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] | None = Field(
        default=None, description="caat_net: share of the channels that are summed; default: 0.5.", examples=[0.25]
    )


@dataclass(frozen=True, slots=True)
class CaatLayout(Layout):
    """A layout of whose width `reduced_channels` are summed."""

    reduced_channels: int = 0


def _layout(question: Question[CaatFields]) -> CaatLayout:
    share, width = question.fields.reduced_share or REDUCED_SHARE, question.config.hidden_size
    # The channels that are sent have a buffer of their own.
    return CaatLayout(
        whole_layer(question.config), question.num_devices, extra_streams=1, reduced_channels=int(share * width)
    )


def _check(question: Question[CaatFields], layout: CaatLayout) -> Iterator[Problem]:
    if not layout.reduced_channels:
        width = layout.block.hidden_size
        message = f"not one of {width} channels is summed"
        yield Problem("architecture.reduced_share", message, question.fields.reduced_share, "0.5")
    yield from split_problems(layout)


def _wiring(layout: CaatLayout, _: int) -> Wiring:
    """2 L blocking AllReduces of [T, q]; with all channels those of a standard model."""
    channels = None if layout.reduced_channels == layout.block.hidden_size else layout.reduced_channels
    return equal_layers(
        "caat_net",
        Normalise("norm_attention"),
        Attend(),
        Residual("residual_attention", Exchange("all_reduce_attention", channels=channels)),
        Normalise("norm_ffn"),
        FeedForward(),
        Residual("residual_ffn", Exchange("all_reduce_ffn", channels=channels)),
    )


def _report(layout: CaatLayout) -> Mapping[str, int]:
    return {"reduced_channels": layout.reduced_channels}


CAAT_NET: Final[Architecture[CaatFields, CaatLayout]] = Architecture(
    kind="caat_net",
    description="a standard layer whose AllReduces sum a share of the channels; the others are each device's own",
    quality="7B with half of the channels: no significant loss (arXiv 2506.19645)",
    layout=_layout,
    program=partial(lowered_by, _wiring),
    wiring=_wiring,
    fields=CaatFields,
    check=_check,
    degenerate=partial(degenerate_alone, "on one device all channels are its own, and it is the standard model"),
    searched=False,
    report=_report,
    columns=("reduced_channels",),
)
