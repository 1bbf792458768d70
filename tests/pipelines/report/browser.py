"""Open pages in headless Chromium, and read back what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tools.browser import NONE, find_chromium, open_browser

FAULTS = (Path(__file__).parent / "faults.js").read_text("utf-8")
# Label, value and visible text of each number of a table, by the label of its row and the head of its column.
CELLS = """id => Object.fromEntries([...document.querySelectorAll(`#${id} tbody tr`)].map(row => [
  row.querySelector("th").textContent.trim(),
  [...row.querySelectorAll("data")].map(each => [each.value, each.textContent.trim()]),
]))"""


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start headless Chromium; skip the test if this machine has none."""
    if find_chromium() is None:
        pytest.skip(NONE)
    with open_browser() as browser:
        yield browser


@contextmanager
def open_page(browser: Browser, path: Path, width: int, scheme: str) -> Iterator[Page]:
    """Open a page; afterwards, fail if it said anything on the console or asked for anything but itself."""
    context: Any = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page: Page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    try:
        yield page
        assert said == []
    finally:
        context.close()


def find_faults(page: Page) -> list[str]:
    """Return what is wrong with how the page is shown."""
    found = page.evaluate(FAULTS)
    assert found["texts"] > 5, "the page shows no text, so nothing was checked"
    return found["faults"]


def read_table(page: Page, table: str) -> dict[str, list[float]]:
    """Read the numbers of a table by the header of their row; each must be shown as it is stored."""
    rows = page.evaluate(CELLS, table)
    for label, cells in rows.items():
        for value, text in cells:
            assert shows(text, float(value)), f"{table}, {label}: {value} is shown as {text}"
    return {label: [float(value) for value, _ in cells] for label, cells in rows.items()}


def shows(text: str, value: float) -> bool:
    """Return whether a text shows a number, as exactly as the digits of the text say."""
    if value != value:
        return text == "not a number"
    if found := re.fullmatch(r"(?:(\d+) h )?(\d+) min(?: (\d+) s)?", text):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return abs(3600 * hours + 60 * minutes + seconds - value) <= (60 if hours else 1)
    number, unit = re.fullmatch(r"(-?[\d.,]+(?:e-?\d+)?)( s| %|)", text).groups()  # type: ignore[union-attr]
    mantissa, _, exponent = number.replace(",", "").partition("e")
    step = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(number.replace(",", "")) - value * (100 if unit == " %" else 1)) <= 0.501 * step
