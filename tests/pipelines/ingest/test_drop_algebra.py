"""The tables depend only on the delivered drops, not on their order: they are compared with a model."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipelines.ingest.load_days import ingest_days
from pipelines.settings.settings import load_settings
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_log
from pipelines.store.tables import Warehouse
from synthetic import shop

pytestmark = pytest.mark.operate
DAYS = ["2024-03-02", "2024-03-03", "2024-03-05", "2024-03-06"]
LATE = 2


class Event(NamedTuple):
    """A row of a drop; the event happened `ago` days before its drop."""

    user: int
    item: int
    ago: int
    label: float | None


class Load(NamedTuple):
    """Drops that are written or removed, and the days that are loaded afterwards."""

    events: dict[str, list[Event] | None]
    items: dict[str, dict[int, str] | None]
    emptied: list[str]
    first: str
    last: str


EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(0, LATE + 1),
        st.sampled_from([None, 0.0, 1.0]),
    ),
    max_size=5,
)
DAY = st.sampled_from(DAYS)
LOADS = st.builds(
    lambda events, items, emptied, days: Load(events, items, emptied, min(days), max(days)),
    st.dictionaries(DAY, EVENTS | st.none(), max_size=3),
    st.dictionaries(
        DAY, st.dictionaries(st.integers(1, 3), st.sampled_from("ab"), max_size=3) | st.none(), max_size=3
    ),
    st.lists(DAY, max_size=1),
    st.tuples(DAY, DAY),
)


class Model:
    """The drops as they were last loaded, and what the tables must hold."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.items: dict[str, dict[int, str]] = {}

    def log(self) -> Counter[tuple[int, int, str, float | None]]:
        """Return every event once, with the label of the newest drop that has it."""
        found: dict[tuple[int, int, str], float | None] = {}
        for day in sorted(self.events):
            said: dict[tuple[int, int, str], float | None] = {}
            for event in self.events[day]:
                if event.ago <= LATE:
                    key = (event.user, event.item, when(day, event.ago))
                    labels = [label for label in (said.get(key), event.label) if label is not None]
                    said[key] = max(labels, default=None)
            found |= said
        return Counter((*key, label) for key, label in found.items())

    def bad(self) -> Counter[tuple[str, str]]:
        """Return the day and the reason of each row in quarantine."""
        rows: list[tuple[str, str]] = []
        for day, events in self.events.items():
            labels: dict[tuple[int, int, int], list[float]] = {}
            for event in events:
                if event.ago > LATE:
                    rows.append((day, "too_late"))
                elif event.label is not None:
                    labels.setdefault(event[:3], []).append(event.label)
            for said in labels.values():
                rows += [(day, "duplicate_key")] * sum(label < max(said) for label in said)
        return Counter(rows)

    def catalogue(self, night: str, *, remove: bool) -> dict[int, str]:
        """Return the items that a night reads."""
        found: dict[int, str] = {}
        for day in sorted(self.items):
            if day < night:
                found = ({} if remove else found) | self.items[day]
        return found


def when(day: str, ago: int) -> str:
    return str(dt.date.fromisoformat(day) - dt.timedelta(days=ago))


def write(root: Path, load: Load) -> None:
    for day, events in load.events.items():
        folder = root / "events" / f"ds={day}"
        shutil.rmtree(folder, ignore_errors=True)
        if events is not None:
            rows = [(e.user, e.item, pd.Timestamp(when(day, e.ago)), "s", e.label) for e in events]
            names = ["user_id", "item_id", "event_ts", "session_id", "label"]
            frame = pd.DataFrame(rows, columns=names).astype(
                {"user_id": "int64", "item_id": "int64", "event_ts": "datetime64[us]", "label": "float64"}
            )
            folder.mkdir(parents=True)
            half = len(frame) // 2  # in two files
            frame[:half].to_parquet(folder / "b.parquet")
            frame[half:].to_parquet(folder / "a.parquet")
    for day, items in load.items.items():
        folder = root / "items" / f"ds={day}"
        shutil.rmtree(folder, ignore_errors=True)
        if items is not None:
            folder.mkdir(parents=True)
            frame = pd.DataFrame({"item_id": list(items), "kind": list(items.values())})
            frame.astype({"item_id": "int64", "kind": "object"}).to_parquet(folder / "x.parquet")
    for day in load.emptied:  # a landing zone is emptied like this
        for source in ("events", "items"):
            for path in (root / source / f"ds={day}").glob("*.parquet"):
                path.unlink()


def delivered(root: Path, source: str, days: Iterable[str]) -> list[str]:
    return [day for day in days if any((root / source / f"ds={day}").glob("*.parquet"))]


@settings(derandomize=True, max_examples=2, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(LOADS, min_size=4, max_size=5), st.booleans())
def test_any_order_of_loads_gives_the_tables_of_a_single_load(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, loads: list[Load], remove: bool
) -> None:
    root = tmp_path_factory.mktemp("algebra")
    raw = shop.settings(root)
    items = {"columns": {"kind": "string"}, "absent": "remove" if remove else "keep"}
    raw["ingest"] |= {"max_rejected_share": 1.0, "late_days": LATE, "missing_drop": "empty", "items": items}
    raw["models"] = []
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    warehouse, model = Warehouse(spark, load_settings(path)), Model()
    on_disk = Model()
    for load in loads:
        write(root / "raw", load)
        on_disk.events |= {day: rows for day, rows in load.events.items() if rows is not None}
        on_disk.items |= {day: rows for day, rows in load.items.items() if rows is not None}
        days = shop.days_between(load.first, load.last)
        report = ingest_days(warehouse, load.first, load.last).events.rows
        for day in delivered(root / "raw", "events", days):
            model.events[day] = on_disk.events[day]
        for day in delivered(root / "raw", "items", days):
            model.items[day] = on_disk.items[day]
        delivered_rows = sum(len(model.events[day]) for day in delivered(root / "raw", "events", days))
        assert report.delivered == delivered_rows
        assert report.delivered == sum(
            count for name, count in report.model_dump().items() if name != "delivered"
        )
        check(warehouse, model, remove=remove)


def check(warehouse: Warehouse, model: Model, *, remove: bool) -> None:
    rows: list[Any] = read_log(warehouse).selectExpr("user_id", "item_id", "string(ds)", "label").collect()
    assert Counter(map(tuple, rows)) == model.log()
    bad = warehouse.read("events_quarantine").selectExpr("string(drop_ds)", "reason").collect()
    assert Counter(map(tuple, bad)) == model.bad()
    for night in ("2024-03-03", "2024-03-05", "2024-03-06", "2024-03-07"):
        found = {row["item_id"]: row["kind"] for row in read_entity(warehouse, "items", night).collect()}
        assert found == model.catalogue(night, remove=remove)
