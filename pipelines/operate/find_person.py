"""Find the person that an operator's text names, by the id types and the ingest rules of the settings."""

from __future__ import annotations

from lime_model.errors import LimeError
from pipelines.schemas import SQL_TYPES, USER_ID
from pipelines.settings.settings import Settings
from pipelines.udfs.person import Person, read_person
from pipelines.udfs.whole_numbers import Unreadable

EXPECTED = {"bigint": "a whole number, such as 42", "string": "any text but one that means null"}


class NoSuchId(LimeError):
    """The given text is not an id of the type that the settings declare."""


def find_person(settings: Settings, user: str, shown: str = "") -> Person:
    """Return the person whose id is the text `user`, read as ingest would read it.

    Args:
        settings: the settings, which declare the type of ids.
        user: the text.
        shown: how a message names the text (default: the text itself).

    Raises:
        NoSuchId: the text is not an id, or it means null.
    """
    type_ = SQL_TYPES[settings.ids.user_id]
    ingest = settings.ingest
    columns = {"events": ingest.events.user_id, "users": ingest.users.source.get(USER_ID, USER_ID)}
    try:
        person, why = read_person(user, type_, ingest.nulls, columns, ingest.csv.delimiter), "means null"
    except Unreadable:
        person, why = None, f"is not {EXPECTED[type_]}"
    if person is None:
        raise NoSuchId(
            f"--user {shown or repr(user)} {why}; ids.user_id is {settings.ids.user_id}: {EXPECTED[type_]}. "
            "Nothing was changed; give the id as the source has it"
        )
    return person
