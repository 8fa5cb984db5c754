"""Which GPUs the ranks sit on, written as CUDA_VISIBLE_DEVICES writes it: "0,1,4,5"."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, StrictStr
from pydantic_core import PydanticCustomError

from kraken_sim.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.profiles.profile import HardwareProfile

_NUMBER: Final = re.compile(r"\d{1,4}")


def gpu_numbers(placement: str) -> tuple[int, ...]:
    """The GPU of each rank, counted from 0 in the order of the profile.

    Raises:
        ValueError: it is no list of different numbers.
    """
    parts = [part.strip() for part in placement.split(",")]
    wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
    if wrong is not None:
        message = f"must be numbers of GPUs with commas between, and {wrong!r} is none"
        raise ValueError(message)
    numbers = tuple(map(int, parts))
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        message = f"names GPU {twice} twice, and a GPU holds one rank"
        raise ValueError(message)
    return numbers


def _checked(placement: str) -> str:
    try:
        gpu_numbers(placement)
    except ValueError as error:
        raise PydanticCustomError("placement", "{message}", {"message": str(error)}) from None
    return placement


Placement = Annotated[StrictStr, AfterValidator(_checked)]
"""The field of a file."""


def placement_problems(
    placement: str, num_devices: int, total: int | None = None, machine: str = "", path: str = "placement"
) -> Iterator[Problem]:
    """What is wrong with a placement of `num_devices` ranks on a machine of `total` GPUs; None: it is not known."""
    numbers = gpu_numbers(placement)
    example = ",".join(map(str, range(num_devices if total is None else min(num_devices, total))))
    unknown = [number for number in numbers if total is not None and number >= total]
    if total is not None and unknown:
        message = f"{machine} has GPUs 0 to {total - 1}, and no {', '.join(map(str, unknown))}"
        yield Problem(path, message, placement, f'"{example}"')
    elif len(numbers) != num_devices:
        yield Problem(path, f"names {len(numbers)} GPUs for {num_devices} ranks", placement, f'"{example}"')


def placed(
    profile: HardwareProfile, placement: str | None, num_devices: int, path: str = "placement"
) -> HardwareProfile:
    """The machine with its GPUs counted so that rank r sits where the placement says; without one, as it is.

    Raises:
        InputError: the machine has no such GPU, or the placement is not that of `num_devices` ranks.
    """
    if placement is None:
        return profile
    if problems := list(placement_problems(placement, num_devices, len(profile.topology.gpus), profile.name, path)):
        raise InputError(problems)
    return replace(profile, topology=profile.topology.with_ranks_on(gpu_numbers(placement)))
