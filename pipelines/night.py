"""The steps of a night by name, each one pipeline call on (warehouse, run).

Steps that share a Spark application spare a session start (many seconds on a small
machine); apart, each can have its own resources. The result is the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final

from pipelines.audit import audit_recommendations
from pipelines.candidates import build_candidate_bank
from pipelines.catalogue import ingest_entity, newest_day
from pipelines.drops import DropError, drop_days
from pipelines.events import ingest_events
from pipelines.export import export_recommendations
from pipelines.inputs import fix_inputs
from pipelines.leases import Run
from pipelines.link_states import build_link_states
from pipelines.publish import publish_recommendations
from pipelines.runs import Manifest, find_manifests, once, record
from pipelines.scoring import score_candidates
from pipelines.tables import Warehouse
from pipelines.verify import verify_night

Step = Callable[[Warehouse, Run], Manifest]


def ingest_days(warehouse: Warehouse, first: str, last: str) -> Manifest:
    """Load all drops of `[first, last]`: events of every day, items and users where a day has them."""
    span = (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days
    if span < 0:
        raise DropError(f"--from {first} is after --to {last}; swap them")
    days = [str(dt.date.fromisoformat(first) + dt.timedelta(days=i)) for i in range(span + 1)]
    manifest: Manifest = {}
    for entity in ("items", "users"):
        delivered = drop_days(warehouse.spark, warehouse.settings, entity)
        if any(first <= day <= last for day in delivered):
            # Versions fold in day order: with an old day, whatever was folded after it is folded again.
            until = max(last, newest_day(warehouse, entity))
            present = [day for day in delivered if first <= day <= until]
            manifest[entity] = ingest_entity(warehouse, entity, present)
    manifest["events"] = ingest_events(warehouse, days)
    record(warehouse, f"ingest-{first}-{last}", last, "ingest_events", manifest)
    return manifest


def day_before(night: str) -> str:
    """The last day that night `night` sees."""
    return str(dt.date.fromisoformat(night) - dt.timedelta(days=1))


def ingest_night(warehouse: Warehouse, night: str) -> Manifest:
    """Load the day before the night, and days before it that were left out: a log with holes is no night's.

    Raises:
        DropError: as `ingest_events`, of any of these days.
    """
    last, loaded = dt.date.fromisoformat(day_before(night)), set[dt.date]()
    for done in find_manifests(warehouse, "ingest_events"):
        first, end = map(dt.date.fromisoformat, done.manifest["events"]["days"])
        loaded |= {first + dt.timedelta(days=i) for i in range((end - first).days + 1)}
    day = min(loaded, default=last)
    while day < last and day in loaded:
        day += dt.timedelta(days=1)
    return ingest_days(warehouse, str(min(day, last)), str(last))


def _ingest(warehouse: Warehouse, run: Run) -> Manifest:
    model = warehouse.settings.night.model

    def work() -> Manifest:
        loaded = ingest_night(warehouse, run.ds)
        return {**loaded, **fix_inputs(warehouse, run, model)}

    return once(warehouse, run, "ingest_events", work)


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
