"""Find the Chromium of this machine, which opens pages for tests and screenshots."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

VARIABLE = "LIME_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """Return the path of Chromium: `LIME_CHROMIUM` names it, or else it is looked for on `PATH`."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


NONE = f"no Chromium was found: {VARIABLE} names none, and PATH has none of {', '.join(NAMES)}"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start headless Chromium; end the program with a sentence if this machine has none."""
    path = find_chromium()
    if path is None:
        sys.exit(NONE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()
