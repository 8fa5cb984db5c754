"""One design: a machine, a wiring and the shapes of a model, and the shapes that meet a parameter budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.models.config import ArchitectureKind
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.kraken_width import FFN_FACTOR, KrakenShape
from kraken_sim.scenario.spec import ArchitectureSpec

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.scenario.spec import Scenario

ALIGNMENTS: Final = (64, 256)
"""Widths are multiples of half a tensor-core tile, or of the widest tile; both are tried."""

MOST_STEPS: Final = 17
"""How many multiples away from the budget's width one is looked for that divides."""


@dataclass(frozen=True, slots=True)
class Design:
    """One point of a search; widths and heads are those of a sub-layer for Kraken, of the model otherwise."""

    hardware: str
    num_devices: int
    kind: ArchitectureKind
    ways: int
    """Sub-layers a layer; 1 unless Kraken."""
    num_hidden_layers: int
    hidden_size: int
    head_dim: int
    num_key_value_groups: int
    """Query heads a key/value head, as Hugging Face calls it."""
    ffn_expansion: float
    channels: int | None

    @property
    def num_attention_heads(self) -> int:
        """Query heads."""
        return self.hidden_size // self.head_dim

    @property
    def num_key_value_heads(self) -> int:
        """Key/value heads."""
        return self.num_attention_heads // self.num_key_value_groups

    @property
    def intermediate_size(self) -> int:
        """Width of the FFN."""
        return round(self.ffn_expansion * self.hidden_size)

    @property
    def label(self) -> str:
        """The design in a line."""
        width = f"{self.ways} x {self.hidden_size}" if self.kind is ArchitectureKind.KRAKEN else str(self.hidden_size)
        heads = f"{self.num_attention_heads}/{self.num_key_value_heads} heads of {self.head_dim}"
        channels = "default" if self.channels is None else str(self.channels)
        return (
            f"{self.kind.value}, {self.num_hidden_layers} layers, width {width}, {heads}, "
            f"FFN x {self.ffn_expansion:g}, {channels} channels, {self.num_devices} x {self.hardware}"
        )

    def scenario(self, base: Scenario) -> Scenario:
        """The base scenario with this design's machine, shapes and channels."""
        shapes: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "intermediate_size": self.intermediate_size,
        }
        model = base.model.model_copy(update={"num_hidden_layers": self.num_hidden_layers})
        architecture = ArchitectureSpec(kind=self.kind)
        if self.kind is ArchitectureKind.KRAKEN:
            architecture = architecture.model_copy(update={"ways": self.ways, **shapes})
        else:
            model = model.model_copy(update={**shapes, "head_dim": self.head_dim})
        collective = base.runtime.collective.model_copy(update={"channels": self.channels})
        return base.model_copy(
            update={
                "name": self.label,
                "hardware": self.hardware,
                "num_devices": self.num_devices,
                "model": model,
                "architecture": architecture,
                "runtime": base.runtime.model_copy(update={"collective": collective}),
            }
        )

    def num_parameters(self, config: TransformerConfig) -> int:
        """Parameters of the design; vocabulary, positions, biases and norms are the base model's."""
        shaped = replace(
            config,
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            intermediate_size=self.intermediate_size,
        )
        if self.kind is not ArchitectureKind.KRAKEN:
            return parameter_count(shaped, self.kind)
        shape = KrakenShape(
            self.ways,
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.intermediate_size,
        )
        base = replace(config, num_hidden_layers=self.num_hidden_layers)
        return parameter_count(base, self.kind, shape)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {
            "hardware": self.hardware,
            "num_devices": self.num_devices,
            "architecture": self.kind.value,
            "ways": self.ways,
            "num_hidden_layers": self.num_hidden_layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "channels": self.channels,
        }


def default_ffn_expansion(config: TransformerConfig, kind: ArchitectureKind) -> float:
    """The base model's own, and 2 for a Kraken, as its authors take it."""
    return float(FFN_FACTOR) if kind is ArchitectureKind.KRAKEN else config.intermediate_size / config.hidden_size


def sharing_devices(design: Design) -> int:
    """Devices that share one block: all of them, or for a Kraken those of one sub-layer."""
    if design.kind is ArchitectureKind.KRAKEN:
        return max(1, design.num_devices // design.ways)
    return design.num_devices


def divides(design: Design) -> bool:
    """Whether heads, key/value heads (split or replicated) and FFN can be spread over the devices that share them."""
    sharing, heads, kv_heads = sharing_devices(design), design.num_attention_heads, design.num_key_value_heads
    if kv_heads == 0 or design.hidden_size % design.head_dim or heads % design.num_key_value_groups:
        return False
    whole_ffn = design.intermediate_size % sharing == 0
    return heads % sharing == 0 and (kv_heads % sharing == 0 or sharing % kv_heads == 0) and whole_ffn


def widths_for_budget(design: Design, config: TransformerConfig, budget: int) -> list[int]:
    """For each alignment, the width that divides and whose parameters are nearest to the budget; without repeats.

    Args:
        design: everything but its width counts.
        config: the base model.
        budget: parameters to spend.
    """
    found = set()
    for alignment in ALIGNMENTS:
        unit = lcm(design.head_dim * lcm(design.num_key_value_groups, sharing_devices(design)), alignment)
        start = _nearest_multiple(design, config, budget, unit)
        candidates = [multiple for distance in range(MOST_STEPS) for multiple in (start - distance, start + distance)]
        widths = (multiple * unit for multiple in candidates if multiple > 0)
        width = next((width for width in widths if divides(replace(design, hidden_size=width))), None)
        if width is not None:
            found.add(width)
    return sorted(found)


def _nearest_multiple(design: Design, config: TransformerConfig, budget: int, unit: int) -> int:
    """The multiple of `unit` whose parameters are nearest to the budget; they grow with the width."""

    def excess(multiple: int) -> int:
        return replace(design, hidden_size=multiple * unit).num_parameters(config) - budget

    high = 1
    while excess(high) < 0:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return min((low, high), key=lambda multiple: abs(excess(multiple)))
