"""What every case and record is made of: a case says what runs, its record extends it by how long that took.

Cases have a key that no two of them share. Times are quartiles over repeats, in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field

from kraken_sim.files.model import FileModel

if TYPE_CHECKING:
    from kraken_sim.program.formats import ActivationScheme, Quantization
    from kraken_sim.program.ops import DType

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Quartiles(NamedTuple):
    """First quartile, median and third quartile over the repeats; a list of three numbers in the file."""

    q1: Seconds
    median: Seconds
    q3: Seconds


class Case(FileModel):
    """Something to measure. `collective` cases run on all ranks together, others on one rank."""

    collective: ClassVar[bool] = False
    kind: str

    @property
    def key(self) -> str:
        """Names this case; equal for a case and the record made of it."""
        raise NotImplementedError


def formats_key(dtype: DType, quantization: Quantization | None, scheme: ActivationScheme | None) -> str:
    """Number formats as part of a key."""
    return "-".join([str(dtype), *(str(part) for part in (quantization, scheme) if part is not None)])


class Timed(FileModel):
    """What every record of repeated runs keeps.

    A repeat runs `calls` calls back to back and yields their mean period; the quartiles are over `repeats`
    such means. `rank` is the device that ran a case of one device.
    """

    calls: Positive
    repeats: Positive
    rank: int = 0
