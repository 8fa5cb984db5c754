"""Fields of request files: quantities with units, dates, prices with their source."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from kraken_sim.errors import InputError, Problem
from kraken_sim.files.problems import problems_of
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.profiles.load import is_path
from kraken_sim.units import EXAMPLES, Dimension, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kraken_sim.files.strict_yaml import YamlDocument
    from kraken_sim.scenario.spec import ModelSpec


class Spec(BaseModel):
    """A part of a file: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Request = TypeVar("Request", bound=Spec)
Item = TypeVar("Item")


def _reader(dimension: Dimension) -> BeforeValidator:
    def read(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except InputError as error:
            problem = error.problems[0]
            hint = f"; did you mean {problem.suggestion!r}?" if problem.suggestion else ""
            text = f"{problem.message}{hint}"
            raise PydanticCustomError("quantity", "{message}", {"message": text}) from None

    return BeforeValidator(read)


def _schema(dimension: Dimension) -> WithJsonSchema:
    example = EXAMPLES[dimension].strip('"')
    return WithJsonSchema({"type": "string", "description": f"a {dimension} with its unit", "examples": [example]})


def _iso_date(value: object) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        message = "must be a date, year-month-day"
        raise PydanticCustomError("date", "{message}", {"message": message}) from None


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # `min_length` would also count items that are wrong for other reasons as missing.
    if not items:
        message = "must not be empty"
        raise PydanticCustomError("empty", "{message}", {"message": message})
    return items


Seconds = Annotated[float, _reader(Dimension.TIME), Field(gt=0.0), _schema(Dimension.TIME)]
Watts = Annotated[float, _reader(Dimension.POWER), Field(ge=0.0), _schema(Dimension.POWER)]
Bytes = Annotated[float, _reader(Dimension.BYTES), Field(gt=0.0), _schema(Dimension.BYTES)]
NotEmpty = AfterValidator(_not_empty)
IsoDate = Annotated[str, BeforeValidator(_iso_date)]
Amount = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=100)]
Source = Annotated[str, Field(strict=True, min_length=3, max_length=500)]


def read_request(path: str | Path, model: type[Request]) -> tuple[Request, YamlDocument]:
    """Reads a request file strictly.

    Returns:
        The request, and the document, whose `error` adds line numbers to problems found later.

    Raises:
        InputError: the file cannot be read or is not strict YAML, or any field is wrong.
    """
    document = read_yaml(path)
    try:
        return model.model_validate(document.data), document
    except ValidationError as error:
        raise document.error(problems_of(error, model)) from None


def raise_if_any(problems: Iterable[Problem], source: str | None = None) -> None:
    """Raises all problems as one error.

    Raises:
        InputError: there is any.
    """
    found = list(problems)
    if found:
        raise InputError(found, source)


def absolute_hardware(hardware: str, folder: Path) -> str:
    """A profile's path made absolute by the folder of the file that names it; names stay."""
    return str(folder / hardware) if is_path(hardware) else hardware


def absolute_model(model: ModelSpec, folder: Path) -> ModelSpec:
    """The same for the path of a model's config."""
    return model if model.config is None else model.model_copy(update={"config": str(folder / model.config)})
