"""Layouts of the shipped architectures, from a model and the shape of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.architectures.architecture import Question
from kraken_sim.architectures.kraken import kraken_layout
from kraken_sim.architectures.registry import architecture
from kraken_sim.models.kraken_width import kraken_config_for_latency

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.program import Program


def layout_of(kind: str, config: TransformerConfig, num_devices: int = 1, **own: Any) -> Layout:
    """What an architecture makes of a model, unchecked; `own` are its own fields."""
    record = architecture(kind)
    layout: Layout = record.layout(Question(config, num_devices, record.own(**own)))
    return layout


def kraken_of(config: TransformerConfig, ways: int, num_devices: int = 1, **shape: Any) -> Layout:
    """A Kraken whose sub-layers fit `devices_per_sub_layer` devices, on any number of devices."""
    return kraken_layout(kraken_config_for_latency(config, ways, **shape), ways, num_devices)


def program_of(kind: str, layout: Layout, config: TransformerConfig, work: Workload) -> Program:
    """The program of an architecture on a layout."""
    program: Program = architecture(kind).program(layout, config, work)
    return program
