"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from validation.public_data import VARIABLE, public_data_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The matrices of tests are small and processes work side by side: threads of libraries would wait for one another.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Processes that tests start read what others have compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says how busy the machine is, and nothing about the answer.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def public_table() -> Callable[[str], Path]:
    """The path of a published table by its file name; the test is skipped where the table is not at hand."""
    folder = public_data_folder()

    def path_of(name: str) -> Path:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"needs the published table {name}: {VARIABLE} names the folder of these tables")
        return path

    return path_of
