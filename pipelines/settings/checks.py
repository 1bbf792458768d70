"""What the settings and the command line alone can tell, before Spark starts.

Each check raises the error that the job would have ended with; `night_checks.py` has those that read tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from lime_model.errors import LimeError
from pipelines.schemas import USER_ID
from pipelines.settings.settings import Settings, SettingsError
from pipelines.store.tables import SQL_TYPES
from pipelines.udfs.person import Person, read_person
from pipelines.udfs.values import Unreadable

WANTED = {"bigint": "a whole number, such as 42", "string": "any text but one that means null"}


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


def find_person(settings: Settings, user: str) -> Person:
    """Whom a text names, by the rules of the settings.

    Raises:
        NoSuchId: nobody.
    """
    type_ = SQL_TYPES[settings.ids.user_id]
    ingest = settings.ingest
    columns = {"events": ingest.events.user_id, "users": ingest.users.source.get(USER_ID, USER_ID)}
    try:
        person, why = read_person(user, type_, ingest.nulls, columns, ingest.csv.delimiter), "means null"
    except Unreadable:
        person, why = None, f"is not {WANTED[type_]}"
    if person is None:
        raise NoSuchId(
            f"--user {user!r} {why}; ids.user_id is {settings.ids.user_id}: {WANTED[type_]}. Nothing was "
            "changed; give the id as the source has it"
        )
    return person
