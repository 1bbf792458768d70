"""`lime init` finds what five foreign layouts hold, loses no row and changes no value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingest.source_columns import event_columns
from pipelines.onboard.begin import begin
from pipelines.onboard.begun import Begun
from pipelines.onboard.dry_run import settings_dialect
from pipelines.onboard.guesses import Guess
from pipelines.onboard.staging import stage
from pipelines.onboard.tables import Table, list_files
from pipelines.settings.settings import Settings, load_settings
from pipelines.udfs.value_columns import read_column
from tests.pipelines.onboard.layouts import LAYOUTS, Answers

# How many questions a person is asked: the zone and the postage, or the columns of files without names.
QUESTIONS = {"orders": 2, "clicks": 0, "millis": 0, "ratings": 2, "days": 0}


def take(guess: Guess) -> str:
    """Answer as a person does who takes every guess."""
    assert guess.value is not None
    return guess.value


def read_drops(settings: Settings, scratch: Path) -> dict[str, list[Any]]:
    """Read all drops of events by the rules of ingest, as a night would."""
    files = list_files(Path(settings.drops) / "events")
    dialect = settings_dialect(settings)
    found: dict[str, list[Any]] = {}
    for number, path in enumerate(files):
        staged = stage(Table("events", [path], dialect), scratch / str(number), flat=False)
        frame = pa.concat_tables([pq.read_table(part) for part in sorted(staged.folder.glob("*.parquet"))])
        for column in event_columns(settings):
            if column.source in frame.column_names:
                read = read_column(
                    frame.column(column.source).combine_chunks(), column, settings.ingest.rules
                )
                assert not read.problems
                values = read.values.cast(pa.int64()) if column.name == "event_ts" else read.values
                found.setdefault(column.name, []).extend(values.to_pylist())
    return found


@pytest.fixture(params=LAYOUTS)
def begun(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Answers, Begun]:
    """Return a layout, what is known of it, and what `lime init` made of it."""
    write, place = LAYOUTS[request.param]
    source = tmp_path / "source"
    source.mkdir()
    answers = write(source)
    return request.param, answers, begin(source / place, tmp_path / "own" / "lime.yaml", {}, take)


def test_a_layout_is_understood_and_every_row_is_there(
    begun: tuple[str, Answers, Begun], tmp_path: Path
) -> None:
    name, answers, found = begun
    assert found.faults == []
    assert found.asked == QUESTIONS[name]
    settings = load_settings(found.config)
    events = settings.ingest.events
    assert (events.user_id, events.item_id, events.event_ts) == (answers.user, answers.item, answers.time)
    assert settings.ids.model_dump() == answers.ids
    assert settings.ingest.timestamp.format == answers.format
    optional = {"session_id": answers.session, "label": answers.label, "event_type": answers.event_type}
    for ours, source in optional.items():
        assert events.source(ours) == (source or ours)
    assert (found.rows, len(found.unreadable)) == (answers.rows, 0)
    drops = read_drops(settings, tmp_path / "read")
    assert len(drops["user_id"]) == answers.rows
    assert sorted(drops["event_ts"]) == sorted(answers.instants)
    assert list(found.days) == sorted(found.days)
    if name != "days":
        assert found.written == answers.rows
        assert sum(found.days.values()) == answers.rows


def test_orders_are_filtered_and_postage_is_no_product(tmp_path: Path) -> None:
    answers = LAYOUTS["orders"][0](tmp_path)
    found = begin(tmp_path / "bestellungen.csv", tmp_path / "own" / "lime.yaml", {}, None)
    settings = load_settings(found.config)
    assert settings.night.policy.eligible == "item_id NOT IN ('POST')"
    assert settings.ingest.events.where == "Kundennummer IS NOT NULL AND try_cast(Menge AS DOUBLE) > 0"
    assert found.amounts.rows < answers.rows
    assert {"filter", "float_user"} <= {note.what for note in found.notes}
    users = pq.read_table(next((tmp_path / "own" / "raw" / "users").rglob("*.parquet")))
    assert set(users.column("Land").to_pylist()) == {"Österreich", "Schweiz"}
    prices = pq.read_table(next((tmp_path / "own" / "raw" / "items").rglob("*.parquet"))).column(
        "Einzelpreis"
    )
    assert all(float(price) for price in prices.to_pylist())  # a decimal comma became a point


def test_features_follow_from_tables_or_events(tmp_path: Path) -> None:
    for name, expected in (
        ("ratings", ["column3"]),
        ("days", ["brand", "price"]),
        ("clicks", ["article_topic"]),
    ):
        root = tmp_path / name
        root.mkdir()
        write, place = LAYOUTS[name]
        write(root)
        found = begin(root / place, tmp_path / f"own-{name}" / "lime.yaml", {}, None)
        settings = load_settings(found.config)
        assert sorted(settings.ingest.items.columns) == expected
        assert sorted(column.name for column in settings.models[0].config.item_columns) == expected


def test_the_next_commands_name_the_days_of_the_data(tmp_path: Path) -> None:
    LAYOUTS["millis"][0](tmp_path)
    config = tmp_path / "own" / "lime.yaml"
    found = begin(tmp_path / "events.parquet", config, {}, None)
    assert found.commands == [
        f"lime check --config {config}",
        f"lime ingest --config {config} --from 2024-03-01 --to 2024-04-09",
        f"lime train --config {config} --ds 2024-04-10",
        f"lime night --config {config} --ds 2024-04-10",
    ]
    assert found.evaluation[0].endswith("--ds 2024-04-02")
    assert not list((tmp_path / "own").glob(".init-*"))
