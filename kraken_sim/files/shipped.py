"""Files that ship with the package: machines and scenarios."""

from __future__ import annotations

from pathlib import Path

from kraken_sim.errors import InputError


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
