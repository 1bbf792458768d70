"""Checks that need only the settings and the command line, before Spark starts.

Each check raises the error that the job would have ended with; `night_checks.py` has those that read tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.settings.base import SettingsError
from pipelines.settings.settings import Settings


def check_night(settings: Settings) -> None:
    """Check what every job of a night needs.

    Raises:
        SettingsError: `night.model` is none of the models.
    """
    settings.model(settings.night.model)


def check_models(settings: Settings, names: Sequence[str]) -> None:
    """Check the names that a job got by `--model`.

    Raises:
        SettingsError: one of the names is none of the models, or there are no models.
    """
    if not settings.models:
        raise SettingsError("the settings have no models; describe one under models")
    for name in names:
        settings.model(name)
