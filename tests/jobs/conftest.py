"""Tests of command lines run without the variables that change colours, widths and settings."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that change colours, widths and settings."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "GITHUB_ACTIONS", "LIME_CONFIG"):
        monkeypatch.delenv(name, raising=False)
