"""The architectures by name. A new one is a module beside this one and a line at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.kraken import KRAKEN
from kraken_sim.architectures.ladder import LADDER
from kraken_sim.architectures.parallel import PARALLEL
from kraken_sim.architectures.standard import STANDARD

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


def overlapping() -> tuple[str, ...]:
    """The architectures that run a collective beside compute."""
    return tuple(record.kind for record in _REGISTERED.values() if record.overlaps)


BASELINE: Final = STANDARD.kind
"""What a scenario runs that names no architecture, and what others are compared with."""

register(STANDARD)
register(PARALLEL)
register(KRAKEN)
register(LADDER)

_SHIPPED: Final = frozenset(_REGISTERED)


def added() -> tuple[Architecture[Any, Any], ...]:
    """The architectures that were registered since this package was imported; another process does not know them."""
    return tuple(record for record in _REGISTERED.values() if record.kind not in _SHIPPED)
