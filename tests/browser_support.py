"""A Chromium for tests and pictures: the machine's own, or playwright's."""

from __future__ import annotations

import os
import shutil
from typing import Any, Final

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def launched(playwright: Any) -> Any:
    """The browser, `KRAKEN_SIM_BROWSER`'s if that is set; None where there is none."""
    found = [os.environ.get("KRAKEN_SIM_BROWSER"), *map(shutil.which, BROWSERS)]
    path = next((path for path in found if path), None)
    if path is None and not os.path.exists(playwright.chromium.executable_path):
        return None
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
