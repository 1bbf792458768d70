"""Five foreign layouts, made by code with known answers: what files hold, and what `lime init` should find.

Each log has users with a taste: user u prefers items i with i % 6 == u % 6. A seed makes the same files.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST = dt.datetime(2024, 3, 1)
KINDS = 6


@dataclass
class Answers:
    """What is known of a layout because code has made it."""

    rows: int
    user: str
    item: str
    time: str
    ids: dict[str, str]
    format: str = "iso"
    session: str | None = None
    label: str | None = None
    event_type: str | None = None
    unreadable: int = 0
    instants: list[int] = field(default_factory=list)  # microseconds since 1970 of all events, in any order


class Event(NamedTuple):
    """One event of a log."""

    user: int
    item: int
    when: dt.datetime  # without a zone
    session: int


@dataclass(frozen=True)
class Size:
    """How large a log is."""

    users: int = 60
    items: int = 90
    days: int = 40
    seed: int = 3


def make_events(size: Size) -> Iterator[Event]:
    """Yield events in the order of time: a user comes every few days and takes some items."""
    rng = np.random.default_rng(size.seed)
    session = 0
    for day in range(size.days):
        for user in range(size.users):
            if rng.random() > 0.4:
                continue
            session += 1
            second = int(rng.integers(1, 86_000))
            favourites = user % KINDS + KINDS * rng.integers(0, size.items // KINDS, size=3)
            for number, item in enumerate(
                dict.fromkeys([*favourites.tolist(), int(rng.integers(0, size.items))])
            ):
                yield Event(user, int(item), FIRST + dt.timedelta(days=day, seconds=second + number), session)


def micros(when: dt.datetime, zone: str = "UTC") -> int:
    """Return microseconds since 1970 of a local time."""
    return round(when.replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000_000)


def write_orders(root: Path, size: Size = Size()) -> Answers:
    """Write orders in Latin-1 with semicolons, decimal commas, cancellations and postage."""
    path = root / "bestellungen.csv"
    answers = Answers(0, "Kundennummer", "Artikelnummer", "Rechnungsdatum",
                      {"user_id": "long", "item_id": "string"},
                      "dd.MM.yyyy HH:mm", session="Rechnungsnr")  # fmt: skip
    with path.open("w", encoding="latin-1", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(
            [
                "Rechnungsnr",
                "Artikelnummer",
                "Bezeichnung",
                "Menge",
                "Rechnungsdatum",
                "Einzelpreis",
                "Kundennummer",
                "Land",
            ]
        )
        seen = 0
        for event in make_events(size):
            when = event.when.replace(second=0)
            land = "Österreich" if event.user % 3 else "Schweiz"
            lines = [
                (
                    f"A{event.item:04}",
                    f"Müsli; Größe {event.item}",
                    1 + event.item % 4,
                    f"{1 + event.item},95",
                )
            ]
            if event.session != seen:
                seen = event.session
                lines.append(("POST", "Versandkosten", 1, "4,90"))
            if event.item % 37 == 5:
                lines.append((lines[0][0], lines[0][1], -1, lines[0][3]))
            for code, name, count, price in lines:
                user = "" if event.session % 50 == 7 else f"{17850 + event.user}.0"
                writer.writerow(
                    [536000 + event.session, code, name, count, f"{when:%d.%m.%Y %H:%M}", price, user, land]
                )
                answers.rows += 1
                answers.instants.append(micros(when))
    return answers


def write_clicks(root: Path, size: Size = Size()) -> Answers:
    """Write a click log as JSON lines with nested objects, and a label for each impression."""
    answers = Answers(0, "visitor_id", "article_sku", "ts", {"user_id": "string", "item_id": "string"},
                      session="visitor_session", label="clicked")  # fmt: skip
    with (root / "clicks.jsonl").open("w", encoding="utf-8") as file:
        for event in make_events(size):
            offset = dt.timezone(dt.timedelta(hours=2))
            when = event.when.replace(tzinfo=dt.UTC).astimezone(offset)
            row = {
                "ts": when.isoformat(),
                "visitor": {"id": f"v-{event.user:03}", "session": f"s{event.session}"},
                "article": {"sku": f"sku{event.item}", "topic": f"topic-{event.item % KINDS}", "née": True},
                "clicked": int(event.item % KINDS == event.user % KINDS),
            }  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            answers.rows += 1
            answers.instants.append(micros(event.when))
    return answers


def write_millis(root: Path, size: Size = Size()) -> Answers:
    """Write one flat Parquet file with types of events and milliseconds since 1970."""
    answers = Answers(0, "visitorid", "itemid", "timestamp", {"user_id": "long", "item_id": "long"},
                      "epoch_millis", event_type="event", session=None)  # fmt: skip
    events = list(make_events(size))
    kinds = ["addtocart" if (event.user + event.item) % 5 == 0 else "view" for event in events]
    frame = pa.table(
        {
            "timestamp": pa.array([micros(event.when) // 1000 for event in events], pa.int64()),
            "visitorid": pa.array([event.user for event in events], pa.int32()),
            "event": kinds,
            "itemid": pa.array([event.item for event in events], pa.int64()),
        }
    )
    pq.write_table(frame, root / "events.parquet")
    answers.rows, answers.instants = len(events), [micros(event.when) for event in events]
    return answers


def write_ratings(root: Path, size: Size = Size()) -> Answers:
    """Write ratings with `::` between fields and no header, and films with genres next to them."""
    answers = Answers(
        0, "column1", "column2", "column4", {"user_id": "long", "item_id": "long"}, "epoch_seconds"
    )
    events = sorted(make_events(size), key=lambda event: (event.user, event.when))
    with (root / "ratings.dat").open("w", encoding="latin-1") as file:
        for event in events:
            file.write(
                f"{event.user + 1}::{event.item + 1}::{1 + event.item % 5}::"
                f"{micros(event.when) // 1_000_000}\n"
            )
    with (root / "movies.dat").open("w", encoding="latin-1") as file:
        for item in range(size.items):
            genres = "|".join(["Comédie", "Drama", "Action"][: 1 + item % 3])
            file.write(f"{item + 1}::L'été {item} (19{50 + item % 50})::{genres}\n")
    answers.rows, answers.instants = len(events), [micros(event.when) for event in events]
    return answers


def write_days(root: Path, size: Size = Size()) -> Answers:
    """Write a gzip file of CSV for each day into folders of days, and a catalogue next to them."""
    answers = Answers(0, "customer_id", "product_id", "event_time", {"user_id": "string", "item_id": "long"},
                      session="session_id")  # fmt: skip
    days: dict[str, list[Event]] = {}
    for event in make_events(size):
        days.setdefault(str(event.when.date()), []).append(event)
    for day, events in days.items():
        folder = root / "landing" / "events" / f"ds={day}"
        folder.mkdir(parents=True)
        with gzip.open(folder / "part-0.csv.gz", "wt", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="|")
            writer.writerow(["event_time", "customer_id", "product_id", "session_id"])
            for event in events:
                writer.writerow([f"{event.when.isoformat()}Z", f"c{event.user}", event.item, event.session])
                answers.rows += 1
                answers.instants.append(micros(event.when))
    folder = root / "landing" / "items" / f"ds={min(days)}"
    folder.mkdir(parents=True)
    with gzip.open(folder / "items.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="|")
        writer.writerow(["product_id", "brand", "price"])
        for item in range(size.items):
            writer.writerow([item, f"brand {item % KINDS}", f"{item / 7:.2f}"])
    return answers


LAYOUTS: dict[str, tuple[Callable[..., Answers], str]] = {
    "orders": (write_orders, "bestellungen.csv"),
    "clicks": (write_clicks, "clicks.jsonl"),
    "millis": (write_millis, "events.parquet"),
    "ratings": (write_ratings, "."),
    "days": (write_days, "landing"),
}
