"""What every file of ours is read into, and the fields that several kinds of file have."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from kraken_sim.errors import InputError
from kraken_sim.units import EXAMPLES, Dimension, parse_quantity

Item = TypeVar("Item")


class FileModel(BaseModel):
    """A part of a file: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def quantity(dimension: Dimension) -> BeforeValidator:
    """Reads a number with a unit of this dimension into SI."""

    def read(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except InputError as error:
            problem = error.problems[0]
            hint = f"; did you mean {problem.suggestion!r}?" if problem.suggestion else ""
            message = {"message": f"{problem.message}{hint}"}
            raise PydanticCustomError("quantity", "{message}", message) from None

    return BeforeValidator(read)


def quantity_text(dimension: Dimension) -> WithJsonSchema:
    """JSON schema of a number with a unit of this dimension."""
    example = EXAMPLES[dimension].strip('"')
    return WithJsonSchema({"type": "string", "description": f"a {dimension} with its unit", "examples": [example]})


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # `min_length` would also count items that are wrong for other reasons as missing.
    if not items:
        message = "must not be empty"
        raise PydanticCustomError("empty", "{message}", {"message": message})
    return items


NotEmpty = AfterValidator(_not_empty)
Count = Annotated[int, Field(strict=True, ge=1, le=1 << 53)]
"""How many of something: a limit of ours, up to which every whole number is one of a float too."""

Name = Annotated[StrictStr, Field(min_length=1, max_length=200)]
