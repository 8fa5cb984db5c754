"""A space of designs as columns: millions of them are told apart by numbers, not by objects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.registry import architecture, searched
from kraken_sim.explore.design.request import base_config, budget_of, run_axes
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

    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.formats import Quantization
    from kraken_sim.program.kernel_sets import KernelSet
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
    for hardware in _distinct(search.hardware or (request.base.hardware,)):
        available = len(load_profile(hardware).topology.gpus)
        counts = _distinct(search.num_devices or (request.base.num_devices or available,))
        for num_devices, kind in product(counts, _distinct(search.kind or searched())):
            record = architecture(kind)
            if num_devices > available or record.degenerate(record.own(), num_devices):
                continue
            template = Design(hardware, num_devices, kind, 1, 1, 1, 1, 1, 1.0, None)
            axes = _Axes.of(request, config, template)
            for found in axes.candidates(template, config, budget):
                yield replace(found, rank=found.rank + place)
            place += axes.size


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


@dataclass(frozen=True, slots=True)
class _Axes:
    """What varies on one machine with one wiring, each in the order of nested loops; no `widths`: the budget's."""

    ways: list[int]
    layers: list[int]
    head_dims: list[int]
    groups: list[int]
    ffn: list[float]
    widths: list[int]
    runs: list[tuple[int | None, Quantization | None, KernelSet]]

    @classmethod
    def of(cls, request: DesignRequest, config: TransformerConfig, template: Design) -> _Axes:
        """Those of a request."""
        search, record = request.search, template.architecture
        own_dim = config.head_dim if config.head_dim in SUPPORTED_HEAD_DIMS else 128
        own_groups = config.num_attention_heads // config.num_key_value_heads
        own_ffn = default_ffn_expansion(config, record.kind)
        return cls(
            _distinct((1,) if record.written is None else search.ways or (template.num_devices,)),
            _distinct(search.num_hidden_layers or (config.num_hidden_layers,)),
            _distinct(search.head_dim or (own_dim,)),
            _distinct(search.num_key_value_groups or (own_groups,)),
            _distinct([float(expansion) for expansion in search.ffn_expansion or (own_ffn,)]),
            _distinct(search.hidden_size or ()),
            list(product(*map(_distinct, run_axes(request)))),
        )

    @property
    def inner_size(self) -> int:
        """Places of a depth and a head dimension."""
        return len(self.groups) * len(self.ffn) * (len(self.widths) or len(ALIGNMENTS)) * len(self.runs)

    @property
    def size(self) -> int:
        """Places of all."""
        return len(self.ways) * len(self.layers) * len(self.head_dims) * self.inner_size

    def candidates(self, template: Design, config: TransformerConfig, budget: int) -> Iterator[Candidates]:
        """Those that divide."""
        for (way, ways), (dim, head_dim) in product(enumerate(self.ways), enumerate(self.head_dims)):
            shape = replace(template, ways=ways, head_dim=head_dim, hidden_size=head_dim)
            if any(shape.architecture.fits(shape.fields(), shape.num_devices)):
                continue
            layers, groups, ffn, width, hidden_size = self._shapes(shape, config, budget)
            outer = (way * len(self.layers) + layers) * len(self.head_dims) + dim
            widths = len(self.widths) or len(ALIGNMENTS)
            inner = ((groups * len(self.ffn) + ffn) * widths + width) * len(self.runs)
            found = Candidates(
                shape,
                outer * self.inner_size + inner,
                np.array(self.layers)[layers],
                hidden_size,
                np.array(self.groups)[groups],
                np.array(self.ffn)[ffn],
            )
            found = found.at(np.flatnonzero(heads_divide(hidden_size, head_dim, found.num_key_value_groups)))
            found = found.at(np.flatnonzero(block_splits(found.block, shape.layout.group)))
            for index, (channels, quantization, kernels) in enumerate(self.runs):
                if len(found):
                    run = replace(shape, channels=channels, quantization=quantization, kernels=kernels)
                    yield replace(found, template=run, rank=found.rank + index)

    def _shapes(self, shape: Design, config: TransformerConfig, budget: int) -> tuple[Sizes, ...]:
        """Places of depth, groups, FFN and width in their axes for every combination, and the width itself."""
        if self.widths:
            lengths = (len(axis) for axis in (self.layers, self.groups, self.ffn, self.widths))
            layers, groups, ffn, width = (axis.ravel() for axis in np.indices(tuple(lengths)))
            return layers, groups, ffn, width, np.array(self.widths)[width]
        rows = []
        for layer, group, expansion in np.ndindex(len(self.layers), len(self.groups), len(self.ffn)):
            one = replace(
                shape,
                num_hidden_layers=self.layers[layer],
                num_key_value_groups=self.groups[group],
                ffn_expansion=self.ffn[expansion],
            )
            widths = enumerate(widths_for_budget(one, config, budget))
            rows += [(layer, group, expansion, place, found) for place, found in widths]
        layers, groups, ffn, width, hidden_size = np.array(rows, dtype=np.int64).reshape(-1, 5).T
        return layers, groups, ffn, width, hidden_size
