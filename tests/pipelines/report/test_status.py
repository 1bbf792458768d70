"""The status says which nights are published, why others are not, and what to do about it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from deltalake import DeltaTable
from rich.console import Console

from pipelines.report.status import Status, read_status, show_status
from pipelines.report.tables import ReportError
from pipelines.settings.export import ExportSettings, ParquetExport
from pipelines.store.manifests import CheckReport, ExportManifest
from tests.pipelines.report.warehouses import SmallWarehouse, checks

FIRST, SECOND, THIRD = "2024-05-01", "2024-05-02", "2024-05-03"
LISTS = {"u1": ["i1"], "u2": ["i2"]}


@pytest.fixture
def small(tmp_path: Path) -> SmallWarehouse:
    """Return a warehouse with one published night."""
    warehouse = SmallWarehouse(tmp_path)
    warehouse.publish(FIRST, LISTS)
    return warehouse


def faults(status: Status) -> list[str]:
    """Return what is wrong; whether this machine has the native kernel is not the matter of these tests."""
    return [each.what for each in status.problems if "native kernel" not in each.what]


def show(status: Status, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(show_status(status))
    return captured.get()


def champion(small: SmallWarehouse, number: int, since: str, version: str) -> None:
    row = {"number": number, "model": "mha", "valid_from": dt.date.fromisoformat(since), "reason": "better"}
    small.add("champions", [{**row, "model_version": version, "evidence": "{}"}])


def test_published_nights_are_shown_with_what_their_manifests_say(small: SmallWarehouse) -> None:
    small.publish(SECOND, LISTS, base=f"{FIRST}.1")
    champion(small, 1, "2024-04-20", "v1")
    status = read_status(small.settings)
    second, first = status.nights
    assert (second.night, second.verdict, second.in_force, second.users) == (
        SECOND,
        "published",
        f"{SECOND}.1",
        7,
    )
    assert (second.full, second.reason) == (False, f"incremental night: from run {FIRST}.1")
    assert (first.full, first.run_key, first.total_seconds) == (True, "nightly", 25.25)
    commit = DeltaTable(f"{small.settings.warehouse}/recommendations").history(1)[0]
    when = dt.datetime.fromtimestamp(commit["timestamp"] / 1000, dt.UTC)
    assert second.published_at == when.strftime("%Y-%m-%d %H:%M UTC")
    assert (status.served, status.recorded, faults(status)) == (SECOND, 2, [])
    (now,) = status.champions
    assert (now.model_version, now.age_days) == ("v1", 12)
    sizes = {table.name: table.bytes for table in status.tables}
    folder = Path(small.settings.warehouse) / "recommendations"
    assert sizes["recommendations"] == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    assert set(sizes) == {"recommendations", "runs", "leases", "champions"}
    data = json.loads(status.to_json())
    assert data["nights"][0]["audits"]["checks"][1]["value"] == 0.0625
    assert data["nights"][0]["seconds"]["score_candidates"] == 4.25
    text = show(status)
    for part in (
        f"Last night {SECOND}: published.",
        "4 passed",
        "24 users exact",
        "3.5 s / 3.0 s, cost 0.0125",
        "12 days",
    ):
        assert part in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_missing_night_is_a_fault_with_its_command(small: SmallWarehouse) -> None:
    for night in ("2024-04-30", THIRD, "2024-05-04", "2024-05-08"):
        small.publish(night, LISTS)
    status = read_status(small.settings)
    assert faults(status) == [
        f"Night {SECOND} is missing: no run took it.",
        "The 3 nights from 2024-05-05 to 2024-05-07 are missing: no run took them.",
    ]
    remedy = next(each.remedy for each in status.problems if SECOND in each.what)
    assert f"lime night --ds {SECOND} --run-key again" in remedy


def test_a_weekly_warehouse_lacks_only_the_weeks_without_a_night(small: SmallWarehouse) -> None:
    small.publish("2024-05-08", LISTS)
    assert faults(read_status(small.settings)) == []
    for night in ("2024-05-15", "2024-05-29"):
        small.publish(night, LISTS)
    assert faults(read_status(small.settings)) == ["Night 2024-05-22 is missing: no run took it."]


def test_a_night_that_stopped_names_the_step_and_how_to_go_on(small: SmallWarehouse) -> None:
    small.score(SECOND)
    status = read_status(small.settings)
    assert (status.served, status.nights[0].verdict, status.nights[0].stopped_at) == (
        FIRST,
        "not published",
        "verify_night",
    )
    (problem,) = [each for each in status.problems if each.level == "fault"]
    assert "has not finished the step verify_night" in problem.what
    assert f"--ds {SECOND} --run-key nightly" in problem.remedy


def test_a_failed_audit_is_named_with_value_and_limit(small: SmallWarehouse) -> None:
    small.fail_audits(SECOND, LISTS, checks(short=float("nan"), holds=False))
    status = read_status(small.settings)
    assert faults(status) == [
        f"Night {SECOND}: Run {SECOND}.1 failed its audits: short_share is nan, limit ≤ 0.1."
    ]
    assert json.loads(status.to_json())["nights"][0]["audits"]["checks"][1]["value"] == "nan"
    assert "3 passed, 1 failed" in show(status)


def test_an_audit_that_must_always_hold_is_not_offered_for_an_override(small: SmallWarehouse) -> None:
    broken = CheckReport(name="repeated_items", value=2, limit=0, holds=False)
    small.fail_audits(SECOND, LISTS, [*checks(short=0.4, holds=False), broken])
    (problem,) = [each for each in read_status(small.settings).problems if each.level == "fault"]
    assert f"score the night again with lime night --ds {SECOND}" in problem.remedy
    assert "overrides" not in problem.remedy


def test_a_disproof_reaches_the_nights_that_were_built_on_the_run(small: SmallWarehouse) -> None:
    small.publish(SECOND, LISTS, base=f"{FIRST}.1")
    small.disprove(FIRST, f"{FIRST}.1")
    status = read_status(small.settings)
    assert [night.verdict for night in status.nights] == ["disproved", "disproved"]
    assert len(faults(status)) == 2
    commands = [each.remedy for each in status.problems if each.level == "fault"]
    assert f"Take run {SECOND}.1 back with lime rollback --ds {SECOND} --from {SECOND}.1" in commands[0]


def test_a_night_that_was_taken_back_says_why(small: SmallWarehouse) -> None:
    run_id = small.publish(SECOND, LISTS)
    small.take_back(SECOND, run_id, "prices were [bold]wrong[/bold]")
    status = read_status(small.settings)
    assert (status.served, status.nights[0].verdict, status.nights[0].in_force) == (FIRST, "taken back", None)
    assert "prices were [bold]wrong[/bold]" in " ".join(show(status, 400).split())


def test_a_newer_run_that_stopped_is_a_warning(small: SmallWarehouse) -> None:
    small.lease(FIRST, epoch=2, key="again")
    status = read_status(small.settings)
    assert status.nights[0].verdict == "published"
    assert faults(status) == [
        f"Night {FIRST}: The newer run {FIRST}.2 (key again) stopped at ingest_events or is still running."
    ]


def test_an_old_champion_is_a_warning_and_a_restored_one_keeps_its_age(small: SmallWarehouse) -> None:
    champion(small, 1, "2024-03-01", "v1")
    champion(small, 2, "2024-04-20", "v2")
    assert faults(read_status(small.settings)) == []
    champion(small, 3, "2024-04-25", "v1")
    status = read_status(small.settings)
    assert [(each.model_version, each.age_days) for each in status.champions] == [("v1", 61)]
    assert faults(status) == [
        "The champion v1 of model mha is 61 days old (since 2024-03-01); more than 28 days is old."
    ]


def test_a_place_without_the_newest_night_is_a_fault(small: SmallWarehouse, tmp_path: Path) -> None:
    place = ExportSettings(parquet=ParquetExport(path=str(tmp_path / "served")))
    settings = small.settings.model_copy(update={"export": place})
    assert faults(read_status(settings)) == [
        f"export.parquet does not have run {FIRST}.1 of night {FIRST}: nothing was exported yet."
    ]
    done = ExportManifest.model_validate({"run_id": f"{FIRST}.1", "parquet": {"lists": 2}})
    small.record(FIRST, f"{FIRST}.1", done)
    status = read_status(settings)
    assert (faults(status), status.exports[0].report) == ([], {"lists": 2})


def test_an_empty_warehouse_says_what_to_do_first(tmp_path: Path) -> None:
    small = SmallWarehouse(tmp_path)
    status = read_status(small.settings)
    assert (status.nights, status.problems) == ((), ())
    assert "lime ingest --from" in show(status, 400)
    small.buy("u1", "i1", "2024-04-01 10:00")
    assert "lime train --ds" in show(read_status(small.settings), 400)
    champion(small, 1, "2024-04-20", "v1")
    assert "run one with lime night" in show(read_status(small.settings), 400)
    assert json.loads(read_status(small.settings).to_json())["nights"] == []


def test_damaged_tables_and_manifests_are_one_line_that_names_them(small: SmallWarehouse) -> None:
    row = {"run_id": f"{SECOND}.1", "ds": dt.date.fromisoformat(SECOND), "job": "score_candidates"}
    small.lease(SECOND)
    small.add("runs", [{**row, "seconds": 1.0, "manifest": "{torn"}])
    with pytest.raises(
        ReportError, match=rf"runs: the manifest of run {SECOND}.1, job score_candidates, can't"
    ):
        read_status(small.settings)
    log = Path(small.settings.warehouse) / "leases" / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{torn")
    with pytest.raises(ReportError, match=r"leases can't be read without Spark: [^\n]+$"):
        read_status(small.settings)
