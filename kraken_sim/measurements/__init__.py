"""Files of measurements: what a record says, and how a file is read and checked.

`host_of` is loaded on first use: few questions name a host, and the records of measurements take long to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.measurements.host import host_of as host_of

__all__ = ["host_of"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.host"), name)
