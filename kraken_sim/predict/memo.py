"""Values that are kept, so that none is computed twice, and whose number is bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

MOST_PARTS = 10_000
"""Parts of a kind that are kept, then all of them are dropped; a limit of ours, so that memory stays flat."""


@dataclass(slots=True)
class Memo(Generic[T]):
    """Values by key, each built once while it is kept."""

    most: int = MOST_PARTS
    values: dict[Hashable, T] = field(default_factory=dict)

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value of `key`."""
        value = self.values.get(key)
        if value is None:
            if len(self.values) >= self.most:
                self.values.clear()
            value = self.values[key] = build()
        return value
