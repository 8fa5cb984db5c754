"""What ships beside machines, as tables: questions and presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.files.bounded import YAML_FILE, read_text
from kraken_sim.files.shipped import data_dir
from kraken_sim.models.counts import parameter_count
from kraken_sim.models.families import FAMILIES
from kraken_sim.models.presets import PRESETS, preset
from kraken_sim.report.page import TextTable

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANSWERED_BY: Final[Mapping[str, str]] = {
    "-sweep": "sweep",
    "_design": "explore design",
    "_purchase": "procure",
    "_service": "serve",
}
"""How names end of files that `run` does not answer."""


def scenarios_table() -> TextTable:
    """A line a question: its name, the command that answers it, and what it asks."""
    rows = []
    for file in sorted(data_dir("scenarios").glob("*.yaml")):
        comments = []
        for line in read_text(file, YAML_FILE).splitlines():
            if not line.startswith("# "):
                break
            comments.append(line.removeprefix("# ").strip())
        rows.append([file.stem, _answered_by(file.stem), _first_sentence(" ".join(comments))])
    return TextTable("", ["scenario", "kraken-sim ...", "what it asks"], rows, num_left=2)


def _answered_by(name: str) -> str:
    if name.startswith("paper_grid"):
        return "paper --grid"
    return next((verb for ending, verb in _ANSWERED_BY.items() if name.endswith(ending)), "run, compare")


def _first_sentence(text: str) -> str:
    """Up to the first full stop or question mark that ends a sentence."""
    ends = [place + 1 for mark in (". ", "? ") if (place := text.find(mark)) >= 0]
    return text[: min(ends, default=len(text))].rstrip(".")


def models_table() -> TextTable:
    """A line a preset."""
    rows = []
    for name in PRESETS:
        config = preset(name)
        rows.append(
            [
                name,
                str(config.num_hidden_layers),
                str(config.hidden_size),
                str(config.num_attention_heads),
                str(config.intermediate_size),
                str(config.vocab_size),
                f"{parameter_count(config) / 1e9:.3g} B",
            ]
        )
    columns = ["preset", "layers", "width", "heads", "FFN", "vocabulary", "parameters"]
    return TextTable("Presets, GPT-like (arXiv 2408.07802)", columns, rows)


def families_sentence() -> str:
    """Whose config.json loads."""
    return f"Any Hugging Face config.json of these families loads too, by its path: {', '.join(FAMILIES)}."
