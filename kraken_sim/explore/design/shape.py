"""One design: a machine, a wiring and the shapes of a model, and the shapes that meet a parameter budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.architecture import Question, heads_split, kv_heads_split
from kraken_sim.architectures.registry import architecture
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.layout import Block, Layout
from kraken_sim.program.kernel_sets import KernelSet

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import Architecture, ArchitectureFields
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.formats import Quantization
    from kraken_sim.program.many import Sizes
    from kraken_sim.scenario.spec import Scenario

ALIGNMENTS: Final = (64, 256)
"""Widths are multiples of half a tensor-core tile, or of the widest tile; both are tried."""

MOST_STEPS: Final = 17
"""How many multiples away from the budget's width one is looked for that divides."""


@dataclass(frozen=True, slots=True)
class Design:
    """One point of a search; widths and heads are those of one block: of a Kraken's sub-layer, of another's layer."""

    hardware: str
    num_devices: int
    kind: str
    ways: int
    """Blocks a layer; 1 unless the architecture has blocks of its own shape."""
    num_hidden_layers: int
    hidden_size: int
    head_dim: int
    num_key_value_groups: int
    """Query heads a key/value head, as Hugging Face calls it."""
    ffn_expansion: float
    channels: int | None
    quantization: Quantization | None = None
    kernels: KernelSet = KernelSet.PYTORCH

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
    def architecture(self) -> Architecture[Any, Any]:
        """How its layers are wired."""
        return architecture(self.kind)

    @property
    def layout(self) -> Layout:
        """Its blocks on its devices."""
        block = Block(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.intermediate_size,
        )
        return Layout(block, self.num_devices, self.ways)

    def fields(self, base: ArchitectureFields | None = None) -> ArchitectureFields:
        """What a scenario says of its architecture, beside its blocks what `base` says if that is the same kind."""
        record = self.architecture
        own: ArchitectureFields = base if base is not None and base.kind == self.kind else record.own()
        return own if record.written is None else record.written(own, self.layout)

    @property
    def width(self) -> str:
        """The width of a block, with how many there are where their shape is the architecture's own."""
        own = self.architecture.written is not None
        return f"{self.ways} x {self.hidden_size}" if own else str(self.hidden_size)

    @property
    def label(self) -> str:
        """The design in a line."""
        heads = f"{self.num_attention_heads}/{self.num_key_value_heads} heads of {self.head_dim}"
        channels = "default" if self.channels is None else str(self.channels)
        format_words = "" if self.quantization is None else f", {self.quantization}"
        kernels_words = "" if self.kernels is KernelSet.PYTORCH else f", {self.kernels} kernels"
        return (
            f"{self.kind}, {self.num_hidden_layers} layers, width {self.width}, {heads}, "
            f"FFN x {self.ffn_expansion:g}, {channels} channels, {self.num_devices} x {self.hardware}"
            f"{format_words}{kernels_words}"
        )

    def scenario(self, base: Scenario) -> Scenario:
        """The base scenario with this design's machine, shapes, channels, number format and kernels."""
        model = base.model.model_copy(update={"num_hidden_layers": self.num_hidden_layers})
        if self.architecture.written is None:
            model = model.model_copy(update=asdict(self.layout.block))
        collective = base.runtime.collective.model_copy(update={"channels": self.channels})
        return base.model_copy(
            update={
                "name": self.label,
                "hardware": self.hardware,
                "num_devices": self.num_devices,
                "model": model,
                "architecture": self.fields(base.architecture),
                "quantization": self.quantization,
                "runtime": base.runtime.model_copy(update={"collective": collective, "kernels": self.kernels}),
            }
        )

    def num_parameters(self, config: TransformerConfig) -> int:
        """Parameters of the design; vocabulary, positions, biases and norms are the base model's."""
        record = self.architecture
        asked = Question(replace(config, num_hidden_layers=self.num_hidden_layers), self.num_devices, record.own())
        shaped = record.with_block(asked, self.layout)
        return parameter_count(shaped.config, record.layout(shaped))

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {
            "hardware": self.hardware,
            "num_devices": self.num_devices,
            "architecture": self.kind,
            "ways": self.ways,
            "num_hidden_layers": self.num_hidden_layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "channels": self.channels,
            "quantization": None if self.quantization is None else self.quantization.value,
            "kernels": self.kernels.value,
        }


def default_ffn_expansion(config: TransformerConfig, kind: str) -> float:
    """The architecture's own, and the base model's where it has none."""
    own = architecture(kind).ffn_expansion
    return config.intermediate_size / config.hidden_size if own is None else own


def divides(design: Design) -> bool:
    """Whether blocks, heads, key/value heads (split or replicated) and FFN can be spread over the devices."""
    if not heads_divide(design.hidden_size, design.head_dim, design.num_key_value_groups):
        return False
    unfit = design.architecture.fits(design.fields(), design.num_devices)
    return not any(unfit) and bool(block_splits(design.layout.block, design.layout.group))


def heads_divide(hidden_size: Sizes, head_dim: int, groups: Sizes) -> Sizes:
    """Whether a width is made of heads, and these of groups that share a key/value head."""
    heads = hidden_size // head_dim
    return (heads >= groups) & (heads % groups == 0) & (hidden_size % head_dim == 0)


def block_splits(block: Block, group: int) -> Sizes:
    """Whether the devices of a group can share a block, or each of many."""
    return (
        heads_split(block.num_attention_heads, group)
        & kv_heads_split(block.num_key_value_heads, group)
        & heads_split(block.intermediate_size, group)
    )


def widths_for_budget(design: Design, config: TransformerConfig, budget: int) -> list[int]:
    """For each alignment, the width that divides and whose parameters are nearest to the budget; without repeats.

    Args:
        design: everything but its width counts.
        config: the base model.
        budget: parameters to spend.
    """
    found = set()
    for alignment in ALIGNMENTS:
        unit = lcm(design.head_dim * lcm(design.num_key_value_groups, design.layout.group), alignment)
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
