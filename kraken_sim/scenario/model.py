"""`model` of a scenario: a preset, a Hugging Face config, or its fields, and the shape they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, StrictBool, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from kraken_sim.architectures.architecture import Size
from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import fields_error
from kraken_sim.models.families import FAMILIES
from kraken_sim.models.hf import SYNONYMS, config_from_fields, format_from_fields, read_hf_fields
from kraken_sim.models.presets import preset_fields

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.program.formats import InputFormat

_OVERRIDABLE = (*SYNONYMS, "attention_bias", "mlp_bias", "tie_word_embeddings")
_GPT_DEFAULTS = {"model_type": "gpt2", "vocab_size": 51_200, "max_position_embeddings": 2_048}
"""What a model given by its sizes alone is: GPT-like, with the vocabulary and the inputs of the paper's models (arXiv
2408.07802, section 4)."""


class ModelSpec(FileModel):
    """A preset, a Hugging Face config, or sizes under Hugging Face's names, alone or on top of either."""

    preset: StrictStr | None = Field(
        default=None, description="A named size: 125M 350M 760M 1.3B 6.7B 13B 65B 175B.", examples=["6.7B"]
    )
    config: StrictStr | None = Field(
        default=None,
        description="Path to a local Hugging Face config.json, relative to the scenario's folder.",
        examples=["configs/llama-2-7b.json"],
    )
    model_type: StrictStr | None = Field(
        default=None,
        description="Family of a model given by its sizes alone: " + ", ".join(FAMILIES) + ". Default: gpt2.",
        examples=["llama"],
    )
    num_hidden_layers: Size | None = Field(default=None, description="Layers.", examples=[32])
    hidden_size: Size | None = Field(default=None, description="Width of the residual stream.", examples=[4096])
    num_attention_heads: Size | None = Field(default=None, description="Query heads.", examples=[32])
    num_key_value_heads: Size | None = Field(
        default=None, description="Key/value heads; default: as many as query heads.", examples=[8]
    )
    head_dim: Size | None = Field(
        default=None,
        description="Width of a head; default: hidden_size / num_attention_heads.",
        examples=[128],
    )
    intermediate_size: Size | None = Field(
        default=None,
        description="Width of the FFN; default: 4 * hidden_size for GPT-like models.",
        examples=[11008],
    )
    vocab_size: Size | None = Field(
        default=None,
        description="Vocabulary; default for a model given by its sizes alone: 51200.",
        examples=[32000],
    )
    max_position_embeddings: Size | None = Field(
        default=None,
        description="Positions; default for a model given by its sizes alone: 2048.",
        examples=[4096],
    )
    attention_bias: StrictBool | None = Field(default=None, description="Biases of attention's projections.")
    mlp_bias: StrictBool | None = Field(default=None, description="Biases of the FFN.")
    tie_word_embeddings: StrictBool | None = Field(
        default=None, description="Whether the LM head reuses the token embedding."
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.preset is not None and self.config is not None:
            raise fields_error("give a preset or a config, not both", "config")
        based = self.preset is not None or self.config is not None
        if based and self.model_type is not None:
            raise fields_error("the preset or config already says the family", "model_type")
        needed = ("num_hidden_layers", "hidden_size", "num_attention_heads")
        missing = [name for name in needed if getattr(self, name) is None]
        if not based and len(missing) == len(needed):
            message = "give a preset, the path of a config, or HF fields: " + ", ".join(needed)
            raise PydanticCustomError("model_source", "{message}", {"message": message})
        if not based and missing:
            raise fields_error("is required without a preset or config", *missing)
        return self


def config_of(spec: ModelSpec) -> TransformerConfig:
    """The model's shape.

    Raises:
        InputError: every problem of its preset, config or fields.
    """
    given = {name: value for name in _OVERRIDABLE if (value := getattr(spec, name)) is not None}
    if spec.config is not None:
        fields, _ = _read_config(spec.config)
        return config_from_fields(fields, overrides=given, at="model.config")
    if spec.preset is not None:
        return config_from_fields(preset_fields(spec.preset, at="model.preset"), overrides=given, at="model")
    family = {} if spec.model_type is None else {"model_type": spec.model_type}
    return config_from_fields({**_GPT_DEFAULTS, **family, **given}, at="model")


def stored_format(spec: ModelSpec) -> InputFormat | None:
    """What the model's checkpoint has its matrices and their inputs in; None where they are not quantised.

    Raises:
        InputError: a format that is not supported.
    """
    return None if spec.config is None else format_from_fields(_read_config(spec.config)[0], at="model.config")


def _read_config(path: str) -> tuple[dict[str, object], str | None]:
    try:
        fields, name = read_hf_fields(path)
    except InputError as error:
        raise InputError(
            Problem("model.config", problem.message, example=problem.example) for problem in error.problems
        ) from None
    return dict(fields), name
