"""Loading the drops of a range of days, or of the days that a night needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Final

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.ledger import find_empty_days, loaded_days
from pipelines.ingest.listing import drop_days, list_drops
from pipelines.ingest.load_drops import Load, load_sources
from pipelines.ingest.load_entities import check_entity_drops
from pipelines.ingest.load_events import check_event_drops
from pipelines.store.catalogue import Entity
from pipelines.store.manifests import IngestManifest
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse

# A night looks for files that came late in at most this many of the newest days without rows.
MOST_EMPTY_DAYS: Final = 31
ENTITIES: Final[tuple[Entity, ...]] = ("items", "users")


def day_before(night: str) -> str:
    """The last day whose events a night reads."""
    return str(dt.date.fromisoformat(night) - dt.timedelta(days=1))


def ingest_days(warehouse: Warehouse, first: str, last: str) -> IngestManifest:
    """Load all drops from `first` to `last`: events of every day, items and users where a day has them.

    Args:
        warehouse: that the rows are loaded into.
        first: the first day (YYYY-MM-DD).
        last: the last day.

    Raises:
        DropError: naming every fault of every drop of these days; nothing was committed.
    """
    return _ingest(warehouse, first, last, late=False)


def _ingest(warehouse: Warehouse, first: str, last: str, *, late: bool) -> IngestManifest:
    """Load all drops from `first` to `last`.

    Args:
        warehouse: that the rows are loaded into.
        first: the first day.
        last: the last day.
        late: whether to load also the drops of items and users of earlier days that were never loaded.
    """
    span = (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days
    if span < 0:
        raise DropError(f"--from {first} is after --to {last}; swap them")
    days = [str(dt.date.fromisoformat(first) + dt.timedelta(days=i)) for i in range(span + 1)]

    def check_entity(entity: Entity) -> Load | None:
        delivered = [day for day in drop_days(warehouse.spark, warehouse.settings, entity) if day <= last]
        known = loaded_days(warehouse, entity) if late else set(delivered)
        wanted = [day for day in delivered if day >= first or day not in known]
        return check_entity_drops(warehouse, entity, wanted) if wanted else None

    checks: dict[str, Callable[[], Load | None]] = {
        **{entity: partial(check_entity, entity) for entity in ENTITIES},
        "events": partial(check_event_drops, warehouse, days),
    }
    manifest = IngestManifest.model_validate(load_sources(checks))
    record(warehouse, f"ingest-{first}-{last}", last, manifest)
    return manifest


def ingest_night(warehouse: Warehouse, night: str) -> IngestManifest:
    """Load the day before a night, and earlier days that were left out: a night needs a log without holes.

    Raises:
        DropError: see `ingest_days`.
    """
    last = dt.date.fromisoformat(day_before(night))
    # A drop may also have come after its day was loaded as a day without rows.
    empty = sorted(day for day in find_empty_days(warehouse, "events") if day <= str(last))[-MOST_EMPTY_DAYS:]
    came = list_drops(warehouse.spark, warehouse.settings, "events", empty).days if empty else []
    loaded = {dt.date.fromisoformat(day) for day in loaded_days(warehouse, "events") - set(came)}
    day = min([*loaded, *map(dt.date.fromisoformat, came)], default=last)
    while day < last and day in loaded:
        day += dt.timedelta(days=1)
    return _ingest(warehouse, str(min(day, last)), str(last), late=True)
