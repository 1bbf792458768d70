"""The steps of a night by name, each one pipeline call on (warehouse, run).

Steps that share a Spark application spare a session start (many seconds on a small
machine); apart, each can have its own resources. The result is the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Final

from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.export.export_lists import export_recommendations
from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.ledger import find_empty_days, loaded_days
from pipelines.ingest.listing import drop_days, list_drops
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.models.pinned_inputs import pin_inputs
from pipelines.publish.audits import audit_recommendations
from pipelines.publish.publish import publish_recommendations
from pipelines.publish.verify_night import verify_night
from pipelines.score.stage import score_candidates
from pipelines.store.catalogue import Entity
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, record, run_once
from pipelines.store.tables import Warehouse

Step = Callable[[Warehouse, Run], Manifest]
MOST_EMPTY_DAYS: Final = 31  # days without rows, the newest, where a night looks for files that came late
ENTITIES: Final[tuple[Entity, ...]] = ("items", "users")


def ingest_days(warehouse: Warehouse, first: str, last: str) -> Manifest:
    """Load all drops of `[first, last]`: events of every day, items and users where a day has them."""
    span = (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days
    if span < 0:
        raise DropError(f"--from {first} is after --to {last}; swap them")
    days = [str(dt.date.fromisoformat(first) + dt.timedelta(days=i)) for i in range(span + 1)]
    manifest: Manifest = {}
    faults: list[DropError] = []

    def load(name: str, work: Callable[[], Manifest | None]) -> None:
        try:
            if loaded := work():
                manifest[name] = loaded
        except DropError as error:
            faults.append(error)

    for entity in ENTITIES:
        load(entity, partial(_load_entity, warehouse, entity, first, last))
    load("events", partial(ingest_events, warehouse, days))
    if faults:
        raise faults[0] if len(faults) == 1 else DropError("\n".join(map(str, faults)))
    record(warehouse, f"ingest-{first}-{last}", last, "ingest_events", manifest)
    return manifest


def _load_entity(warehouse: Warehouse, entity: Entity, first: str, last: str) -> Manifest | None:
    """Load the drops of items or users of these days; None where there are none."""
    delivered = drop_days(warehouse.spark, warehouse.settings, entity)
    present = [day for day in delivered if first <= day <= last]
    return ingest_entity(warehouse, entity, present) if present else None


def day_before(night: str) -> str:
    """The last day that night `night` sees."""
    return str(dt.date.fromisoformat(night) - dt.timedelta(days=1))


def ingest_night(warehouse: Warehouse, night: str) -> Manifest:
    """Load the day before the night, and days before it that were left out: a log with holes is no night's.

    Raises:
        DropError: as `ingest_events`, of any of these days.
    """
    last = dt.date.fromisoformat(day_before(night))
    # Also a drop that came after its day was loaded as a day without rows.
    empty = sorted(day for day in find_empty_days(warehouse, "events") if day <= str(last))[-MOST_EMPTY_DAYS:]
    came = list_drops(warehouse.spark, warehouse.settings, "events", empty).days if empty else []
    loaded = {dt.date.fromisoformat(day) for day in loaded_days(warehouse, "events") - set(came)}
    day = min([*loaded, *map(dt.date.fromisoformat, came)], default=last)
    while day < last and day in loaded:
        day += dt.timedelta(days=1)
    return ingest_days(warehouse, str(min(day, last)), str(last))


def _ingest(warehouse: Warehouse, run: Run) -> Manifest:
    model = warehouse.settings.night.model

    def work() -> Manifest:
        loaded = ingest_night(warehouse, run.ds)
        return {**loaded, **pin_inputs(warehouse, run, model)}

    return run_once(warehouse, run, "ingest_events", work)


def _bank(warehouse: Warehouse, run: Run) -> Manifest:
    night = warehouse.settings.night
    return build_candidate_bank(warehouse, run, night.model, [night.policy])


def _states(warehouse: Warehouse, run: Run) -> Manifest:
    return build_link_states(warehouse, run, warehouse.settings.night.model)


def _score(warehouse: Warehouse, run: Run) -> Manifest:
    return score_candidates(warehouse, run, [warehouse.settings.night.policy])


def _export(warehouse: Warehouse, run: Run) -> Manifest:
    return export_recommendations(warehouse, run.ds, newer="keep")


STEPS: Final[dict[str, Step]] = {
    "ingest_events": _ingest,
    "build_candidate_bank": _bank,
    "build_link_states": _states,
    "score_candidates": _score,
    "verify_night": verify_night,
    "audit_recommendations": audit_recommendations,
    "publish_recommendations": publish_recommendations,
    "export_recommendations": _export,
}
