"""Which software computes: what results depend on besides the files of a question."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from kraken_sim.files.bounded import YAML_FILE, read_bytes
from kraken_sim.files.shipped import data_dir

_LIBRARIES: Final = ("numpy", "simpy")
"""Whose arithmetic and order of events results come from."""


def digest(path: Path) -> str:
    """A digest of a file's bytes.

    Raises:
        InputError: it cannot be read, or is larger than any file that results depend on.
    """
    return hashlib.sha256(read_bytes(path, YAML_FILE)).hexdigest()


@lru_cache(maxsize=1)
def software() -> tuple[tuple[str, str], ...]:
    """Versions of the package and of the libraries under it, and a digest of its source and of the machines that ship.

    A checkout keeps its version while its source changes, so the version alone would not do.
    """
    package = Path(__file__).resolve().parent.parent
    content = hashlib.sha256()
    for root, pattern in ((package, "*.py"), (data_dir("hardware_profiles"), "*.yaml")):
        for path in sorted(root.rglob(pattern)):
            content.update(f"{path.relative_to(root)} {digest(path)}\n".encode())
    libraries = tuple((name, version(name)) for name in _LIBRARIES)
    return (("kraken_sim", version("kraken_sim")), *libraries, ("source", content.hexdigest()))
