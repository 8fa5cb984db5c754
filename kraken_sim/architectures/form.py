"""The part `architecture` of a scenario: what any registered architecture may say there, read strictly.

A file is held against the form of all architectures together, so that a misspelt field, a field of another kind and
an unknown kind are each told apart; what was read is the fields of the one architecture it names.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import BaseModel, Field, StrictStr, create_model, model_validator
from pydantic_core import core_schema

from kraken_sim.architectures.architecture import ArchitectureFields
from kraken_sim.architectures.registry import architecture, architectures, kinds
from kraken_sim.files.model import FileModel
from kraken_sim.files.problems import fields_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo
    from pydantic.json_schema import JsonSchemaValue

KindAndFields = tuple[str, type[ArchitectureFields]]


class _Form(FileModel):
    """Every field that a file may have there; which of them go together is checked last."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        kind = str(getattr(self, "kind"))  # noqa: B009 - a field of the derived form
        owned = architecture(kind).fields.model_fields
        foreign: dict[str, list[str]] = {}
        for name in self.given():
            if name not in owned:
                owners = [other.kind for other in architectures() if name in other.fields.model_fields]
                foreign.setdefault(_listed(owners), []).append(name)
        for owners_listed, names in foreign.items():
            raise fields_error(f"is for kind {owners_listed} only, not for {kind}", *names)
        return self

    def given(self) -> dict[str, Any]:
        """The fields that have a value, the kind among them."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: str(value) if name == "kind" else value for name, value in found.items() if value is not None}


def _listed(names: tuple[str, ...] | list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def architecture_form() -> type[BaseModel]:
    """The form of the architectures registered now: the kind, and the fields of each of them."""
    return _form_of(tuple((record.kind, record.fields) for record in architectures()))


@lru_cache(maxsize=8)
def _form_of(registered: tuple[KindAndFields, ...]) -> type[_Form]:
    names = [kind for kind, _ in registered]
    kind_type = cast("type[StrEnum]", StrEnum("ArchitectureKind", {name.upper(): name for name in names}))
    kind_type.__doc__ = "How the layers of a model are wired when they run on several devices."
    found: dict[str, Any] = {}
    for _, fields in registered:
        for name, info in fields.model_fields.items():
            about: dict[str, Any] = {"description": info.description, "examples": info.examples}
            if name == "kind":
                found.setdefault(name, (kind_type, Field(**about)))
                continue
            one: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            before = found[name][0] if name in found else None
            found[name] = (before | one | None, Field(default=None, **about))
    form = create_model("ArchitectureSpec", __base__=_Form, **found)
    form.__doc__ = "How the layers are wired."
    return form


def read_architecture(data: object) -> ArchitectureFields:
    """The fields of the architecture that the data names.

    Raises:
        ValidationError: the kind is unknown, or any field is unknown, wrong or another kind's.
    """
    if isinstance(data, ArchitectureFields):
        return data
    form = cast("_Form", architecture_form().model_validate(data))
    given = form.given()
    fields: type[ArchitectureFields] = architecture(given["kind"]).fields
    return fields.model_validate(given)


class _ByKind:
    """Reads, writes and describes `ArchitectureFields` by the architectures registered at that moment."""

    def file_form(self) -> type[BaseModel]:
        """The fields that a file may have, for errors and sweeps."""
        return architecture_form()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            read_architecture,
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(architecture_form().__pydantic_core_schema__)


def _dumped(fields: ArchitectureFields, info: SerializationInfo) -> Mapping[str, Any]:
    return fields.model_dump(
        mode=info.mode,
        exclude_none=info.exclude_none,
        exclude_unset=info.exclude_unset,
        exclude_defaults=info.exclude_defaults,
    )


class _AnyKind:
    """Lists the kinds registered at that moment in a JSON schema; whoever reads one checks it."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "enum": list(kinds())}


KindName = Annotated[StrictStr, _AnyKind()]
"""A field of a request that names an architecture."""

ArchitectureSpec = Annotated[ArchitectureFields, _ByKind()]
"""The field of a scenario or a request that says the architecture."""
