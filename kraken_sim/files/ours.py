"""What may be replaced: a file whose first bytes say that this package wrote it, and none that was read for the answer.

Files of our own begin with `signature()`: the first key of an object in JSON, the generator in the head of a page, the
first comment of YAML. Only these are replaced unasked; a file that was read is never replaced.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.files.bounded import was_read
from kraken_sim.files.whole import is_special

if TYPE_CHECKING:
    from pathlib import Path

GENERATOR: Final = "generator"
"""The key of a JSON object, and the name in a page's head, that says what wrote it."""

_NAME: Final = "kraken-sim "

_BEGINS: Final = re.compile(
    rb"""[\s\[{]*"generator": "kraken-sim |<!doctype html>[^>]*><head><meta name='generator' content='kraken-sim """
    rb"""|# Written by kraken-sim """
)

_LOOKED_AT: Final = 200
"""Bytes of a file that say who wrote it; a choice of ours."""


def signature() -> str:
    """What a file says that wrote it."""
    return _NAME + version("kraken_sim")


def signed_json(data: Any) -> Any:
    """The same with our name first: in an object, or in every object of a list."""
    if isinstance(data, dict):
        return {GENERATOR: signature(), **data}
    return [signed_json(item) for item in data] if isinstance(data, list) else data


def signed_page(text: str) -> str:
    """The same with our name in the head."""
    return text.replace("<head>", f"<head><meta name='{GENERATOR}' content='{signature()}'>", 1)


def signed_yaml(text: str) -> str:
    """The same with our name in its first line."""
    rest = text.partition("\n")[2] if _BEGINS.match(text.encode()) else text
    return f"# Written by {signature()}\n{rest}"


def check_replaceable(path: Path, option: str, *, force: bool = False, ours: bool | None = None) -> None:
    """Nothing is at a path that somebody would miss; what is no regular file is left to who writes.

    Args:
        path: where a file is to be written.
        option: what errors call it.
        force: replace a file of others too.
        ours: whether the file that is there is one of ours; default: what its first bytes say.

    Raises:
        InputError: the file was read for this answer, or is none of ours and `force` is not given.
    """
    try:
        if is_special(path) or not path.is_file():
            return
        if was_read(path):
            raise InputError.single(option, "is a file that was read for this answer", str(path), "another name")
        if not force and not (_is_ours(path) if ours is None else ours):
            message = "is a file that kraken-sim did not write; --force replaces it"
            raise InputError.single(option, message, str(path), "another name")
    except (OSError, ValueError):
        return


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(_LOOKED_AT)
    return not begin or _BEGINS.match(begin) is not None
