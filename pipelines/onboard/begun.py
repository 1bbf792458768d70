"""What `lime init` has found and written, with the commands that follow, and notes about days and tables."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.onboard.clocks import CLOCKS
from pipelines.onboard.dry_run import DryRun
from pipelines.onboard.entities import Entity
from pipelines.onboard.guesses import Guess, some
from pipelines.onboard.looked import Looked
from pipelines.onboard.oddities import Note, find_ratings, missing_days
from pipelines.onboard.sizes import Amounts
from pipelines.onboard.staging import BadRow

BAD_ROWS = "unreadable-rows.csv"


@dataclass
class Begun:
    """What `lime init` has found and written."""

    config: Path
    guesses: list[Guess]
    asked: int
    rows: int  # that were read
    written: int  # into daily drops; 0 where the drops stay where they are
    unreadable: list[BadRow]
    first: str  # the first day to load
    days: dict[str, int]  # the days of events, with their rows if those were counted
    amounts: Amounts
    notes: list[Note] = field(default_factory=list)
    tries: list[DryRun] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def night(self) -> str:
        """The first night that sees all events."""
        return str(dt.date.fromisoformat(max(self.days)) + dt.timedelta(days=1))

    @property
    def horizon(self) -> int:
        """The days at the end that an evaluation takes for the truth."""
        return min(28, max(1, self.amounts.days // 5))

    @property
    def split(self) -> str:
        """The night of an evaluation: the events from it on are the truth."""
        return str(dt.date.fromisoformat(self.night) - dt.timedelta(days=self.horizon))

    @property
    def commands(self) -> list[str]:
        """The commands that lead to a published night."""
        given = f"--config {shlex.quote(str(self.config))}"
        return [
            f"lime check {given}",
            f"lime ingest {given} --from {self.first} --to {max(self.days)}",
            f"lime train {given} --ds {self.night}",
            f"lime night {given} --ds {self.night}",
        ]

    @property
    def evaluation(self) -> list[str]:
        """The commands that measure a model on the last days."""
        given = f"--config {shlex.quote(str(self.config))} --ds {self.split}"
        events = int(min(20, max(1, self.amounts.events_of_user // 2)))
        return [
            f"lime train {given}",
            f"lime evaluate {given} --horizon-days {self.horizon} --min-events {events}",
        ]


def notes_of_tables(unused: Sequence[Looked]) -> list[Note]:
    """Name the tables that are used for nothing, so that nobody takes them for loaded."""
    return [
        Note(
            "unused",
            f"{table.staged.rows:,} rows are NOT used, those of the table {table.staged.table.name} "
            f"({some([path.name for path in table.staged.table.files])}), which are neither events nor found "
            "to describe items or users; --events, --items or --users uses a table",
        )
        for table in unused
    ]


def notes_of_columns(events: Looked, used: Set[str], entities: Sequence[Entity]) -> list[Note]:
    """Name the columns that nothing reads, so that nobody thinks that the model learns from them.

    Args:
        events: the table of events.
        used: its columns that have a role, or that a filter or a feature reads.
        entities: items and users.
    """
    times = {c.name for c in events.columns if c.name in events.times or c.share("clocks") >= CLOCKS}
    left = {events.staged.table.name: [name for name in events.names if name not in used | times]}
    for entity in entities:
        if entity.table is not None:
            read = {entity.key, *(column.source for column in entity.columns)}
            left[entity.table.staged.table.name] = [name for name in entity.table.names if name not in read]
    notes = [
        Note("unused_columns", f"nothing reads these columns of {table}: {some(names)}")
        for table, names in left.items()
        if names
    ]
    return [*notes, *find_ratings(events, left[events.staged.table.name])]


def notes_of_days(days: Mapping[str, int]) -> list[Note]:
    """Return what is odd about the days of events, each with its number of rows."""
    notes = []
    today = str(dt.datetime.now(dt.UTC).date())
    if future := {day: rows for day, rows in days.items() if day > today}:
        said = (
            f"{sum(future.values()):,} events are in the future, on {len(future):,} days up to {max(future)}"
        )
        notes.append(Note("future", f"{said}; correct their times before you train on them"))
    if missing := missing_days(list(days)):
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        notes.append(
            Note(
                "missing_days",
                f"{len(missing):,} days between the first and the last have no events: {shown}",
            )
        )
    counts = [days[day] for day in sorted(days)]
    usual = sorted(counts[-15:-1])[len(counts[-15:-1]) // 2] if len(counts) > 3 else 0
    if counts[-1] < 0.3 * usual:
        said = f"the last day, {max(days)}, has {counts[-1]:,} events where {usual:,} are usual"
        notes.append(Note("last_day", said))
    return notes


def _repeated(entity: Entity) -> int:
    """Return about how many rows of a table of items or users repeat an id or have none."""
    assert entity.table is not None
    column = entity.table.column(entity.key)
    more = column.rows - column.distinct
    return more if more > 0.03 * column.rows else 0  # the number of distinct values is an estimate


def notes_of_entities(entities: tuple[Entity, Entity], cold: float) -> list[Note]:
    """Return what tables of items and users lack; `cold` is the share of users without events."""
    notes = []
    for entity in entities:
        if entity.table is not None and entity.overlap < 0.9995:
            said = f"{1 - entity.overlap:.1%} of the {entity.source} of events have no features"
            notes.append(Note(f"{entity.source}_without_features", said))
        if entity.table is not None and (more := _repeated(entity)):
            said = f"about {more:,} rows of {entity.source} repeat an id or have none; the last one counts"
            notes.append(Note(f"repeated_{entity.source}", said))
        elif entity.table is None and not entity.features:
            notes.append(
                Note(f"{entity.source}_without_features", f"there are no features of {entity.source}")
            )
    if cold > 0.45:
        notes.append(Note("cold_users", f"{cold:.1%} of the users have no events"))
    return notes
