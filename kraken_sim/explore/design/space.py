"""A space of designs as columns: millions of them are told apart by numbers, not by objects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture, searched
from kraken_sim.explore.design.request import base_config, budget_of
from kraken_sim.explore.design.shape import (
    ALIGNMENTS,
    Design,
    block_splits,
    default_ffn_expansion,
    heads_divide,
    widths_for_budget,
)
from kraken_sim.models.kraken_width import SUPPORTED_HEAD_DIMS
from kraken_sim.models.layout import Block
from kraken_sim.profiles.load import load_profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.architectures.architecture import Architecture
    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.many import Sizes


class NotAlikeError(Exception):
    """Designs whose layouts differ in more than their blocks."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Designs that share all fields of `template` but those that are columns here [num_designs].

    `rank` says where each stands in the order of all designs of the space.
    """

    template: Design
    rank: Sizes
    num_hidden_layers: Sizes
    hidden_size: Sizes
    num_key_value_groups: Sizes
    ffn_expansion: Sizes

    def __len__(self) -> int:
        return len(self.rank)

    def at(self, index: Sizes) -> Candidates:
        """Some of them."""
        names = ("rank", "num_hidden_layers", "hidden_size", "num_key_value_groups", "ffn_expansion")
        return Candidates(self.template, *(getattr(self, name)[index] for name in names))

    def design(self, index: int) -> Design:
        """One of them."""
        return replace(
            self.template,
            num_hidden_layers=int(self.num_hidden_layers[index]),
            hidden_size=int(self.hidden_size[index]),
            num_key_value_groups=int(self.num_key_value_groups[index]),
            ffn_expansion=float(self.ffn_expansion[index]),
        )

    @property
    def block(self) -> Block:
        """Their blocks, of columns."""
        heads = self.hidden_size // self.template.head_dim
        ffn = np.rint(self.ffn_expansion * self.hidden_size).astype(np.int64)
        return Block(self.hidden_size, heads, heads // self.num_key_value_groups, self.template.head_dim, ffn)

    def shapes(self, config: TransformerConfig, layout: Layout) -> tuple[TransformerConfig, Layout]:
        """Config and layout of the first design with the columns of all in them.

        Raises:
            NotAlikeError: the last one's is another than that says.
        """
        block, own = self.block, self.template.architecture.written is not None
        last = self.design(len(self) - 1)
        asked = Question(replace(config, num_hidden_layers=last.num_hidden_layers), last.num_devices, last.fields())
        if replace(layout, block=last.layout.block) != last.architecture.layout(
            last.architecture.with_block(asked, last.layout)
        ):
            raise NotAlikeError
        config = replace(config, num_hidden_layers=self.num_hidden_layers)
        return config if own else replace(config, **asdict(block)), replace(layout, block=block)

    def first_shapes(self, config: TransformerConfig) -> tuple[TransformerConfig, Layout]:
        """Those with the layout that the architecture gives the first design."""
        first = self.design(0)
        asked = Question(replace(config, num_hidden_layers=first.num_hidden_layers), first.num_devices, first.fields())
        shaped = first.architecture.with_block(asked, first.layout)
        return self.shapes(shaped.config, first.architecture.layout(shaped))


def candidates(request: DesignRequest) -> Iterator[Candidates]:
    """Every design of the space that divides, once, by what they share."""
    config, search = base_config(request), request.search
    budget = budget_of(request, config)
    place = 0
    for hardware in dict.fromkeys(search.hardware or (request.base.hardware,)):
        available = len(load_profile(hardware).topology.gpus)
        counts = search.num_devices or (request.base.num_devices or available,)
        for num_devices, kind in product(dict.fromkeys(counts), dict.fromkeys(search.kind or searched())):
            record = architecture(kind)
            if num_devices > available or record.degenerate(record.own(), num_devices):
                continue
            template = Design(hardware, num_devices, kind, 1, 1, 1, 1, 1, 1.0, None)
            for found in _of_machine(request, config, budget, template):
                yield replace(found, rank=found.rank + place)
            place += 1 << 40


def _of_machine(
    request: DesignRequest, config: TransformerConfig, budget: int, template: Design
) -> Iterator[Candidates]:
    """Those of one machine, number of devices and wiring."""
    search, record = request.search, architecture(template.kind)
    own_dim = config.head_dim if config.head_dim in SUPPORTED_HEAD_DIMS else 128
    ways = (1,) if record.written is None else search.ways or (template.num_devices,)
    head_dims = _distinct(search.head_dim or (own_dim,))
    channels = _distinct(search.channels or (request.base.runtime.collective.channels,))
    for (way, ways_of), (dim, head_dim) in product(enumerate(_distinct(ways)), enumerate(head_dims)):
        shape = replace(template, ways=ways_of, head_dim=head_dim, hidden_size=head_dim)
        if any(record.fits(shape.fields(), shape.num_devices)):
            continue
        axes = _axes(request, config, record, shape, budget)
        # Places in nested loops over ways, layers, head dimension, the other axes and channels.
        layers, inner = axes.pop("layers_place"), axes.pop("place")
        size = int(inner.max(initial=0)) + 1
        number = (way * (int(layers.max(initial=0)) + 1) + layers) * len(head_dims) + dim
        rank = (number * size + inner) * len(channels)
        found = Candidates(shape, rank, **axes)
        divide = heads_divide(found.hidden_size, head_dim, found.num_key_value_groups)
        found = found.at(np.flatnonzero(divide))
        found = found.at(np.flatnonzero(block_splits(found.block, shape.layout.group)))
        for index, channel in enumerate(channels):
            if len(found):
                yield replace(found, template=replace(shape, channels=channel), rank=found.rank + index)


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _axes(
    request: DesignRequest, config: TransformerConfig, record: Architecture[Any, Any], shape: Design, budget: int
) -> dict[str, Sizes]:
    """Columns of every combination of depth, groups, FFN and width, and where each stands in its loop."""
    search = request.search
    layers = _distinct(search.num_hidden_layers or (config.num_hidden_layers,))
    groups = _distinct(search.num_key_value_groups or (config.num_attention_heads // config.num_key_value_heads,))
    ffn = _distinct([float(x) for x in search.ffn_expansion or (default_ffn_expansion(config, record.kind),)])
    if search.hidden_size:
        widths = _distinct(search.hidden_size)
        grid = np.meshgrid(*(np.arange(len(axis)) for axis in (layers, groups, ffn, widths)), indexing="ij")
        places = [axis.ravel() for axis in grid]
        width = np.array(widths)[places[3]]
    else:
        rows = []
        for place in product(range(len(layers)), range(len(groups)), range(len(ffn))):
            one = replace(
                shape,
                num_hidden_layers=layers[place[0]],
                num_key_value_groups=groups[place[1]],
                ffn_expansion=ffn[place[2]],
            )
            rows += [(*place, index, found) for index, found in enumerate(widths_for_budget(one, config, budget))]
        widths = list(ALIGNMENTS)
        *places, width = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return {
        "layers_place": places[0],
        "place": (places[1] * len(ffn) + places[2]) * len(widths) + places[3],
        "num_hidden_layers": np.array(layers)[places[0]],
        "num_key_value_groups": np.array(groups)[places[1]],
        "ffn_expansion": np.array(ffn)[places[2]],
        "hidden_size": width,
    }
