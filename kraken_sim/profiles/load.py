"""Profiles by name or path, from a checkout or from the installed package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InfeasibleError, InputError, Problem, closest
from kraken_sim.files.shipped import data_dir
from kraken_sim.program.ops import DType

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
    known = list_profiles()
    if text not in known:
        message = f"unknown hardware profile; known are {', '.join(known)}, or give a path to a .yaml file"
        raise InputError.single("hardware", message, text, suggestion=closest(text, known))
    return data_dir(_PROFILES) / f"{text}.yaml"


def is_path(name_or_path: str) -> bool:
    """Whether a text is the path of a profile's file, and not the name of one that ships."""
    return "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(_SUFFIXES)


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Loads a hardware profile, or a datasheet with constants carried over from the nearest calibrated GPU.

    The same file is read once per process unless it changes.

    Raises:
        InputError: No such profile, or everything that is wrong with its file.
    """
    path = profile_path(name_or_path)
    try:
        status = path.resolve().stat()
    except OSError:
        raise InputError.single("hardware", "there is no such profile file", str(path)) from None
    return _load(path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _load(path: Path, mtime_ns: int, size: int) -> HardwareProfile:  # noqa: ARG001  (part of the cache key)
    from kraken_sim.files.strict_yaml import read_yaml
    from kraken_sim.profiles.datasheet import is_datasheet
    from kraken_sim.profiles.schema import parse_profile

    document = read_yaml(path)
    if is_datasheet(document.data):
        from kraken_sim.profiles.carry_over import profile_of

        return profile_of(document)
    return parse_profile(document)


def check_profile(name_or_path: str | Path) -> list[Problem]:
    """Everything wrong or doubtful about a profile; empty for a good one.

    Beyond what loading rejects: peak rates that fall with shorter numbers, a name that is not the file's, and
    groups of GPUs that cannot communicate.
    """
    try:
        path = profile_path(name_or_path)
        profile = load_profile(path)
    except InputError as error:
        return list(error.problems)
    problems = _communication_problems(profile)
    if profile.name != path.stem:
        problems.append(Problem("name", f"is not the name of the file, {path.stem!r}", profile.name))
    peaks = profile.device.peak_flops
    slower = [dtype for dtype in peaks if dtype.num_bytes < 4 and peaks[dtype] < peaks.get(DType.FLOAT32, 0.0)]
    message = "is less than the rate of float32"
    return problems + [Problem(f"device.peak_flops.{dtype}", message, peaks[dtype]) for dtype in slower]


def _communication_problems(profile: HardwareProfile) -> list[Problem]:
    try:
        profile.topology.interconnect(len(profile.topology.gpus))
    except InputError as error:
        return list(error.problems)
    except InfeasibleError as error:
        return [Problem("topology", str(error))]
    return []
