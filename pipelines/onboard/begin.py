"""Begin with foreign data: look, guess, ask, write settings and drops, and try one day.

This is what `lime init` does; it prints nothing and asks through the function that it is given.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from pipelines.onboard.begun import (
    BAD_ROWS,
    Begun,
    notes_of_columns,
    notes_of_days,
    notes_of_entities,
    notes_of_tables,
)
from pipelines.onboard.clocks import join_clock
from pipelines.onboard.conditions import spark_name
from pipelines.onboard.dialect import DataError, Dialect
from pipelines.onboard.dry_run import try_drops
from pipelines.onboard.entities import Entity, can_stay, derive_features, find_entity, taken_columns
from pipelines.onboard.facts import describe
from pipelines.onboard.guesses import Ask, Guesses
from pipelines.onboard.looked import Looked, Roles, find_events, find_times
from pipelines.onboard.oddities import Note, find_oddities, find_short_histories, missing_days
from pipelines.onboard.roles import guess_roles
from pipelines.onboard.settings_text import Plan, write_settings
from pipelines.onboard.settle import (
    choose_id_type,
    keep_events,
    list_event_types,
    settle_eligible,
    settle_filter,
    settle_folder_zone,
    settle_format,
    settle_zone,
    try_filter,
)
from pipelines.onboard.sizes import Amounts, choose_night, choose_training, cold_share, measure
from pipelines.onboard.staging import BadRow, Say, stage
from pipelines.onboard.tables import Found, find_tables, newest_files
from pipelines.onboard.write_drops import (
    DAY_COLUMN,
    add_days,
    count_days,
    time_rules,
    write_bad_rows,
    write_entity,
    write_events,
)
from pipelines.settings.ingest import NULLS


def begin(
    drops: Path, config: Path, given: Mapping[str, str], ask: Ask | None, say: Say = lambda _: None
) -> Begun:
    """Look at drops, and write the settings file and, for flat files, daily drops next to it.

    Args:
        drops: a file, or a folder of files.
        config: the settings file to write.
        given: the answers that options gave.
        ask: asks a person what the data does not show; None: guesses are taken.
        say: is called with a line about each step that may take long.

    Raises:
        DataError: there is something already, the data can't be read, or it does not say enough.
    """
    for place in (config, config.parent / "raw"):
        if place.exists():
            raise DataError(f"{place} is there already; remove it, or name another file with --config")
    say(f"looking for files in {drops}")
    found = find_tables(drops, given)
    made = not config.parent.exists()
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=config.parent, prefix=".init-")
    except OSError as error:
        raise DataError(
            f"nothing can be written into {config.parent}: {error.strerror}; name another file with --config"
        ) from error
    try:
        with scratch as folder:
            return _Beginning(drops, config, found, Guesses(given, ask), Path(folder), say).run()
    except DataError:
        if made and not any(config.parent.iterdir()):
            config.parent.rmdir()
        raise


class _Beginning:
    """The work of `begin`, step by step."""

    def __init__(
        self, drops: Path, config: Path, found: Found, guesses: Guesses, scratch: Path, say: Say
    ) -> None:
        self.drops, self.config, self.found = drops, config, found
        self.guesses, self.scratch, self.say = guesses, scratch, say
        self.con = duckdb.connect(config={"temp_directory": str(scratch / "duckdb")})
        self.notes: list[Note] = []
        self.in_place = False  # whether the drops stay where they are
        self.where: list[str] = []
        self.condition = ""  # the filter as DuckDB reads it
        self.why: list[str] = []

    def run(self) -> Begun:
        """Do all steps."""
        tables = [self._look(number) for number in range(len(self.found.tables))]
        self.say("guessing what the columns are")
        events = find_events(tables, self.guesses)
        roles = guess_roles(self.con, events, self.guesses)
        roles.form = settle_format(self.con, events, roles, self.guesses)
        zone = settle_zone(events, roles, self.guesses)
        items = find_entity(self.con, tables, events, ("items", roles.item), self.guesses)
        rest = [table for table in tables if table is not items.table]
        users = find_entity(self.con, rest, events, ("users", roles.user), self.guesses)
        self.notes += notes_of_tables([table for table in rest if table not in (events, users.table)])
        self.in_place = bool(self.found.days) and can_stay(self.found.tables, (items, users), events, roles)
        self.where, self.why = settle_filter(events, roles, self.guesses)
        self.condition, failed = try_filter(self.con, events, self.where)
        self.notes += failed
        if self.in_place:
            items.keep_in_place()
            users.keep_in_place()
        else:
            self._derive(events, roles, items, users)
        self.notes += notes_of_columns(events, self._used(events, roles, (items, users)), (items, users))
        days, late = self._days(events, roles, zone)
        if not self.in_place:
            self.condition = f"({self.condition or 'true'}) AND {DAY_COLUMN} IS NOT NULL"
        plan, amounts = self._plan(events, roles, (items, users), zone, days)
        bad = [*(row for table in tables for row in table.staged.bad), *late]
        if not self.in_place:
            self._write(events, (items, users), days)
            write_bad_rows(bad, self.config.parent / BAD_ROWS)
        self.config.write_text(write_settings(plan), encoding="utf-8")
        begun = Begun(
            self.config, self.guesses.made, self.guesses.asked, events.staged.rows,
            0 if self.in_place else sum(days.values()), bad, self._first(days), days, amounts, self.notes,
        )  # fmt: skip
        self.say("trying a day by the rules of ingest")
        begun.tries, begun.faults = try_drops(self.config)
        return begun

    def _look(self, number: int) -> Looked:
        table = self.found.tables[number]
        if self.found.days:
            some = newest_files(table.files)
            if len(some) < len(table.files):
                said = f"only {len(some):,} of {len(table.files):,} files of {table.name} were looked at"
                self.notes.append(Note("sample", said))
            table = table._replace(files=some)
        size = sum(path.stat().st_size for path in table.files)
        self.say(f"reading {table.name}: {len(table.files):,} files, {size:,} bytes")
        staged = stage(table, self.scratch / f"t{number}", say=self.say)
        if staged.rows == len(staged.bad):
            more = "deliver rows, or if it has some, say its dialect with --delimiter"
            raise DataError(f"{table.files[0]} has no row that can be read; {more}")
        looked = Looked(staged, f"table_{number}", describe(self.con, staged, f"table_{number}"))
        find_times(self.con, looked)
        join_clock(self.con, looked)
        return looked

    def _derive(self, events: Looked, roles: Roles, items: Entity, users: Entity) -> None:
        """Take features from columns of events where there is no table of items or users."""
        taken = self._used(events, roles, ())
        for entity in (items, users):
            if entity.table is None:
                derive_features(self.con, events, entity, taken)
                taken |= {feature.source for feature in entity.columns}

    def _used(self, events: Looked, roles: Roles, entities: Sequence[Entity]) -> set[str]:
        """Return the columns of events that have a role, or that the filter or items and users read."""
        condition = " AND ".join(self.where)
        used = (taken_columns(roles) - {roles.quantity}) | {
            name for name in events.names if spark_name(name) in condition
        }
        return used.union(*({f.source for f in entity.columns} for entity in entities if entity.derived))

    def _days(self, events: Looked, roles: Roles, zone: str) -> tuple[dict[str, int], list[BadRow]]:
        """Return the days of events, and the rows whose time can't be read."""
        if self.in_place:
            return dict.fromkeys(self.found.days["events"], 0), []
        late = add_days(events, roles.time, time_rules(roles.form.format, zone, frozenset(NULLS)))
        describe(self.con, events.staged, events.view)
        days = count_days(self.con, events)
        if not days:
            value = events.column(roles.time).top[0][0]
            raise DataError(
                f"no value of {roles.time}, such as {value!r}, is a time of the format {roles.form.format}; "
                "correct --time-format, or name the column with --time"
            )
        return days, late

    def _plan(
        self, events: Looked, roles: Roles, entities: tuple[Entity, Entity], zone: str, days: dict[str, int]
    ) -> tuple[Plan, Amounts]:
        """Return what the settings say, and how much data there is."""
        items, users = entities
        span = (dt.date.fromisoformat(max(days)) - dt.date.fromisoformat(min(days))).days + 1
        amounts = measure(self.con, events, roles, self.condition, span)
        ids = {
            "user_id": choose_id_type(events, roles.user, users),
            "item_id": choose_id_type(events, roles.item, items),
        }
        kept = keep_events(self.con, events, self.condition)
        eligible, why_eligible = settle_eligible(self.con, kept, roles, ids["item_id"], self.guesses)
        odd = find_oddities(self.con, kept, roles)
        cold = cold_share(self.con, events, roles, users)
        night, audits = choose_night(amounts, cold)
        folder_zone = settle_folder_zone(events, roles, zone, self.guesses) if self.in_place else "UTC"
        training = choose_training(amounts, labelled=bool(roles.label))
        plan = Plan(
            str(self.drops), str(self.found.root.resolve()) if self.in_place else "raw", roles, ids,
            events.staged.table.dialect if self.in_place else Dialect("parquet"), zone,
            folder_zone, items, users,
            list_event_types(events, roles),
            training, night, self.where, self.why, eligible, why_eligible, audits,
            any(note.what == "contradictions" for note in odd),
            len(missing_days([self._first(days), *days])),
        )  # fmt: skip
        self.notes += [
            *(Note("filter", said) for said in self.why),
            *odd,
            *find_short_histories(self.con, kept, roles),
            *notes_of_days(days),
            *notes_of_entities(entities, cold),
        ]
        return plan, amounts

    def _first(self, days: dict[str, int]) -> str:
        """Return the first day to load: items and users may have been delivered before the first events."""
        others = [day for listed in self.found.days.values() for day in listed] if self.in_place else []
        return min([*days, *others])

    def _write(self, events: Looked, entities: tuple[Entity, ...], days: dict[str, int]) -> None:
        raw = self.config.parent / "raw"
        self.say(f"writing the drops of {len(days):,} days into {raw}")
        write_events(self.con, events, raw, days)
        for entity in entities:
            write_entity(self.con, entity, events, raw, min(days))
