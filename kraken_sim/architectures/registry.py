"""The architectures by name. A new one is a module beside this one and a line at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.caat_net import CAAT_NET
from kraken_sim.architectures.desync import DESYNC
from kraken_sim.architectures.from_file import FROM_FILE, SUB_LAYER_FILE
from kraken_sim.architectures.kraken import KRAKEN
from kraken_sim.architectures.ladder import LADDER
from kraken_sim.architectures.parallel import PARALLEL
from kraken_sim.architectures.parallel_track import PARALLEL_TRACK
from kraken_sim.architectures.sequence_parallel import SEQUENCE_PARALLEL
from kraken_sim.architectures.standard import STANDARD
from kraken_sim.architectures.sync_point_drop import SYNC_POINT_DROP
from kraken_sim.architectures.two_parts import DOMINO, TOKEN_WEAVE
from kraken_sim.errors import InputError, Problem, closest

if TYPE_CHECKING:
    from kraken_sim.architectures.architecture import Architecture

_REGISTERED: Final[dict[str, Architecture[Any, Any]]] = {}


def register(architecture: Architecture[Any, Any]) -> None:
    """Makes an architecture known under its kind.

    Raises:
        ValueError: the name is taken.
    """
    if architecture.kind in _REGISTERED:
        message = f"an architecture {architecture.kind!r} is already registered"
        raise ValueError(message)
    _REGISTERED[architecture.kind] = architecture


def unregister(kind: str) -> None:
    """Forgets an architecture."""
    del _REGISTERED[kind]


def architecture(kind: str) -> Architecture[Any, Any]:
    """The architecture of that kind.

    Raises:
        ValueError: there is none (scenarios are checked before).
    """
    if kind not in _REGISTERED:
        message = f"no architecture {kind!r}"
        raise ValueError(message)
    return _REGISTERED[kind]


def architectures() -> tuple[Architecture[Any, Any], ...]:
    """Every architecture, in the order in which answers list them."""
    return tuple(_REGISTERED.values())


def kinds() -> tuple[str, ...]:
    """The names of all architectures, in that order."""
    return tuple(_REGISTERED)


def kinds_named(names: Sequence[str], path: str) -> tuple[str, ...]:
    """The names, each once, if they are all known; errors call their field `path`.

    Raises:
        InputError: every name that is not known.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InputError.single(path, "must be a list of architectures", names, '["standard", "ladder"]')
    known = kinds()
    message = f"must be one of {', '.join(known)}"
    wrong = [name for name in names if name not in known]
    if wrong:
        guesses = [closest(name, known) if isinstance(name, str) else None for name in wrong]
        pairs = zip(wrong, guesses, strict=True)
        raise InputError(Problem(path, message, name, known[0], guess) for name, guess in pairs)
    return tuple(dict.fromkeys(names))


def complete_kinds(own: str) -> tuple[str, ...]:
    """All that need no fields of their own to say what a layer is, and the scenario's `own`."""
    return tuple(record.kind for record in _REGISTERED.values() if record.is_complete or record.kind == own)


def searched() -> tuple[str, ...]:
    """Those that searches try unless they are asked for others."""
    return tuple(record.kind for record in _REGISTERED.values() if record.searched)


def overlapping() -> tuple[str, ...]:
    """The architectures that run a collective beside compute."""
    return tuple(record.kind for record in _REGISTERED.values() if record.overlaps)


BASELINE: Final = STANDARD.kind
"""What a scenario runs that names no architecture, and what others are compared with."""

for _record in (
    STANDARD,
    PARALLEL,
    KRAKEN,
    LADDER,
    DESYNC,
    PARALLEL_TRACK,
    SYNC_POINT_DROP,
    CAAT_NET,
    SEQUENCE_PARALLEL,
    DOMINO,
    TOKEN_WEAVE,
    FROM_FILE,
    SUB_LAYER_FILE,
):
    register(_record)

_SHIPPED: Final = frozenset(_REGISTERED)


def added() -> tuple[Architecture[Any, Any], ...]:
    """The architectures that were registered since this package was imported; another process does not know them."""
    return tuple(record for record in _REGISTERED.values() if record.kind not in _SHIPPED)
