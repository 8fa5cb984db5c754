"""Which layers of a model attend to a window of the last tokens, as Hugging Face configs say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import Problem
from kraken_sim.files.problems import as_printed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kraken_sim.models.families import Family

_FULL: Final = "full_attention"
_WINDOWED: Final = "sliding_attention"

Windows = tuple[int | None, ...]


def attention_windows(fields: Mapping[str, Any], family: Family, path: str, problems: list[Problem]) -> Windows:
    """The windows of a model's layers, over one period of them: see `TransformerConfig.attention_windows`.

    `layer_types` says which layers have one; else `max_window_layers` (Qwen: the first layers have none),
    `sliding_window_pattern` (Gemma 3: each so-manieth has none), or what the family is. A window of as many tokens as
    the model has positions is none.

    Args:
        fields: content of a config.json.
        family: what its `model_type` implies.
        path: dotted path of `sliding_window`, for error messages.
        problems: what is wrong is added here.
    """
    window = fields.get("sliding_window", family.defaults.get("sliding_window"))
    if window is None or fields.get("use_sliding_window", family.windows_by_default) is False:
        return ()
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        message = "must be a number of tokens, or null for attention to all"
        problems.append(Problem(path, message, as_printed(window), "sliding_window: null"))
        return ()
    positions = fields.get("max_position_embeddings", family.defaults.get("max_position_embeddings"))
    if isinstance(positions, int) and window >= positions:
        return ()
    layers = fields.get("layer_types")
    if layers is not None:
        return _of_types(layers, window, path.removesuffix("sliding_window") + "layer_types", problems)
    first, depth = fields.get("max_window_layers"), fields.get("num_hidden_layers")
    if isinstance(first, int) and isinstance(depth, int) and not family.windows_by_default:
        return _shortest([None if index < first else window for index in range(depth)])
    every = fields.get("sliding_window_pattern", family.window_every)
    if not isinstance(every, int) or isinstance(every, bool) or not 1 <= every <= 1 << 16:
        at = path.removesuffix("sliding_window") + "sliding_window_pattern"
        problems.append(Problem(at, "must be a number of layers", as_printed(every), "6"))
        return ()
    return (window,) if every == 1 else (*[window] * (every - 1), None)


def _of_types(layers: object, window: int, path: str, problems: list[Problem]) -> Windows:
    known = (_FULL, _WINDOWED)
    if not isinstance(layers, list) or not all(layer in known for layer in layers):
        message = f"must be a list of {_FULL} and {_WINDOWED}; other kinds of attention are not supported"
        problems.append(Problem(path, message, as_printed(layers)))
        return ()
    return _shortest([window if layer == _WINDOWED else None for layer in layers])


def _shortest(windows: Sequence[int | None]) -> Windows:
    """The shortest period whose repetition gives them; nothing where none has a window."""
    if all(window is None for window in windows):
        return ()
    for period in range(1, len(windows)):
        if all(window == windows[index % period] for index, window in enumerate(windows)):
            return tuple(windows[:period])
    return tuple(windows)
