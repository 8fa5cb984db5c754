"""What a training run is: model, architecture and schedule, as its YAML file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.model import Count, FileModel, Name
from kraken_sim.files.problems import fields_error, problems_of
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.kraken_width import FFN_FACTOR

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument

GPT2_FFN_FACTOR = 4
"""FFN width over hidden size of a standard or parallel model: Radford et al., GPT-2 (2019)."""

KRAKEN = "kraken"

Received = Literal["norm", "nothing", "residual", "residual_mean"]
"""What becomes of the other sub-layers' outputs: they feed the FFN's norm (the paper's Kraken), are not sent at all, or
are added to the residual too, as they are or divided by the number of ways."""

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Checked = TypeVar("Checked", bound=FileModel)


class ModelShape(FileModel):
    """A GPT-2-like model; of a Kraken, the shape of one sub-layer."""

    num_hidden_layers: Count
    hidden_size: Count
    num_attention_heads: Count
    vocab_size: Count
    max_position_embeddings: Count = Field(description="Tokens of a sequence.", examples=[1024])
    intermediate_size: Count | None = Field(default=None, description="Default: 4 hidden_size, of a Kraken 2.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            message = f"must be a multiple of the {self.num_attention_heads} heads"
            raise fields_error(message, "hidden_size")
        return self


class ArchitectureSpec(FileModel):
    """How the layers hang together; `ways` and `received` are a Kraken's."""

    kind: Name = Field(default="standard", examples=["kraken"])
    ways: Count | None = None
    received: Received = "norm"

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if (self.kind == KRAKEN) != (self.ways is not None):
            raise fields_error("is a Kraken's number of sub-layers a layer, and only a Kraken's", "ways")
        if self.kind != KRAKEN and self.received != "norm":
            raise fields_error("is a Kraken's", "received")
        return self


class TrainingSpec(FileModel):
    """Optimiser, schedule and how often to look; the optimiser's defaults are those of Kraken's authors (A.1)."""

    tokens: Count = Field(description="Tokens to train on, rounded up to whole steps.")
    sequences_per_step: Count = Field(description="Sequences of one step of the optimiser, on all devices together.")
    accumulation: Count = Field(default=1, description="Parts that a device takes its share of a step in.")
    learning_rate: Positive = 2.5e-4
    final_learning_rate_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    warmup_share: Share = Field(default=0.02, description="Part of the steps in which the rate rises.")
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    beta1: Share = 0.9
    beta2: Share = 0.95
    max_gradient_norm: Positive = 1.0
    seed: Annotated[int, Field(strict=True, ge=0, lt=1 << 31)] = 0
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = Field(default=False, strict=True, description="Let torch.compile generate kernels.")
    log_every_steps: Count = 10
    validate_every_steps: Count = 200
    checkpoint_every_steps: Count = 1000
    validation_tokens: Count = 1_000_000

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.sequences_per_step % self.accumulation:
            message = f"must be a multiple of the {self.accumulation} parts of a step"
            raise fields_error(message, "sequences_per_step")
        return self


class Recipe(FileModel):
    """One training run."""

    name: Name
    model: ModelShape
    architecture: ArchitectureSpec = ArchitectureSpec()
    training: TrainingSpec

    @property
    def config(self) -> TransformerConfig:
        """The shape under the names of the simulator."""
        return config_of(self.model, self.architecture)

    @property
    def num_ways(self) -> int:
        """Sub-layers of a layer; 1 where a layer is whole."""
        return self.architecture.ways or 1

    @property
    def tokens_per_step(self) -> int:
        """Of all devices together."""
        return self.training.sequences_per_step * self.model.max_position_embeddings

    @property
    def num_steps(self) -> int:
        """Steps of the optimiser."""
        return -(-self.training.tokens // self.tokens_per_step)


def config_of(model: ModelShape, architecture: ArchitectureSpec) -> TransformerConfig:
    """The shape under the names of the simulator; learned positions, LayerNorms and biases as in GPT-2."""
    factor = FFN_FACTOR if architecture.kind == KRAKEN else GPT2_FFN_FACTOR
    return TransformerConfig(
        num_hidden_layers=model.num_hidden_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_attention_heads,
        head_dim=model.hidden_size // model.num_attention_heads,
        intermediate_size=model.intermediate_size or factor * model.hidden_size,
        vocab_size=model.vocab_size,
        max_position_embeddings=model.max_position_embeddings,
    )


def read_recipe(path: Path, architectures: tuple[str, ...]) -> Recipe:
    """Reads a recipe strictly.

    Args:
        path: the YAML file.
        architectures: the kinds that can be trained.

    Raises:
        InputError: the file cannot be read or holds any problem; all at once, with their lines.
    """
    document = read_yaml(path)
    recipe = checked(document, Recipe)
    if problem := unknown_kind(recipe.architecture, architectures, "architecture.kind"):
        raise document.error([problem])
    return recipe


def checked(document: YamlDocument, model: type[Checked]) -> Checked:
    """A file's content as a model.

    Raises:
        InputError: with every problem and its line.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, model)) from None


def unknown_kind(spec: ArchitectureSpec, architectures: tuple[str, ...], path: str) -> Problem | None:
    """What is wrong with an architecture's name, if anything."""
    if spec.kind in architectures:
        return None
    message = f"cannot be trained here; {', '.join(architectures)} can"
    return Problem(path, message, spec.kind, architectures[0], closest(spec.kind, architectures))


def differences(old: Recipe, new: Recipe) -> list[Problem]:
    """Fields in which two recipes differ, with the new value and the old one as the example."""
    before, after = old.model_dump(), new.model_dump()
    return [
        Problem(
            f"{part}.{key}", "is not what the checkpoint was trained with", after[part][key], str(before[part][key])
        )
        for part in ("model", "architecture", "training")
        for key in before[part]
        if before[part][key] != after[part][key]
    ]


def refuse_other(old: Recipe, new: Recipe, where: str) -> None:
    """A run goes on only with the recipe that it began with.

    Raises:
        InputError: with every field that differs.
    """
    if problems := differences(old, new):
        raise InputError(problems, where)
