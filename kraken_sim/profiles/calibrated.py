"""Profile files by name or path, from a checkout or from the installed package, and those with constants of their own.

A file without any is a datasheet, of which `kraken_sim.profiles.from_datasheet` makes a profile over one of these.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, closest
from kraken_sim.files.bounded import YAML_FILE, note_read, read_text, real_path
from kraken_sim.files.shipped import data_dir
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.profiles.datasheet import is_datasheet
from kraken_sim.profiles.schema import parse_profile
from kraken_sim.profiles.write import section

if TYPE_CHECKING:
    from kraken_sim.profiles.profile import HardwareProfile

_SUFFIXES: Final = (".yaml", ".yml")
_PROFILES: Final = "hardware_profiles"


def list_profiles() -> list[str]:
    """Names of the profiles that ship, sorted."""
    return sorted(path.stem for path in data_dir(_PROFILES).glob("*.yaml"))


def profile_path(name_or_path: str | Path) -> Path:
    """The file of a profile: a shipped one by name, any other by a path (relative to the working directory).

    Raises:
        InputError: No shipped profile has this name.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or is_path(text):
        return Path(name_or_path)
    shipped = data_dir(_PROFILES) / f"{text}.yaml"
    if os.path.isfile(shipped):  # a name that no file can have is none
        return shipped
    known = list_profiles()
    if text not in known:
        message = f"unknown hardware profile; known are {', '.join(known)}, or give a path to a .yaml file"
        raise InputError.single("hardware", message, text, suggestion=closest(text, known))
    return data_dir(_PROFILES) / f"{text}.yaml"


def is_path(name_or_path: str) -> bool:
    """Whether a text is the path of a profile's file, and not the name of one that ships."""
    return "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(_SUFFIXES)


def calibrated_profiles() -> list[str]:
    """The shipped profiles that have constants of their own."""
    texts = {name: read_text(profile_path(name), YAML_FILE) for name in list_profiles()}
    return [name for name, text in texts.items() if section(text, "gemm") and not section(text, "base")]


def fitted_datasheets() -> list[str]:
    """The shipped datasheets over a base whose kernels are fitted to their own GPU."""
    return [name for name in list_profiles() if has_own_kernels(profile_path(name))]


def has_own_kernels(path: Path) -> bool:
    """Whether a file is a datasheet over a base that has GEMM constants of its own.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    text = read_text(path, YAML_FILE)
    return section(text, "gemm") is not None and section(text, "base") is not None


def read_calibrated(name_or_path: str | Path) -> HardwareProfile | None:
    """The profile that a file holds by itself; None for a datasheet.

    The same file is read once per process unless it changes.

    Raises:
        InputError: No such profile, or everything that is wrong with its file.
    """
    return _read(*file_version(profile_path(name_or_path)))


def file_version(path: Path) -> tuple[Path, int, int]:
    """A profile's file with what tells one state of it from another: its time of change and its size.

    Raises:
        InputError: There is no such file.
    """
    real = real_path(path)
    try:
        status = real.stat()
    except (OSError, ValueError):
        raise InputError.single("hardware", "there is no such profile file", str(path)) from None
    note_read(status)
    return real, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> HardwareProfile | None:  # noqa: ARG001  (part of the cache key)
    document = read_yaml(path)
    return None if is_datasheet(document.data) else parse_profile(document)
