"""pydantic's validation errors in this package's words: dotted paths, examples, what was probably meant."""

from __future__ import annotations

import types
import typing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from pydantic import BaseModel
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ErrorType

from kraken_sim.errors import SHOWN, Problem, closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_MESSAGES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "missing": "is required",
    "missing_argument": "is required",
    "invalid_key": "keys must be text",
    "extra_forbidden": "unknown field",
    "unexpected_positional_argument": "is one value too many",
    "unexpected_keyword_argument": "unknown field",
    "arguments_type": "must be a list of values",
    "none_required": "must be null",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_unicode": "must be text of whole characters",
    "string_pattern_mismatch": "has not the form it must have",
    "union_tag_not_found": "has no kind",
    "dataclass_type": "must be a mapping of fields",
    "recursion_loop": "holds itself",
    "is_instance_of": "is of a kind that does not belong here",
}
_KINDS_OF_NUMBERS = {
    "greater_than": ("above", "gt"),
    "less_than": ("below", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


_OF_PYDANTIC = frozenset(typing.get_args(ErrorType))
"""Every kind of error that pydantic has by itself."""


@runtime_checkable
class HasFileForm(Protocol):
    """Metadata of a field whose type does not say what a file may have there."""

    def file_form(self) -> type[BaseModel]:
        """The model whose fields a file may have."""


def fields_error(message: str, *names: str) -> PydanticCustomError:
    """An error about fields of the model that raises it; `problems_of` reports each under its own path."""
    context = {"fields": ", ".join(names), "message": message}
    return PydanticCustomError("fields", "{fields}: {message}", context)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every error of validating `model`, as problems with dotted paths."""
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        # What was meant is looked for only where it is shown: it takes time.
        found += _problems(detail, model, guess=len(found) < SHOWN)
    return found


def _problems(detail: ErrorDetails, model: type[BaseModel], *, guess: bool) -> Iterator[Problem]:
    location = [str(part) for part in detail["loc"]]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "fields":
        fields = _fields_at(model, location)
        for name in context["fields"].split(", "):
            value = None if detail["input"] is None else _given(detail["input"], name)
            path = ".".join([*location, name])
            yield Problem(path, context["message"], value, _example(fields.get(name)))
        return
    fields = _fields_at(model, location[:-1])
    field = fields.get(location[-1]) if location else None
    path = ".".join(location)
    if kind == "extra_forbidden":
        known = list(fields)
        message = f"unknown field; known are {', '.join(known)}" if known else "unknown field"
        yield Problem(path, message, suggestion=closest(location[-1], known) if guess else None)
        return
    choices = context["choices"].split(", ") if kind == "choice" else _choices(field)
    suggestion = closest(detail["input"], choices) if isinstance(detail["input"], str) and choices else None
    value = None if kind in ("missing", "model_source") else as_printed(detail["input"])
    yield Problem(path, words_of(detail, choices), value, _example(field), suggestion)


def words_of(detail: ErrorDetails, choices: Sequence[str] = ()) -> str:
    """What one error of pydantic says, in this package's words."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "enum" or (kind == "literal_error" and choices):
        return f"must be one of {', '.join(choices) or context['expected']}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters"
    if kind in _KINDS_OF_NUMBERS:
        relation, name = _KINDS_OF_NUMBERS[kind]
        return f"must be {relation} {context[name]}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"must have {bound} values"
    if kind in ("literal_error", "union_tag_invalid"):
        return f"must be one of {context.get('expected') or context['expected_tags']}"
    # What is none of pydantic's is an error of ours, and says itself what is wrong.
    message = _MESSAGES.get(kind) or ("is not right" if kind in _OF_PYDANTIC else detail["msg"])
    return f"{message}, not null" if detail["input"] is None and kind != "missing" else message


def as_printed(value: object) -> object:
    """A value of a file as a problem holds it: scalars themselves, texts cut, of anything else its type."""
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:57] + "..."
    if value is None or isinstance(value, (int, float)):
        return value
    return f"a {type(value).__name__}"


def _given(data: object, name: str) -> object:
    """What the input held under `name`, when the input is still plain data."""
    return as_printed(data.get(name)) if isinstance(data, dict) else None


def _example(field: FieldInfo | None) -> str | None:
    if field is None or not field.examples:
        return None
    example = field.examples[0]
    if isinstance(example, dict):
        return "{" + ", ".join(f"{key}: {value}" for key, value in example.items()) + "}"
    return str(example)


def _choices(field: FieldInfo | None) -> list[str]:
    """Values of the enumeration, or the members of one, that a field takes; none for other fields."""
    for annotation in _members(field.annotation if field else None):
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            return [str(member) for member in annotation]
        members = typing.get_args(annotation)
        if members and all(isinstance(member, StrEnum) for member in members):
            return [str(member) for member in members]
    return []


def choices_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Values of the enumeration that the field at a path takes; none for other fields."""
    return _choices(_fields_at(model, location[:-1]).get(location[-1]))


def form_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model whose fields a file may have under a field; None for a field without fields of its own."""
    return None if field is None else _model_in(_annotation_of(field))


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> Mapping[str, FieldInfo]:
    """The fields of the pydantic model at `location`, which may lead through lists and mappings of models."""
    annotation: Any = model
    for part in location:
        inner = _model_in(annotation)
        if inner is not None:
            field = inner.model_fields.get(part)
            annotation = _annotation_of(field) if field else None
        else:
            annotation = next((member for member in map(_item_type, _members(annotation)) if member), None)
    found = _model_in(annotation)
    return found.model_fields if found else {}


def _annotation_of(field: FieldInfo) -> Any:
    """A field's type with its metadata, which pydantic keeps apart where the type stands alone."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model among the types of an annotation, or the form that its metadata give in its place."""
    for member in _members(annotation):
        if typing.get_origin(member) is Annotated:
            inner, *metadata = typing.get_args(member)
            forms = (item.file_form() for item in metadata if isinstance(item, HasFileForm))
            found = next(forms, None) or _model_in(inner)
        else:
            found = member if isinstance(member, type) and issubclass(member, BaseModel) else None
        if found is not None:
            return found
    return None


def _item_type(annotation: Any) -> Any:
    """What a list or a mapping holds."""
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
