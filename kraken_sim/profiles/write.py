"""Profile files as text: blocks of constants as YAML that people read, put into the text of another profile."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.units import Dimension, dimension_of_field, format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kraken_sim.hardware.device import Device
    from kraken_sim.profiles.profile import Provenance

MIB: Final = 1 << 20
"""Bytes of a MiB; a definition."""

WIDTH: Final = 120
"""Columns of a line of a written file; a choice of ours, that of the shipped ones."""

_TOP_LEVEL: Final = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP: Final = "  "


@dataclasses.dataclass(frozen=True, slots=True)
class BlockText:
    """A block of a profile: constants, where they are from, and where single ones differ from that.

    `overrides` are keyed by field or, for a part of a mapping, by the dotted path below the block:
    `base_s.network`, `misaligned_efficiency.8`.
    """

    constants: Any
    provenance: Provenance
    overrides: Mapping[str, Provenance] = dataclasses.field(default_factory=dict)

    def where(self, path: str) -> Provenance:
        """Where the number at a dotted path below the block is from."""
        while path:
            if path in self.overrides:
                return self.overrides[path]
            path = path.rpartition(".")[0]
        return self.provenance

    def where_all(self) -> dict[str, Provenance]:
        """Where every number is from, by its dotted path below the block."""
        return {path: self.where(path) for path, _ in numbers_of(self.constants)}


def block_yaml(name: str, block: BlockText) -> str:
    """A whole block as lines of a profile file; numbers to four significant digits, with units."""
    where = block.provenance
    lines = [f"{name}:", f"{_STEP}kind: {where.kind}", f"{_STEP}source: {quoted(where.source)}"]
    if where.residual is not None:
        lines.append(f"{_STEP}residual: {where.residual:.4g}")
    lines.append(f"{_STEP}values:")
    for field in dataclasses.fields(block.constants):
        value = getattr(block.constants, field.name)
        lines += _sourced_entry(block, field.name, value, dimension_of_field(field.name), _STEP * 2)
    return "\n".join(lines) + "\n"


def _sourced_entry(block: BlockText, path: str, value: Any, dimension: Dimension, indent: str) -> list[str]:
    """A field, or what is at a path below one, as lines; what is from elsewhere than the block says so."""
    key = path.rpartition(".")[2]
    origins = {block.where(inner) for inner, _ in numbers_of(value, path)}
    if not origins - {block.provenance}:
        return _entry(key, value, dimension, indent)
    if len(origins) == 1:
        return [f"{indent}{_key(key)}: {_sourced(_inline(value, dimension), origins.pop())}"]
    lines = [f"{indent}{_key(key)}:"]
    for name, inner in value.items():
        lines += _sourced_entry(block, f"{path}.{name}", inner, _dimension(dimension, str(name)), indent + _STEP)
    return lines


def numbers_of(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Dotted path and value of every number below a dataclass or a mapping, or of the number at `path` itself."""
    if dataclasses.is_dataclass(value):
        parts: Iterable[tuple[Any, Any]] = (
            (item.name, getattr(value, item.name)) for item in dataclasses.fields(value)
        )
    elif isinstance(value, Mapping):
        parts = value.items()
    else:
        yield path, value
        return
    for name, inner in parts:
        yield from numbers_of(inner, f"{path}.{name}" if path else str(name))


def _inline(value: Any, dimension: Dimension) -> str:
    if not isinstance(value, Mapping):
        return _number(value, dimension)
    items = (f"{_key(str(key))}: {_inline(inner, _dimension(dimension, str(key)))}" for key, inner in value.items())
    return f"{{{', '.join(items)}}}"


def device_yaml(device: Device, provenance: Mapping[str, Provenance]) -> str:
    """The device as lines of a profile file, every number with all its digits and its own source."""
    lines = ["device:"]
    for field in dataclasses.fields(device):
        value, path = getattr(device, field.name), f"device.{field.name}"
        if isinstance(value, str):
            lines.append(f"{_STEP}{field.name}: {value}")
        elif isinstance(value, Mapping):
            lines.append(f"{_STEP}{field.name}:")
            inner = ((key, number, provenance[f"{path}.{key}"]) for key, number in value.items())
            lines += [f"{_STEP * 2}{key}: {_sourced(_exact(number, field.name), own)}" for key, number, own in inner]
        elif path in provenance or value != field.default:
            lines.append(f"{_STEP}{field.name}: {_sourced(_exact(value, field.name), provenance[path])}")
    return "\n".join(lines) + "\n"


def _sourced(value: str, where: Provenance) -> str:
    residual = "" if where.residual is None else f", residual: {where.residual:.4g}"
    return f"{{value: {value}, kind: {where.kind}, source: {quoted(where.source)}{residual}}}"


def _entry(key: str, value: Any, dimension: Dimension, indent: str) -> list[str]:
    """One field, or one key of a mapping, as lines."""
    start = f"{indent}{_key(key)}:"
    if not isinstance(value, Mapping):
        return [f"{start} {_number(value, dimension)}"]
    if not value:
        return [f"{start} {{}}"]
    if not any(isinstance(inner, Mapping) for inner in value.values()):
        return _flow(start, value, dimension, indent)
    lines = [start]
    for inner_key, inner in value.items():
        lines += _entry(str(inner_key), inner, _dimension(dimension, str(inner_key)), indent + _STEP)
    return lines


def _flow(start: str, values: Mapping[Any, Any], dimension: Dimension, indent: str) -> list[str]:
    """A mapping of numbers in braces, on one line if it fits."""
    items = [f"{_key(str(key))}: {_number(v, _dimension(dimension, str(key)))}" for key, v in values.items()]
    whole = f"{start} {{{', '.join(items)}}}"
    if len(whole) <= WIDTH:
        return [whole]
    lines, line = [f"{start} {{"], indent + _STEP
    for item in items:
        if len(line) + len(item) + 1 > WIDTH:
            lines.append(line.rstrip())
            line = indent + _STEP
        line += f"{item}, "
    return [*lines, line.rstrip(", "), f"{indent}}}"]


def _dimension(outer: Dimension, key: str) -> Dimension:
    return outer if outer is not Dimension.DIMENSIONLESS else dimension_of_field(key)


def _exact(value: float, field: str) -> str:
    dimension = dimension_of_field(field)
    return f"{value:.12g}" if dimension is Dimension.DIMENSIONLESS else format_quantity(value, dimension, digits=12)


def _number(value: Any, dimension: Dimension) -> str:
    if dimension is Dimension.BYTES and value > 0 and value % MIB == 0:
        return f"{int(value // MIB)} MiB"  # a size that engines set as a power of two, which four digits would change
    if dimension is not Dimension.DIMENSIONLESS:
        return format_quantity(value, dimension)
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else quoted(key)


def quoted(text: str) -> str:
    """Text in double quotes, as YAML and JSON both have it."""
    return json.dumps(text, ensure_ascii=False)


def with_sections(text: str, sections: Mapping[str, str | None]) -> str:
    """A profile's text with some of its top-level keys replaced (or dropped, for None), the rest as it stands.

    A key that the text does not have goes behind the one that precedes it in `sections`.
    """
    found = _split(text)
    before = ""
    for name, body in sections.items():
        known = [key for key, _ in found]
        if name in known:
            found = [(key, body if key == name else old) for key, old in found]
        elif body is not None:
            place = known.index(before) + 1 if before in known else len(found)
            found.insert(place, (name, body))
        before = name
    return _joined(body for _, body in found if body is not None)


def section(text: str, name: str) -> str | None:
    """The lines of one top-level key."""
    return next((body for key, body in _split(text) if key == name), None)


def in_sections(text: str, data: object) -> str:
    """The text of a file with every top-level key on lines of its own, as `section` and `with_sections` need it.

    One that is written otherwise (one mapping in braces, quoted keys, aliases from one key to another) is written
    anew, without its comments.

    Args:
        text: strict YAML.
        data: what it says.
    """
    if not isinstance(data, dict):
        return text
    found = {key: body for key, body in _split(text) if key}
    if list(found) == list(data) and all(_says(body or "", {key: data[key]}) for key, body in found.items()):
        return text
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in data.items())


def _says(body: str, data: object) -> bool:
    try:
        return parse_yaml(body).data == data
    except InputError:
        return False


def _split(text: str) -> list[tuple[str, str | None]]:
    """The parts of a file by top-level key; what precedes the first key has the key ''."""
    starts = [(match.start(), match[1]) for match in _TOP_LEVEL.finditer(text)]
    first = starts[0][0] if starts else len(text)
    ends = [start for start, _ in starts[1:]] + [len(text)] if starts else []
    parts: list[tuple[str, str | None]] = [("", text[:first])] if text[:first].strip() else []
    return parts + [(name, text[start:end]) for (start, name), end in zip(starts, ends, strict=True)]


def _joined(parts: Iterable[str]) -> str:
    """Parts of several lines are set apart by an empty line."""
    result, last_was_long = "", False
    for part in parts:
        body = part.strip("\n") + "\n"
        is_long = body.count("\n") > 1
        result += ("\n" if result and (is_long or last_was_long) else "") + body
        last_was_long = is_long
    return result
