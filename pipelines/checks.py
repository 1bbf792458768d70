"""What the settings and the command line alone can tell, before Spark starts.

Each check raises the error that the job would have ended with; `night_checks.py` has those that read tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lime_model.errors import LimeError
from pipelines.settings import Settings, SettingsError

LONG = range(-(2**63), 2**63)


class NoSuchId(LimeError):
    """What was given is no id of the type that the settings declare."""


def check_night(settings: Settings) -> None:
    """Of every job of a night.

    Raises:
        SettingsError: `night.model` is none of the models.
    """
    settings.model(settings.night.model)


def check_models(settings: Settings, names: Sequence[str]) -> None:
    """Of jobs that take `--model`.

    Raises:
        SettingsError: one of the names is none of the models, or there are no models.
    """
    if not settings.models:
        raise SettingsError("the settings have no models; describe one under models")
    for name in names:
        settings.model(name)


def check_user(settings: Settings, user: str) -> None:
    """Of jobs that take `--user`.

    Raises:
        NoSuchId: it is no id of the declared type.
    """
    if settings.ids.user_id == "long":
        if not re.fullmatch(r"[+-]?[0-9]+", user.strip(), re.ASCII) or int(user) not in LONG:
            raise NoSuchId(
                f"--user {user!r} is not a whole number of 64 bits, and ids.user_id is long; nothing was "
                "changed. Give the id as the source has it, such as 42"
            )
    elif not user.strip():
        raise NoSuchId("--user is empty; nothing was changed. Give the id as the source has it")
