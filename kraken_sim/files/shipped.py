"""Files that ship with the package: machines and scenarios."""

from __future__ import annotations

import os
from pathlib import Path

from kraken_sim.errors import InputError, closest


def data_dir(kind: str) -> Path:
    """Where files that ship with the package lie: `hardware_profiles` or `scenarios`.

    In an installed wheel they are inside the package, in a checkout or an editable install beside it.

    Raises:
        InputError: There is no such folder.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise InputError.single("", f"this installation has no folder {kind!r}")


def shipped_path(name_or_path: str | Path, argument: str) -> Path:
    """A file's path, or that of a file in `scenarios` that ships, by its name; `argument` is what errors call it.

    Raises:
        InputError: there is neither.
    """
    path = Path(name_or_path)
    named = isinstance(name_or_path, str) and path.name == name_or_path and path.suffix not in (".yaml", ".yml")
    # os.path answers for any text; pathlib raises where a name is too long or holds a NUL.
    if not named or os.path.exists(name_or_path):
        return path
    shipped = {file.stem: file for file in data_dir("scenarios").glob("*.yaml")}
    if name_or_path not in shipped:
        message = "there is no such file, and no scenario of this name ships"
        guess = closest(str(name_or_path), list(shipped))
        raise InputError.single(argument, message, str(name_or_path)[:60], ", ".join(sorted(shipped)[:1]), guess)
    return shipped[str(name_or_path)]
