"""Test that upkeep keeps pinned nights readable, removes what no night needs, and leaves nights unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from pipelines.operate.pins import (
    FILES,
    FOR_EVER,
    LOG,
    NothingToPin,
    Pin,
    PinLost,
    find_pins,
    pin_night,
    release_night,
)
from pipelines.operate.upkeep import NightUnknown, drop_staged, tidy_tables, vacuum
from pipelines.score.base_night import find_base
from pipelines.settings.night import UpkeepSettings
from pipelines.store.frames import local_rows
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.manifests import PinManifest, PublishManifest, ScoreManifest, TidyManifest
from pipelines.store.runs import find_manifest, record
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import copy_log
from tests.nights import full_night, lists_of, publish

pytestmark = pytest.mark.operate
SECOND, THIRD, FOURTH = "2024-05-02", "2024-05-03", "2024-05-04"
VACUUMED = ("events", "user_link_states", "staging", "recommendations")
NEWEST, WHY = "2024-05-05", "an audit of this night"


@pytest.fixture
def nights(trained: Warehouse, tmp_path: Path) -> Warehouse:
    """A copy of the shop after three nights, where upkeep keeps the rows staged from the third night on."""
    opened = copy_log(trained, tmp_path)
    limits = {"upkeep": UpkeepSettings(keep_nights=2)}
    warehouse = Warehouse(opened.spark, opened.settings.model_copy(update=limits))
    full_night(warehouse, "first")
    full_night(warehouse, "second", SECOND)
    full_night(warehouse, "third", THIRD)
    return warehouse


def rows_of(warehouse: Warehouse, versions: dict[str, int]) -> dict[str, int | None]:
    """Return a digest of all rows of each table at its version, or None if files are missing."""
    found: dict[str, int | None] = {}
    for name, version in versions.items():
        try:
            columns = warehouse.read(name, version)
            found[name] = columns.selectExpr("bit_xor(xxhash64(*)) AS digest").collect()[0][0]
        except (PySparkException, Py4JJavaError):
            found[name] = None
    return found


def age(warehouse: Warehouse, versions: dict[str, int], days: int) -> None:
    """Make commits up to these versions, and all files, older; Delta judges age by file times."""
    for name, version in versions.items():
        folder = Path(warehouse.path(name))
        files = [path for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts]
        for path in [*files, *(folder / f"_delta_log/{number:020d}.json" for number in range(version + 1))]:
            then = path.stat().st_mtime - days * 86_400
            os.utime(path, (then, then))


def vacuum_all(warehouse: Warehouse, pins: list[Pin]) -> int:
    """Vacuum tables of every kind, keeping only their newest versions and the pinned ones."""
    return sum(vacuum(warehouse, name, 0, pins) for name in VACUUMED)


def test_a_pinned_night_stays_readable_until_its_pin_is_released(nights: Warehouse) -> None:
    with pytest.raises(NothingToPin, match=f"night {FOURTH}: no lists are published"):
        pin_night(nights, FOURTH, WHY)
    versions = pin_night(nights, shop.NIGHT, WHY).versions
    assert {"recommendations", "staging", "user_link_states", "user_memory", "events", "items"} <= set(
        versions
    )
    before = rows_of(nights, versions)
    second = find_manifest(nights, f"{SECOND}.1", ScoreManifest)
    assert second is not None
    assert second.entries is not None
    lists = lists_of(nights, THIRD)
    age(nights, versions, days=10)  # longer than Delta keeps old versions by default

    known = {name: nights.newest(name) for name in ("runs", "staging", "events")}
    with pytest.raises(NightUnknown, match=rf"night 2107-12-31 would drop .* knows is {THIRD}.*--ds {THIRD}"):
        tidy_tables(nights, "2107-12-31")
    assert {name: nights.newest(name) for name in known} == known
    # An earlier version of this project may have recorded such a date and then failed to drop the rows.
    record(nights, "2107-12-31.tidy", "2107-12-31", TidyManifest(staged_from="2107-12-17"))
    done = tidy_tables(nights, NEWEST)
    assert done.staged_from == THIRD
    # Only the rows of the second night are dropped; the third has copies of its lists and its item biases.
    assert done.staged_runs_dropped == {"staging": 1, "candidate_history": 1}
    assert done.files_compacted["runs"] > 10
    assert rows_of(nights, versions) == before
    staged = {row[0] for row in nights.read("staging").select("run_id").distinct().collect()}
    assert staged == {f"{shop.NIGHT}.1", f"{THIRD}.1"}

    assert vacuum_all(nights, find_pins(nights)) > 0
    assert rows_of(nights, versions) == before  # the digests prove that no bit has changed
    assert rows_of(nights, second.versions) == {"staging": None}
    assert lists_of(nights, THIRD) == lists

    base, why = find_base(nights, Run(THIRD, "again", 2), second.entries.rules)
    assert (base, why) == (None, f"full night: upkeep has dropped what run {SECOND}.1 staged")
    full_night(nights, "fourth", FOURTH)  # it starts from the third, whose rows are kept
    scored = find_manifest(nights, f"{FOURTH}.1", ScoreManifest)
    assert scored is not None
    assert scored.policies["all"].plan_reason == f"incremental night: from run {THIRD}.1"
    fourth = lists_of(nights, FOURTH)

    assert release_night(nights, shop.NIGHT, "it is over").released == [f"{shop.NIGHT}.1"]
    with pytest.raises(NothingToPin, match=rf"night {shop.NIGHT} is not pinned; pinned nights: \[\]"):
        release_night(nights, shop.NIGHT, "again")
    assert drop_staged(nights, "staging", THIRD, find_pins(nights)) == 1  # the rows of the first night
    vacuum_all(nights, find_pins(nights))
    assert rows_of(nights, versions)["staging"] is None
    assert lists_of(nights, FOURTH) == fourth
    with pytest.raises(NothingToPin, match=r"files of table \w+ at version .* are gone .*nothing was pinned"):
        pin_night(nights, SECOND, WHY)


def test_logs_are_kept_while_a_table_is_pinned(empty_shop: Warehouse) -> None:
    warehouse = empty_shop

    def duration() -> str | None:
        properties = dict(warehouse.delta("recommendations").detail().collect()[0]["properties"])
        assert properties.get(FILES) == properties.get(LOG)
        return properties.get(LOG)

    for night in (SECOND, THIRD):
        publish(warehouse, night, "one", {1: [(5, 0.5)]})
        pin_night(warehouse, night, WHY)
    assert duration() == FOR_EVER
    release_night(warehouse, SECOND, "it is over")
    assert duration() == FOR_EVER  # the third night is still pinned
    release_night(warehouse, THIRD, "it is over")
    assert duration() is None


def test_a_pinned_version_that_cannot_be_read_stops_the_vacuum(empty_shop: Warehouse) -> None:
    publish(empty_shop, SECOND, "one", {1: [(5, 0.5)]})
    lost = PinManifest(versions={"recommendations": 99}, reason=WHY, released=False)
    record(empty_shop, f"{SECOND}.1", SECOND, lost)
    with pytest.raises(PinLost, match=r"table recommendations: version 99 is pinned.*lime pin --release"):
        tidy_tables(empty_shop, NEWEST)


def test_staged_rows_of_an_unfinished_run_are_kept_however_old_its_night_is(empty_shop: Warehouse) -> None:
    """A backfill could not stage the rows again, as Delta accepts each of its commits only once."""
    runs = [acquire_lease(empty_shop, SECOND, key) for key in ("overtaken", "at-work")]
    for run in runs:
        names = dict.fromkeys(empty_shop.schema("staging").names) | {"run_id": run.run_id, "user_id": 1}
        empty_shop.append("staging", local_rows(empty_shop.spark, [names], empty_shop.schema("staging")))
    assert drop_staged(empty_shop, "staging", NEWEST, []) == 1
    assert [row["run_id"] for row in empty_shop.read("staging").collect()] == [runs[1].run_id]
    record(empty_shop, runs[1].run_id, SECOND, PublishManifest(run_id=runs[1].run_id))
    assert drop_staged(empty_shop, "staging", NEWEST, []) == 1
