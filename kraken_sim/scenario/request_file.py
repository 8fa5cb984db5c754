"""Request files: how they are read, and the fields that several kinds of them have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.model import FileModel, quantity, quantity_text
from kraken_sim.files.problems import problems_of
from kraken_sim.files.shipped import shipped_path
from kraken_sim.files.strict_yaml import YamlDocument, read_yaml
from kraken_sim.profiles.load import is_path
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kraken_sim.architectures.architecture import ArchitectureFields
    from kraken_sim.scenario.model import ModelSpec


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


RequestSource = str | Path | Mapping[str, object]
"""A request: the path of a file, the name of one that ships, or a mapping of its shape."""


def read_request(
    source: RequestSource | YamlDocument,
    model: type[Request],
    placed: Callable[[Request, Path], Request],
    problems: Callable[[Request], Iterable[Problem]],
) -> Request:
    """Reads a request strictly.

    Args:
        source: the file, what was read of it, or a mapping; paths in a mapping are relative to the working directory.
        model: what it is to hold.
        placed: makes the paths in a request absolute, given the file's folder.
        problems: what is wrong with a request beyond single fields.

    Raises:
        InputError: the file cannot be read, is not strict YAML, or holds any problem; all at once, with line numbers.
    """
    if isinstance(source, Mapping):
        return _request_of(source, model, problems)
    path = shipped_path(source, "request") if isinstance(source, str) else source
    document = read_yaml(path)
    try:
        request = model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, model)) from None
    request = placed(request, document.folder)
    if found := list(problems(request)):
        raise document.error(found)
    return request


def _request_of(
    data: Mapping[str, object], model: type[Request], problems: Callable[[Request], Iterable[Problem]]
) -> Request:
    try:
        request = model.model_validate(dict(data))
    except ValidationError as error:
        raise InputError(problems_of(error, model)) from None
    raise_if_any(problems(request))
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


def absolute_architecture(architecture: ArchitectureFields, folder: Path) -> ArchitectureFields:
    """The same for the path of a file that describes an architecture."""
    path = getattr(architecture, "path", None)
    return architecture if path is None else architecture.model_copy(update={"path": str(folder / path)})
