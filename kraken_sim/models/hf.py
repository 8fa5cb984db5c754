"""Transformer shapes from Hugging Face `config.json` files or from fields of the same names.

Field names follow the public `configuration_*.py` files of Hugging Face transformers; what a family implies beyond them
is in `kraken_sim.models.families`. Only local files are read.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.files.bounded import CONFIG_FILE, read_text
from kraken_sim.files.problems import as_printed
from kraken_sim.files.strict_json import parse_json
from kraken_sim.models.config import TransformerConfig
from kraken_sim.models.families import FAMILIES, Family
from kraken_sim.models.hf_unsupported import unsupported_features, unsupported_model_type
from kraken_sim.models.quantised import checkpoint_format
from kraken_sim.models.windows import attention_windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.models.windows import Windows
    from kraken_sim.program.formats import InputFormat

SIZE_LIMIT = 1 << 24
"""Largest dimension of a model; a limit of ours: none comes near it, and a larger one is a slip that would only exhaust
the machine."""


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model", "hidden_dim"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "n_head_kv"),
    "head_dim": (),
    "intermediate_size": ("n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
    "vocab_size": ("n_vocab",),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_sequence_length"),
}
"""Size fields and the other names that Hugging Face configs use for them."""

_CAPPING = 3
"""Kernels of a soft cap on the logits: a division, tanh, a product (transformers' modeling_gemma2.py)."""

EXAMPLES: Mapping[str, str] = {
    "num_hidden_layers": "32",
    "hidden_size": "4096",
    "num_attention_heads": "32",
    "num_key_value_heads": "8",
    "head_dim": "128",
    "intermediate_size": "11008",
    "vocab_size": "32000",
    "max_position_embeddings": "4096",
}

_REQUIRED = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings")


def config_from_hf(source: str | Path | Mapping[str, object]) -> TransformerConfig:
    """The shape described by a Hugging Face `config.json`.

    Args:
        source: path to the file, path to the folder that holds it, or its parsed content.

    Raises:
        InputError: the file cannot be read, the model is not a supported dense decoder, or fields are
            missing, malformed or contradict each other; all problems at once.
    """
    fields, name = read_hf_fields(source)
    try:
        return config_from_fields(fields)
    except InputError as error:
        raise InputError(error.problems, source=name) from None


def config_file(path: str | Path) -> Path:
    """The file of a config that is given by its path or by the folder of a model."""
    # os.path answers for any text; pathlib raises where a name is too long or holds a NUL.
    return Path(path, "config.json") if os.path.isdir(path) else Path(path)


def read_hf_fields(source: str | Path | Mapping[str, object]) -> tuple[Mapping[str, object], str | None]:
    """The raw fields of a `config.json`, and the file's name (None for a mapping)."""
    if not isinstance(source, (str, Path)):
        return source, None
    path = config_file(source)
    text = read_text(path, CONFIG_FILE, example="a path to a local config.json (nothing is downloaded)")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError.single("", f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError.single("", f"{path} must hold an object of fields", content)
    return content, str(path)


def config_from_fields(
    fields: Mapping[str, object], *, overrides: Mapping[str, object] | None = None, at: str = ""
) -> TransformerConfig:
    """The shape described by Hugging Face fields; `model_type` (gpt2, llama, ...) gives the family.

    Args:
        fields: raw content of a `config.json`; synonyms such as `n_embd` are understood.
        overrides: fields under their main names that replace those of `fields`. A size that `fields` leaves
            to be derived (head_dim, num_key_value_heads, intermediate_size) follows the replaced ones.
        at: dotted path of `fields` in the file they come from, for error messages.

    Raises:
        InputError: every missing, malformed, contradictory or unsupported field.
    """
    reader = _FieldReader(fields, overrides or {}, at)
    family = reader.family()
    if family is None:
        # Of a model that is none of the supported ones nothing else need be right.
        raise InputError(reader.problems)
    reader.problems.extend(unsupported_features(fields, at))
    sizes = {name: reader.size(name, family) for name in SYNONYMS}
    flags = {name: reader.flag(name, family) for name in _FLAGS}
    windows = attention_windows(fields, family, reader.path("sliding_window"), reader.problems)
    _derive(sizes, family)
    reader.check(sizes, family)
    if reader.problems:
        raise InputError(reader.problems)
    return _build(sizes, flags, family, windows, fields)


def format_from_fields(fields: Mapping[str, object], *, at: str = "") -> InputFormat | None:
    """What a checkpoint of these fields has its matrices and their inputs in; None where they are not quantised.

    Raises:
        InputError: a format that is not supported.
    """
    path = f"{at}.quantization_config" if at else "quantization_config"
    found = checkpoint_format(fields.get("quantization_config"), path)
    if isinstance(found, Problem):
        raise InputError([found])
    return found


class _FieldReader:
    """Reads typed values out of raw fields and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, object], overrides: Mapping[str, object], at: str) -> None:
        self.fields = fields
        self.overrides = overrides
        self.at = at
        self.problems: list[Problem] = []

    def path(self, name: str) -> str:
        return f"{self.at}.{name}" if self.at else name

    def where(self, name: str) -> str:
        """Dotted path of a size that may have been replaced: a replaced one sits beside the config's path."""
        if name in self.overrides and self.at:
            return f"{self.at.rpartition('.')[0] or self.at}.{name}"
        return self.path(name)

    def family(self) -> Family | None:
        model_type = self.fields.get("model_type")
        if isinstance(model_type, str) and model_type in FAMILIES:
            return FAMILIES[model_type]
        self.problems.append(unsupported_model_type(model_type, self.path("model_type"), tuple(FAMILIES)))
        return None

    def size(self, name: str, family: Family) -> int | None:
        """A positive whole number under its main name or a synonym, or the family's; None where all leave it out."""
        if self.overrides.get(name) is not None:
            return self._positive(self.where(name), name, self.overrides[name])
        if name == "num_key_value_heads" and _is_multi_query(self.fields):
            return 1
        found = {key: self.fields[key] for key in (name, *SYNONYMS[name]) if self.fields.get(key) is not None}
        values = [self._positive(self.path(key), name, value) for key, value in found.items()]
        if len(set(values)) > 1 and None not in values:
            listed = ", ".join(f"{key} = {value}" for key, value in found.items())
            self.problems.append(Problem(self.path(name), f"contradictory values of one field: {listed}"))
        return values[0] if values else family.defaults.get(name)

    def _positive(self, path: str, name: str, value: object) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SIZE_LIMIT:
            return value
        message = f"must be a whole number from 1 to {SIZE_LIMIT}"
        self.problems.append(Problem(path, message, as_printed(value), EXAMPLES[name]))
        return None

    def flag(self, name: str, family: Family) -> bool | None:
        value, called = self.overrides.get(name), family.flag_names.get(name, name)
        path = self.path(called) if value is None else self.where(name)
        value = self.fields.get(called) if value is None else value
        if value is None or isinstance(value, bool):
            return value
        if path not in {problem.path for problem in self.problems}:
            self.problems.append(Problem(path, "must be true or false", as_printed(value), "true"))
        return None

    def check(self, sizes: dict[str, int | None], family: Family) -> None:
        """Missing fields, and sizes that do not divide each other."""
        bad = {problem.path for problem in self.problems}
        required = _REQUIRED if family.ffn_factor else (*_REQUIRED, "intermediate_size")
        for name in required:
            named = {self.where(name), *(self.path(key) for key in SYNONYMS[name])}
            if sizes[name] is None and not named & bad:
                self.problems.append(self._missing(name))
        hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
        if hidden and heads and sizes["head_dim"] is None and self.where("head_dim") not in bad:
            message = f"hidden_size {hidden} does not divide by {heads} heads, and no head_dim is given"
            self.problems.append(Problem(self.where("num_attention_heads"), message, heads))
        kv_heads = sizes["num_key_value_heads"]
        if heads and kv_heads and heads % kv_heads:
            message = f"num_attention_heads {heads} does not divide by num_key_value_heads {kv_heads}"
            example = str(closest_divisor(heads, kv_heads))
            self.problems.append(Problem(self.where("num_key_value_heads"), message, kv_heads, example))

    def _missing(self, name: str) -> Problem:
        also = f" (or {', '.join(SYNONYMS[name])})" if SYNONYMS[name] else ""
        typo = closest(name, [key for key in self.fields if isinstance(key, str) and not _is_known(key)])
        seen = f"; the file has {typo!r}, which is no field of a model" if typo else ""
        return Problem(self.where(name), f"is missing{also}{seen}", example=f"{name}: {EXAMPLES[name]}")


def closest_divisor(number: int, wanted: float) -> int:
    """The divisor of `number` whose ratio to `wanted` is nearest to one; the larger of two as near."""
    small = [candidate for candidate in range(1, math.isqrt(number) + 1) if number % candidate == 0]
    divisors = {*small, *(number // divisor for divisor in small)}
    return min(divisors, key=lambda divisor: (max(divisor / wanted, wanted / divisor), -divisor))


def _is_known(key: str) -> bool:
    return key in _FLAGS or any(key == name or key in others for name, others in SYNONYMS.items())


def _derive(sizes: dict[str, int | None], family: Family) -> None:
    """Fill the sizes that a config may leave out, in place."""
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if sizes["num_key_value_heads"] is None:
        sizes["num_key_value_heads"] = heads
    if sizes["head_dim"] is None and hidden and heads and hidden % heads == 0:
        sizes["head_dim"] = hidden // heads
    if sizes["intermediate_size"] is None and hidden and family.ffn_factor:
        sizes["intermediate_size"] = family.ffn_factor * hidden


def _is_multi_query(fields: Mapping[str, object]) -> bool:
    """Whether a Falcon has one key/value head, whatever the field that counts them says (modeling_falcon.py)."""
    if fields.get("model_type") != "falcon":
        return False
    return fields.get("multi_query", True) is True and fields.get("new_decoder_architecture") is not True


def _build(
    sizes: Mapping[str, int | None],
    flags: Mapping[str, bool | None],
    family: Family,
    windows: Windows,
    fields: Mapping[str, object],
) -> TransformerConfig:
    known = {key: value for key, value in sizes.items() if value is not None}
    chosen = {key: getattr(family, key) if value is None else value for key, value in flags.items()}
    name, capped = fields.get("_name_or_path"), fields.get("final_logit_softcapping")
    return TransformerConfig(
        **known,
        gated_ffn=family.gated_ffn,
        position_embeddings=family.position_embeddings,
        norm_bias=family.norm_bias,
        attention_bias=chosen["attention_bias"],
        mlp_bias=chosen["mlp_bias"],
        tie_word_embeddings=chosen["tie_word_embeddings"],
        attention_output_bias=family.attention_output_bias,
        qk_norm=family.qk_norm,
        lm_head_bias=family.lm_head_bias,
        norm_weight=family.norm_weight,
        post_norms=family.post_norms,
        num_extra_positions=family.num_extra_positions,
        scaled_embedding=family.scaled_embedding,
        scaled_residual=family.scaled_residual,
        num_logit_kernels=_CAPPING if capped else family.num_logit_kernels,
        attention_windows=windows,
        name=name if isinstance(name, str) and name else None,
    )
