"""Loading the drops of a range of days, or of the days that a night needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Final

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.ledger import find_empty_days, loaded_days
from pipelines.ingest.listing import drop_days, list_drops
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.store.catalogue import Entity
from pipelines.store.manifests import IngestManifest, SourceReport
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
        DropError: naming every fault of every drop of these days.
    """
    span = (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days
    if span < 0:
        raise DropError(f"--from {first} is after --to {last}; swap them")
    days = [str(dt.date.fromisoformat(first) + dt.timedelta(days=i)) for i in range(span + 1)]
    reports: dict[str, SourceReport] = {}
    faults: list[DropError] = []

    def load(name: str, work: Callable[[], SourceReport | None]) -> None:
        try:
            if loaded := work():
                reports[name] = loaded
        except DropError as error:
            faults.append(error)

    for entity in ENTITIES:
        load(entity, partial(_load_entity, warehouse, entity, first, last))
    load("events", partial(ingest_events, warehouse, days))
    if faults:
        raise faults[0] if len(faults) == 1 else DropError("\n".join(map(str, faults)))
    manifest = IngestManifest.model_validate(reports)
    record(warehouse, f"ingest-{first}-{last}", last, manifest)
    return manifest


def _load_entity(warehouse: Warehouse, entity: Entity, first: str, last: str) -> SourceReport | None:
    """Load the drops of items or users of these days; None where there are none."""
    delivered = drop_days(warehouse.spark, warehouse.settings, entity)
    present = [day for day in delivered if first <= day <= last]
    return ingest_entity(warehouse, entity, present) if present else None


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
    return ingest_days(warehouse, str(min(day, last)), str(last))
