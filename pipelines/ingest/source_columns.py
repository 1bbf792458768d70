"""The columns that ingest reads from each source: our columns, their types, and their source columns.

There is no Spark in this module.
"""

from __future__ import annotations

from typing import Literal

from pipelines.schemas import EVENT_TS, EVENT_TYPE, ITEM_ID, LABEL, SESSION_ID, SQL_TYPES, USER_ID
from pipelines.settings.settings import Settings
from pipelines.udfs.values import WantedColumn

COUNT = "_count"  # how many times an event happened
KEY = "_key_"  # followed by a number: a column of `ingest.events.key`


def event_columns(settings: Settings) -> tuple[WantedColumn, ...]:
    """Return the columns of events and their source columns."""
    ids, drop = settings.ids, settings.ingest.events
    return (
        WantedColumn(USER_ID, SQL_TYPES[ids.user_id], drop.user_id, required=True, is_id=True),
        WantedColumn(ITEM_ID, SQL_TYPES[ids.item_id], drop.item_id, required=True, is_id=True),
        WantedColumn(EVENT_TS, "timestamp", drop.event_ts, required=True),
        WantedColumn(EVENT_TYPE, "string", drop.event_type),
        WantedColumn(SESSION_ID, "string", drop.session_id),
        WantedColumn(LABEL, "double", drop.label),
        *(
            WantedColumn(f"{KEY}{i}", "string", name, required=True, is_id=True)
            for i, name in enumerate(drop.key)
        ),
        *([WantedColumn(COUNT, "bigint", drop.count, required=True)] if drop.count else []),
    )


def entity_columns(settings: Settings, name: Literal["items", "users"]) -> tuple[WantedColumn, ...]:
    """Return the key and the features of `items` or `users`, and their source columns."""
    drop = settings.ingest.items if name == "items" else settings.ingest.users
    key = ITEM_ID if name == "items" else USER_ID
    id_type = settings.ids.item_id if name == "items" else settings.ids.user_id
    types = {column: "bigint" if kind == "long" else kind for column, kind in drop.columns.items()}
    features = [WantedColumn(c, kind, drop.source.get(c, c)) for c, kind in types.items() if c != key]
    mine = WantedColumn(key, SQL_TYPES[id_type], drop.source.get(key, key), required=True, is_id=True)
    return (mine, *features)
