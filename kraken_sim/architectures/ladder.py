"""Ladder-Residual: each block reads a residual that lacks only the output of the block just before it.

    r = r + A_{l-1};   A_l = AR(a_i(LN1 r))        (beside the FFN of this layer)
    r = r + M_{l-1};   M_l = AR(m_i(LN2 r))        (beside the attention of the next)
    end:               r + A_L + M_L, then the final norm and the unembedding

where a_i and m_i are a device's parts of attention and FFN, and A_0 = M_0 = 0: the first FFN reads the embedding. The
shards, the parameters and the cache are the standard layer's; another function is computed, on one device too.

Source: Zhang et al., "Ladder-Residual" (arXiv 2501.06589), and the authors' inference code (github
mayank31398/ladder-residual-inference, gpt_fast/gpt_ladder_TP.py), which waits in front of each add.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from kraken_sim.architectures.architecture import Architecture
from kraken_sim.architectures.lowering import lowered
from kraken_sim.architectures.wiring import (
    Attend,
    Begin,
    Exchange,
    FeedForward,
    Layers,
    Normalise,
    Take,
    Wiring,
    always,
)
from kraken_sim.models.layout import Layout, whole_layer

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import ArchitectureFields, Question

_ATTENTION: Final = Exchange("all_reduce_attention")
_FFN: Final = Exchange("all_reduce_ffn")


def _layout(question: Question[ArchitectureFields]) -> Layout:
    # The outputs of two blocks are under way at once.
    return Layout(whole_layer(question.config), question.num_devices, extra_streams=2)


LADDER_WIRING: Final = Wiring(
    "ladder",
    (
        Layers(
            (
                (
                    Take("residual_attention", _ATTENTION.name, layers_back=1),
                    Normalise("norm_attention"),
                    Attend(),
                    Begin(_ATTENTION),
                    Take("residual_ffn", _FFN.name, layers_back=1),
                    Normalise("norm_ffn"),
                    FeedForward(),
                    Begin(_FFN),
                ),
            )
        ),
    ),
    end=(Take("residual_attention", _ATTENTION.name), Take("residual_ffn", _FFN.name)),
)
"""2 L AllReduces of [T, d], of which only the last one has nothing left to hide behind."""


LADDER: Final[Architecture[ArchitectureFields, Layout]] = Architecture(
    kind="ladder",
    description="a standard layer whose AllReduces run beside the next block, which reads the residual without them",
    quality="1B and 3B trained from scratch comparable with the standard model (arXiv 2501.06589)",
    layout=_layout,
    program=partial(lowered, LADDER_WIRING),
    wiring=partial(always, LADDER_WIRING),
    overlaps=True,
)
