"""A later night computes only what changed, and its tables equal those of a complete computation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.ingest.load_days import ingest_days
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest, StatesManifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import open_shop
from tests.nights import point_at

pytestmark = pytest.mark.nights
BUILT = {"candidate_bank": "item_id", "user_link_states": "user_id", "user_memory": "user_id"}
NEXT, THIRD, CORRECTED = "2024-05-02", "2024-05-03", "2024-04-30"
LATE, WRONG = 1, 3
NEW = 500  # an item that is first delivered on `NEXT`


def build(warehouse: Warehouse, ds: str, key: str) -> tuple[BankManifest, StatesManifest]:
    run = Run(ds, key)
    return build_candidate_bank(warehouse, run, "mha", [Policy()]), build_link_states(warehouse, run, "mha")


def rows_of(frame: DataFrame, key: str) -> list[dict[str, Any]]:
    """Return the rows of a table, without the columns that say which night computed a row."""
    kept = [name for name in frame.columns if name not in ("as_of", "events_version")]
    return [row.asDict() for row in frame.select(*kept).orderBy(key).collect()]


@pytest.fixture(scope="module")
def nights(in_place: None, trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Build nights over existing tables, and the same nights over empty ones.

    After the first night there are a day of purchases, a user with another region, an item of another kind,
    two damaged rows and a duplicate row.
    """
    root = tmp_path_factory.mktemp("reuse")
    shutil.copytree(Path(trained.settings.drops).parent, root, dirs_exist_ok=True)
    for name in (*BUILT, "item_bias", "runs"):
        shutil.rmtree(root / "warehouse" / name, ignore_errors=True)
    warehouse = open_shop(trained.spark, root)
    built = {"first": build(warehouse, shop.NIGHT, "first"), "again": build(warehouse, shop.NIGHT, "again")}

    items, users = shop.items(), shop.users()
    items.loc[items["item_id"] == 3, "kind"] = "kind-4"
    users.loc[users["user_id"] == 38, "region"] = "region-9"
    for source, frame in (("items", items), ("users", users)):
        shop.write_drop(root / "raw", source, shop.NIGHT, frame)
    ingest_days(warehouse, shop.NIGHT, shop.NIGHT)
    warehouse.delta("user_memory").update(F.col("user_id") == 37, {"features": F.lit(b"damaged")})
    warehouse.delta("candidate_bank").update(F.col("item_id") == 7, {"dot": F.lit(b"damaged")})
    warehouse.append("candidate_bank", warehouse.read("candidate_bank").where("item_id = 9"))
    for key in ("first", "again"):
        # The next build starts from the damaged rows.
        point_at(warehouse, Run(shop.NIGHT, key), StatesManifest, "user_memory")
    built["next"] = build(warehouse, NEXT, "next")
    tables = {name: rows_of(warehouse.read(name), key) for name, key in BUILT.items()}
    files = [warehouse.read("candidate_bank").inputFiles()]
    correct_log(root / "raw")
    items.loc[items["item_id"] == 5, "kind"] = "kind-0"
    items.loc[len(items)] = [NEW, "kind-1", "price-1"]
    shop.write_drop(root / "raw", "items", NEXT, items)
    ingest_days(warehouse, CORRECTED, NEXT)
    built["late"] = build(warehouse, THIRD, "late")
    files.append(warehouse.read("candidate_bank").inputFiles())
    late = {name: rows_of(warehouse.read(name), key) for name, key in BUILT.items()}
    built["past"] = build(warehouse, NEXT, "past")
    past = {name: rows_of(warehouse.read(name), key) for name, key in BUILT.items()}
    full = {}
    for ds in (THIRD, NEXT):
        for name in BUILT:
            shutil.rmtree(root / "warehouse" / name)
        scratch = open_shop(trained.spark, root)
        built[f"scratch {ds}"] = build(scratch, ds, "scratch")
        full[ds] = {name: rows_of(scratch.read(name), key) for name, key in BUILT.items()}
    split = open_shop(trained.spark, root, buckets=2)  # no row of the build with four buckets may remain
    built["split"] = build(split, NEXT, "split")
    buckets = {row["bucket"] for row in split.read("user_link_states").select("bucket").collect()}
    return {
        "built": built, "next": tables, "late": late, "past": past, "full": full, "buckets": buckets,
        "files": files,
    }  # fmt: skip


def correct_log(raw: Path) -> None:
    """Deliver a purchase of user `LATE` days after it was made, and remove one of user `WRONG`."""
    log = shop.events()
    day = log["event_ts"].dt.normalize()
    of_next = log[day == pd.Timestamp(NEXT)]
    old = pd.DataFrame(
        [(LATE, 3, pd.Timestamp(f"{CORRECTED} 01:02:03"), "late")], columns=list(of_next.columns)
    ).astype({"event_ts": "datetime64[us]"})
    shop.write_drop(raw, "events", NEXT, pd.concat([of_next.astype({"event_ts": "datetime64[us]"}), old]))
    corrected = log[day == pd.Timestamp(CORRECTED)]
    wrong = corrected[corrected["user_id"] == WRONG].index[0]
    shop.write_drop(
        raw, "events", CORRECTED, corrected.drop(index=wrong).astype({"event_ts": "datetime64[us]"})
    )


def assert_same(rows: list[dict[str, Any]], full: list[dict[str, Any]], merged: set[int]) -> None:
    """Check that rows are equal; the numbers of users in `merged` may differ in their last digits."""
    assert len(rows) == len(full)
    for mine, other in zip(rows, full, strict=True):
        close = ("state", "features", "decays", "checksum") if mine.get("user_id") in merged else ()
        assert {k: v for k, v in mine.items() if k not in close} == {
            k: v for k, v in other.items() if k not in close
        }
        for name in ("state", "features", "decays"):
            if name in close and name in mine:
                a, b = (np.frombuffer(row[name], "<f4") for row in (mine, other))
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_unchanged_night_computes_nothing(nights: dict[str, Any]) -> None:
    (bank, states), (again, same) = nights["built"]["first"], nights["built"]["again"]
    assert (bank.encoded, bank.kept) == (shop.ITEMS + 1, 0)
    assert (again.encoded, again.kept, again.removed) == (0, shop.ITEMS + 1, 0)
    assert again.versions["candidate_bank"] == bank.versions["candidate_bank"]  # no commit
    assert (states.recomputed, states.kept) == (shop.USERS, 0)
    assert (same.recomputed, same.kept, same.removed) == (0, shop.USERS, 0)
    assert same.versions == states.versions
    assert (same.events, same.cold_users) == (states.events, len(shop.COLD))


def bought_on(day: str) -> set[int]:
    log = shop.events()
    return set(log.loc[log["event_ts"].dt.normalize() == pd.Timestamp(day), "user_id"])


def test_the_next_night_computes_what_changed(nights: dict[str, Any]) -> None:
    bought = bought_on(shop.NIGHT)
    assert 0 < len(bought) < shop.USERS / 2
    bank, states = nights["built"]["next"]
    assert states.plan_reason == f"what changed since the build of night {shop.NIGHT} is read"
    # User 37 has a damaged row, and user 38 has other features.
    assert (states.merged, states.recomputed) == (len(bought - {37, 38}), 2)
    assert states.kept == shop.USERS - len(bought | {37, 38})
    # Item 3 is of another kind, item 7 has a damaged row, and item 9 has two rows.
    assert (bank.encoded, bank.kept) == (3, shop.ITEMS - 2)


def test_a_late_event_is_merged_and_a_lost_one_needs_the_complete_history(
    nights: dict[str, Any],
) -> None:
    _, states = nights["built"]["late"]
    assert states.recomputed == 1
    assert states.merged == len((bought_on(NEXT) | {LATE}) - {WRONG})
    # The night before rewrote the tables because of the damaged rows.
    assert nights["built"]["next"][1].patched == 0
    assert states.patched == states.merged + 1


def test_few_changes_leave_the_files_of_other_items_as_they_are(nights: dict[str, Any]) -> None:
    bank, _ = nights["built"]["late"]
    assert (bank.encoded, bank.kept, bank.removed) == (2, shop.ITEMS, 0)
    before, after = map(set, nights["files"])
    assert before < after
    past, _ = nights["built"]["past"]  # the new item was delivered later
    assert (past.encoded, past.kept, past.removed) == (1, shop.ITEMS, 1)


def test_incremental_builds_equal_full_builds(nights: dict[str, Any]) -> None:
    for ds in (THIRD, NEXT):
        bank, states = nights["built"][f"scratch {ds}"]
        assert (bank.kept, states.kept, states.merged) == (0, 0, 0)
    first, second = bought_on(shop.NIGHT), bought_on(NEXT) | {LATE}
    for name in BUILT:
        assert_same(nights["late"][name], nights["full"][THIRD][name], (first | second) - {WRONG})


def test_a_past_night_is_built_from_complete_histories_without_a_difference(
    nights: dict[str, Any],
) -> None:
    _, states = nights["built"]["past"]
    assert states.plan_reason == "every history is read: the stored states are of a later night"
    assert states.kept > 0
    merged = bought_on(shop.NIGHT) | {LATE}  # an earlier night merged their events
    for name in BUILT:
        assert_same(nights["past"][name], nights["full"][NEXT][name], merged)


def test_another_number_of_buckets_recomputes_every_user(nights: dict[str, Any]) -> None:
    bank, states = nights["built"]["split"]
    assert (bank.encoded, states.kept) == (0, 0)
    assert nights["buckets"] == {0, 1}
