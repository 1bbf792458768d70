"""Test tables with two concurrent writers, with rows changed in place, and with rows that they refuse."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.steps import Job
from pipelines.store.frames import local_rows
from pipelines.store.leases import Run
from pipelines.store.manifests import Manifest
from pipelines.store.runs import find_manifests, record, run_once
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import RowRefused, WriteConflict
from tests.cluster.standalone import wait_until
from tests.nights import lists_of, publish

DAY = "2024-01-01"


class Attempt(Manifest):
    """The manifest of one of several attempts."""

    job = Job.PLAN_NIGHT
    attempt: int = 0


def test_the_slower_of_two_writers_of_a_slice_fails_with_one_line_and_changes_nothing(
    empty_shop: Warehouse, tmp_path: Path
) -> None:
    row = {
        "ds": dt.date.fromisoformat(DAY), "item_id": 1, "model_version": "v", "recent_count": 0,
        "bias": 0.0, "eligible": 1,
    }  # fmt: skip
    quick = local_rows(empty_shop.spark, [row], empty_shop.schema("item_bias"))
    where = f"ds = '{DAY}'"
    empty_shop.replace("item_bias", quick, where)
    started, go = tmp_path / "started", tmp_path / "go"

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            started.touch()
            while not go.exists():
                time.sleep(0.02)
            yield batch

    slow = quick.mapInArrow(wait, quick.schema)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(empty_shop.replace, "item_bias", slow, where)
        wait_until(started.exists, "the slow writer did not start")
        version = empty_shop.replace("item_bias", quick, where)
        go.touch()
        with pytest.raises(WriteConflict, match=r"^table item_bias: another writer .* Run the job again"):
            writing.result(timeout=60)
    assert empty_shop.version("item_bias") == version


def test_two_attempts_that_finish_together_record_one_manifest_and_both_return_it(
    empty_shop: Warehouse,
) -> None:
    record(empty_shop, "2024-01-01.before", DAY, Attempt())  # this creates the table
    run, together = Run(DAY, "night", 1), Barrier(2)

    def attempt(number: int) -> Attempt:
        def work() -> Attempt:
            together.wait(timeout=60)
            return Attempt(attempt=number)

        own = Warehouse(empty_shop.spark, empty_shop.settings)  # another process would have its own cache
        return run_once(own, run, Attempt, work)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(attempt, (1, 2))
    assert first.attempt == second.attempt
    found = {done.run_id: done.manifest.attempt for done in find_manifests(empty_shop, Attempt)}
    assert found == {"2024-01-01.before": 0, run.run_id: first.attempt}
    later = run_once(empty_shop, run, Attempt, Attempt)
    assert (later.attempt, later.reused) == (first.attempt, True)


def test_a_patch_changes_adds_and_removes_rows_without_rewriting_their_file(empty_shop: Warehouse) -> None:
    def rows(fingerprints: dict[int, str | None]) -> DataFrame:
        names = warehouse.schema("user_memory").names
        nothing = dict.fromkeys(names) | {"model_version": "v"}
        listed = [nothing | {"user_id": u, "fingerprint": f} for u, f in fingerprints.items()]
        return local_rows(warehouse.spark, listed, warehouse.schema("user_memory"))

    warehouse = empty_shop
    whole = warehouse.replace(
        "user_memory", rows({1: "a", 2: "a", 3: "a"}).coalesce(1), "model_version = 'v'"
    )
    (file,) = warehouse.read("user_memory", whole).inputFiles()
    changes, gone = rows({2: "b", 3: None, 4: "b", 5: None}), F.col("s.fingerprint").isNull()
    version = warehouse.upsert(
        "user_memory", changes, "user_id", F.col("t.model_version") == "v", gone, whole
    )
    patched = warehouse.read("user_memory", version)
    assert {r["user_id"]: r["fingerprint"] for r in patched.collect()} == {1: "a", 2: "b", 4: "b"}
    assert version == whole + 1
    assert file in patched.inputFiles()
    other = warehouse.upsert(
        "user_memory", changes, "user_id", F.col("t.model_version") == "w", gone, version
    )
    assert warehouse.read("user_memory", other).where("user_id = 2").count() == 2  # one is in slice w
    with pytest.raises(WriteConflict, match=rf"version {other + 1} was written over another writer's rows"):
        warehouse.upsert(
            "user_memory", rows({1: "c"}), "user_id", F.col("t.model_version") == "v", gone, version
        )


@pytest.mark.parametrize(
    ("lists", "rule"),
    [
        ({1: [(5, float("nan"))]}, "finite_scores"),
        ({1: [(5, float("inf"))]}, "finite_scores"),
        ({1: [(5, 0.5), (5, 0.25)]}, "items_once"),
    ],
)
def test_delta_refuses_a_list_with_an_infinite_score_or_a_repeated_item(
    empty_shop: Warehouse, lists: dict[int, list[tuple[int, float]]], rule: str
) -> None:
    publish(empty_shop, DAY, "good", {1: [(5, 0.5), (6, 0.25)], 2: []})
    good = lists_of(empty_shop, DAY)
    with pytest.raises(RowRefused, match=rf"^table recommendations: a row breaks the constraint {rule} \("):
        publish(empty_shop, DAY, "bad", lists)
    assert lists_of(empty_shop, DAY) == good
