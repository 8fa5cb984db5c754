"""What a shell may complete: names of files that ship, machines, presets, and the choices of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_ENDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "scenarios": ("yaml", "yml"),
    "hardware": ("yaml", "yml"),
    "model": ("json",),
    "architecture": ("yaml", "yml"),
}
"""Files that may be named too."""

_FOLDERS: Final[Mapping[str, str]] = {"scenarios": "scenarios", "hardware": "hardware_profiles"}
"""Where files that ship lie, which are named by their stems."""


def complete(action: argparse.Action, what: str) -> None:
    """Have shells complete an argument.

    Args:
        action: the argument.
        what: `scenarios`, or the dotted path of a scenario's field.
    """
    action.completer = Completer(what)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Completer:
    """Called by argcomplete, where a shell asks."""

    what: str

    def __call__(self, prefix: str, **_: Any) -> list[str]:
        """All words that may stand there and begin with `prefix`."""
        from argcomplete.completers import FilesCompleter

        words = [word for word in completions_of(self.what) if word.startswith(prefix)]
        endings = _ENDINGS.get(self.what)
        return words if endings is None else [*words, *FilesCompleter(endings)(prefix)]


def completions_of(what: str) -> list[str]:
    """The names that an argument may be, files apart."""
    if what in _FOLDERS:
        from kraken_sim.files.shipped import data_dir

        return sorted(path.stem for path in data_dir(_FOLDERS[what]).glob("*.yaml"))
    if what == "model":
        from kraken_sim.models.presets import PRESETS

        return list(PRESETS)
    if what == "architecture":
        from kraken_sim.architectures.registry import kinds

        return list(kinds())
    from kraken_sim.files.problems import choices_at
    from kraken_sim.scenario.spec import Scenario

    return choices_at(Scenario, what.split("."))
