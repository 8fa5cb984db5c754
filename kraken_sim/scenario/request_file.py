"""Request files: how they are read, and the fields that several kinds of them have."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel, quantity, quantity_text
from kraken_sim.files.problems import problems_of
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.profiles.load import is_path
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.scenario.spec import ModelSpec


Request = TypeVar("Request", bound=FileModel)


def _iso_date(value: object) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        message = "must be a date, year-month-day"
        raise PydanticCustomError("date", "{message}", {"message": message}) from None


Duration = Annotated[float, quantity(Dimension.TIME), Field(gt=0.0), quantity_text(Dimension.TIME)]
Watts = Annotated[float, quantity(Dimension.POWER), Field(ge=0.0), quantity_text(Dimension.POWER)]
MemorySize = Annotated[float, quantity(Dimension.BYTES), Field(gt=0.0), quantity_text(Dimension.BYTES)]
IsoDate = Annotated[str, BeforeValidator(_iso_date)]
Amount = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Source = Annotated[str, Field(strict=True, min_length=3, max_length=500)]


def read_request(
    path: str | Path | YamlDocument,
    model: type[Request],
    placed: Callable[[Request, Path], Request],
    problems: Callable[[Request], Iterable[Problem]],
) -> Request:
    """Reads a request file strictly.

    Args:
        path: the file, or what was read of it.
        model: what it is to hold.
        placed: makes the paths in a request absolute, given the file's folder.
        problems: what is wrong with a request beyond single fields.

    Raises:
        InputError: the file cannot be read, is not strict YAML, or holds any problem; all at once, with line numbers.
    """
    document = read_yaml(path)
    try:
        request = model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, model)) from None
    request = placed(request, document.folder)
    if found := list(problems(request)):
        raise document.error(found)
    return request


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raises all problems as one error.

    Raises:
        InputError: there is any.
    """
    found = list(problems)
    if found:
        raise InputError(found)


def absolute_hardware(hardware: str, folder: Path) -> str:
    """A profile's path made absolute by the folder of the file that names it; names stay."""
    return str(folder / hardware) if is_path(hardware) else hardware


def absolute_model(model: ModelSpec, folder: Path) -> ModelSpec:
    """The same for the path of a model's config."""
    return model if model.config is None else model.model_copy(update={"config": str(folder / model.config)})
