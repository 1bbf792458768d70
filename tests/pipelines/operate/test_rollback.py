"""Test that rolling back a night restores exactly the lists that were in force before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.export.export_lists import export_recommendations
from pipelines.operate.pins import NothingToPin, describe_run
from pipelines.operate.rollback import plan_rollback, roll_back_night
from pipelines.operate.upkeep import vacuum
from pipelines.publish.night_record import ListsDisproved, find_commits
from pipelines.publish.night_state import NothingToRollBack
from pipelines.settings.export import ExportSettings, ParquetExport
from pipelines.store.leases import StaleRun, acquire_lease, check_lease
from pipelines.store.manifests import (
    BaseRun,
    DisprovedManifest,
    PublishManifest,
    RollbackManifest,
    ScoringPlanManifest,
)
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse
from tests.cluster.standalone import PATIENCE
from tests.jobs.test_jobs import start
from tests.nights import lists_of, publish

NIGHT = "2024-05-09"


FIRST, SECOND = {1: [(5, 0.5), (6, 0.25)], 2: [(7, 1.0)]}, {1: [(8, 2.0)], 3: [(5, 0.1)]}


def back(warehouse: Warehouse, key: str, to: str | None = None, **options: str) -> RollbackManifest:
    return roll_back_night(warehouse, acquire_lease(warehouse, NIGHT, key), "a test", to, **options)


def test_a_night_is_rolled_back_twice_and_a_named_run_is_put_back(empty_shop: Warehouse) -> None:
    warehouse = empty_shop
    publish(warehouse, "2024-05-08", "other-night", {9: [(9, 9.0)]})
    one = publish(warehouse, NIGHT, "one", FIRST)
    first = lists_of(warehouse, NIGHT)
    two = publish(warehouse, NIGHT, "two", SECOND)
    second, version = lists_of(warehouse, NIGHT), DeltaTable(warehouse.path("recommendations")).version()

    found = back(warehouse, "back")
    assert (found.run_id, found.instead_of, found.reason) == (one.run_id, two.run_id, "a test")
    assert found.now == (
        f"night {NIGHT}: run {two.run_id} was taken back, and the lists of run {one.run_id} are in force"
    )
    assert lists_of(warehouse, NIGHT) == first
    assert back(warehouse, "back").reused  # a retry does not roll back once more

    with pytest.raises(StaleRun, match="overtaken"):  # the run that was taken back can't publish again
        acquire_lease(warehouse, NIGHT, "two")
    withdrawn = back(warehouse, "again", expected=one.run_id)  # nothing was in force before the first
    assert withdrawn.run_id is None
    assert withdrawn.now == (
        f"night {NIGHT}: run {one.run_id} was taken back and the night is withdrawn, as all other runs were "
        f"taken back ({two.run_id}); its readers find the night before it"
    )
    assert lists_of(warehouse, NIGHT) == {}
    assert lists_of(warehouse, "2024-05-08") == {9: [(9, 9.0)]}
    with pytest.raises(NothingToRollBack, match="no lists are published"):
        back(warehouse, "too-far")
    with pytest.raises(NothingToPin, match=r"no lists are published \(it was taken back\)"):
        describe_run(warehouse, NIGHT)
    assert back(warehouse, "a-mistake", two.run_id).instead_of is None  # a named run can be put back
    assert lists_of(warehouse, NIGHT) == second

    old = warehouse.read("recommendations", version).where(f"ds = '{NIGHT}'").collect()  # time travel
    assert {r["user_id"]: [(c["item_id"], c["score"]) for c in r["candidates"]] for r in old} == second


def test_a_replaced_run_does_not_count_as_taken_back_and_a_command_sent_twice_works_once(
    empty_shop: Warehouse,
) -> None:
    one, two = publish(empty_shop, NIGHT, "one", FIRST), publish(empty_shop, NIGHT, "two", SECOND)
    first, second = FIRST, lists_of(empty_shop, NIGHT)
    back(empty_shop, "back")
    assert back(empty_shop, "that-was-a-mistake", two.run_id).action == "put back"
    publish(empty_shop, NIGHT, "three", {4: [(4, 4.0)]})
    assert back(empty_shop, "the-third-is-bad").run_id == two.run_id
    with pytest.raises(
        NothingToRollBack,
        match=rf"run {NIGHT}\.5 was taken back already .*'a test'\) .* run {two.run_id} is in force and "
        rf"nothing was changed; .* add --from {two.run_id}, which puts the lists of run {one.run_id} in "
        r"force$",
    ):
        back(empty_shop, "the-third-is-bad-sent-again")
    assert lists_of(empty_shop, NIGHT) == second
    assert describe_run(empty_shop, NIGHT).run_id == two.run_id
    back(empty_shop, "the-second-too", expected=two.run_id)
    assert lists_of(empty_shop, NIGHT).keys() == first.keys()
    with pytest.raises(
        NothingToRollBack, match=rf"'{two.run_id}' was taken back already; run {one.run_id} is"
    ):
        back(empty_shop, "the-second-too-sent-again", expected=two.run_id)


def test_a_rollback_that_was_killed_before_it_was_recorded_is_not_done_twice(
    empty_shop: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = publish(empty_shop, NIGHT, "one", FIRST), publish(empty_shop, NIGHT, "two", SECOND)
    with monkeypatch.context() as dying:
        dying.setattr("pipelines.store.runs._add", lambda *row: sys.exit("killed"))
        with pytest.raises(SystemExit):
            back(empty_shop, "back")
    found = back(empty_shop, "back")
    assert (found.run_id, found.instead_of) == (one.run_id, two.run_id)
    assert found.versions == {"recommendations": 2}
    assert [commit.run_id for commit in find_commits(empty_shop, NIGHT)] == [
        one.run_id,
        two.run_id,
        one.run_id,
    ]


def test_disproved_lists_are_neither_restored_nor_exported(empty_shop: Warehouse, tmp_path: Path) -> None:
    to = ExportSettings(parquet=ParquetExport(path=str(tmp_path / "served")))
    warehouse = Warehouse(empty_shop.spark, empty_shop.settings.model_copy(update={"export": to}))
    one, two, three = (publish(warehouse, NIGHT, key, FIRST) for key in ("one", "two", "three"))
    record(warehouse, "2024-05-08.1", "2024-05-08", DisprovedManifest(users=1))
    base = BaseRun(run_id="2024-05-08.1", ds="2024-05-08", anchors=[], held=[])
    plan = ScoringPlanManifest(buckets=1, units_per_commit=1, settings=[], why="", base=base)
    record(warehouse, two.run_id, NIGHT, plan)
    with pytest.raises(NothingToRollBack, match=rf"has disproved the lists of run '{two.run_id}', or lists"):
        plan_rollback(warehouse, NIGHT, two.run_id)
    assert back(warehouse, "back").run_id == one.run_id
    export_recommendations(warehouse, NIGHT)
    record(warehouse, one.run_id, NIGHT, DisprovedManifest(users=1))
    with pytest.raises(
        ListsDisproved,
        match=rf"^night {NIGHT}: the lists of run {one.run_id} are in force, and a full comparison .* "
        rf"nothing was exported.* with lime rollback --ds {NIGHT} --from {one.run_id} --reason …, which "
        r"withdraws the night, as all other runs were disproved by a full comparison "
        rf"\({two.run_id}\) or taken back "
        rf"\({three.run_id}\); its readers find the night before it\. Then export the night again$",
    ):
        export_recommendations(warehouse, NIGHT)


def test_a_rollback_can_name_the_run_whose_lists_it_restores(empty_shop: Warehouse) -> None:
    one, two = publish(empty_shop, NIGHT, "one", FIRST), publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    with pytest.raises(NothingToRollBack, match=rf"'{NIGHT}.7' never published it; others .*'{one.run_id}'"):
        back(empty_shop, "nobody", f"{NIGHT}.7")
    back(empty_shop, "to-one", one.run_id)
    assert back(empty_shop, "to-two", two.run_id).instead_of == one.run_id
    assert lists_of(empty_shop, NIGHT) == second
    assert [commit.run_id for commit in find_commits(empty_shop, NIGHT)] == [
        one.run_id, two.run_id, one.run_id, two.run_id
    ]  # fmt: skip


def test_a_rollback_fails_if_a_newer_run_publishes_meanwhile(
    empty_shop: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(empty_shop, NIGHT, "one", FIRST)
    mine = acquire_lease(empty_shop, NIGHT, "slow-roll-back")
    publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    with pytest.raises(StaleRun, match="overtaken by run 'two'"):
        roll_back_night(empty_shop, mine, "a test")
    monkeypatch.setattr("pipelines.operate.rollback.check_lease", lambda warehouse, run: run)
    with pytest.raises(StaleRun, match="a newer run published"):
        roll_back_night(empty_shop, mine, "a test")
    assert lists_of(empty_shop, NIGHT) == second


def test_a_rollback_to_lists_whose_files_were_vacuumed_changes_nothing(empty_shop: Warehouse) -> None:
    publish(empty_shop, NIGHT, "one", FIRST)
    publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    assert vacuum(empty_shop, "recommendations", 0) > 0
    with pytest.raises(NothingToRollBack, match=rf"lists of run {NIGHT}.1 are gone .*nothing was changed"):
        back(empty_shop, "too-late")
    assert lists_of(empty_shop, NIGHT) == second


def test_a_night_is_not_withdrawn_if_an_earlier_run_is_only_missing_in_delta_s_log(
    empty_shop: Warehouse,
) -> None:
    """The commit of the earlier run is no longer in the log, but its manifest says that it published."""
    record(empty_shop, f"{NIGHT}.7", NIGHT, PublishManifest(run_id=f"{NIGHT}.7"))
    publish(empty_shop, NIGHT, "one", FIRST)
    with pytest.raises(NothingToRollBack, match=rf"\['{NIGHT}.7'\] published it before, and Delta's log"):
        back(empty_shop, "unknown")
    assert len(lists_of(empty_shop, NIGHT)) == len(FIRST)


@pytest.mark.operate
def test_a_refused_rollback_reports_one_line_and_does_not_take_the_lease(
    empty_shop: Warehouse, tmp_path: Path
) -> None:
    one, two = publish(empty_shop, NIGHT, "one", FIRST), publish(empty_shop, NIGHT, "two", SECOND)
    back(empty_shop, "back")
    at_work = acquire_lease(empty_shop, NIGHT, "at-work")
    job = start("roll_back", "--config", str(tmp_path / "settings.yaml"), "--ds", NIGHT, "--reason", "a test")
    _, error = job.communicate(timeout=PATIENCE)
    assert job.returncode == 3
    (said,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert said.startswith(f"error: night {NIGHT}: run {two.run_id} was taken back already")
    assert "Traceback" not in error
    assert check_lease(empty_shop, at_work) == at_work
    assert [commit.run_id for commit in find_commits(empty_shop, NIGHT)] == [
        one.run_id,
        two.run_id,
        one.run_id,
    ]
