"""Machines by name or path: profiles as they stand, datasheets with constants carried over."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from kraken_sim.errors import InfeasibleError, InputError, Problem
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.hardware.device import QUANTISED_FORMATS
from kraken_sim.profiles.calibrated import file_version, is_path, list_profiles, profile_path, read_calibrated
from kraken_sim.profiles.doubts import unsold_links
from kraken_sim.profiles.from_datasheet import base_files, profile_of
from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.profiles.profile import HardwareProfile

__all__ = ["check_profile", "is_path", "list_profiles", "load_profile", "profile_files", "profile_path"]


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Loads a hardware profile, or a datasheet with constants carried over from the nearest calibrated GPU.

    The same file is read once per process unless it changes.

    Raises:
        InputError: No such profile, or everything that is wrong with its file.
    """
    profile = read_calibrated(name_or_path)
    if profile is not None:
        return profile
    return _carried_over(tuple(file_version(path) for path in profile_files(name_or_path)))


@lru_cache(maxsize=64)
def _carried_over(versions: tuple[tuple[Path, int, int], ...]) -> HardwareProfile:
    return profile_of(read_yaml(versions[0][0]))


def profile_files(name_or_path: str | Path) -> tuple[Path, ...]:
    """The files that a machine is read from: its own and, of a datasheet, those of its bases, as far as they are there.

    Raises:
        InputError: No shipped profile has this name, the file is not strict YAML, or it is its own base.
    """
    path = profile_path(name_or_path)
    if not os.path.isfile(path):
        return (path,)
    return (path, *base_files(read_yaml(path)))


def check_profile(name_or_path: str | Path) -> list[Problem]:
    """Everything wrong or doubtful about a profile; empty for a good one.

    Beyond what loading rejects: peak rates that fall with shorter numbers or of formats that the generation has not, a
    name that is not the file's, groups of GPUs that cannot communicate, and NVLink that the maker does not sell.
    """
    try:
        path = profile_path(name_or_path)
        profile = load_profile(path)
    except InputError as error:
        return list(error.problems)
    problems = [*_communication_problems(profile), *unsold_links(profile.device, profile.topology)]
    if profile.name != path.stem:
        problems.append(Problem("name", f"is not the name of the file, {path.stem!r}", profile.name))
    peaks = profile.device.peak_flops
    slower = [dtype for dtype in peaks if dtype.num_bytes < 4 and peaks[dtype] < peaks.get(DType.FLOAT32, 0.0)]
    message = "is less than the rate of float32"
    problems += [Problem(f"device.peak_flops.{dtype}", message, peaks[dtype]) for dtype in slower]
    generation = profile.device.generation
    unknown = [d for d in peaks if d.num_bytes == 1 and d not in QUANTISED_FORMATS[generation]]
    message = f"tensor cores of {generation} do not multiply it"
    return problems + [Problem(f"device.peak_flops.{dtype}", message, peaks[dtype]) for dtype in unknown]


def _communication_problems(profile: HardwareProfile) -> list[Problem]:
    try:
        profile.topology.interconnect(len(profile.topology.gpus))
    except InputError as error:
        return list(error.problems)
    except InfeasibleError as error:
        return [Problem("topology", str(error))]
    return []
