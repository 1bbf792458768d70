"""Random sequences of nights through Spark and Delta, each cut off somewhere and gone on with.

The bookkeeping itself meets hundreds of sequences in tests/lime_model/scoring/test_kept_entries.py; these few
go through real tables and commits.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from lime_model.bundle import load_bundle
from pipelines.build.history_changes import read_histories
from pipelines.night import STEPS
from pipelines.operate.upkeep import vacuum
from pipelines.publish.full_comparison import verify_full
from pipelines.settings.night import Policy
from pipelines.store.leases import acquire_lease
from pipelines.store.manifests import ScoreManifest, StatesManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import bundle_folder, open_shop
from tests.nights import SCORED, day_of, items_of, removing, with_night

pytestmark = [pytest.mark.nights, pytest.mark.usefixtures("in_place")]
START, NIGHTS = dt.date(2024, 5, 11), 3
COMMITS = ("replace", "append", "upsert")


class Died(BaseException):
    """The process was killed, as far as it knows."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[str]]:
    """Inside, the process dies right after so many commits; yields the table of the last, once it has."""
    left, died = [after], []

    def cut(method: str) -> None:
        real = getattr(Warehouse, method)

        def call(self: Warehouse, *args: Any, **more: Any) -> Any:
            done = real(self, *args, **more)
            left[0] -= 1
            if left[0] == 0:
                died.append(str(args[0]))
                raise Died
            return done

        monkeypatch.setattr(Warehouse, method, call)

    for method in COMMITS:
        cut(method)
    try:
        yield died
    except Died:
        pass
    finally:
        monkeypatch.undo()


def happen(warehouse: Warehouse, rng: np.random.Generator, day: dt.date) -> None:
    """What a day brings: events of some users, at times a late one or a correction; items change."""
    users = rng.choice(shop.USERS, 4, replace=False)
    today = [
        (int(u), int(i), f"{h:02}:00:00") for h, u in enumerate(users) for i in rng.choice(shop.ITEMS, 2)
    ]
    kinds = {int(rng.integers(shop.ITEMS)): f"kind-{rng.integers(shop.KINDS)}", 500 + day.day: "kind-2"}
    items_of(warehouse, str(day), kinds, tuple(int(i) for i in rng.choice(shop.ITEMS, 2)))
    if rng.random() < 0.5:  # instead of what the day before held: events are lost, and one comes late
        before = (int(rng.integers(shop.USERS)), int(rng.integers(shop.ITEMS)), "12:00:00")
        day_of(warehouse, str(day - dt.timedelta(days=1)), [before])
    day_of(warehouse, str(day), today)


def run_night(warehouse: Warehouse, ds: str) -> None:
    run = acquire_lease(warehouse, ds, "night")
    for name in SCORED:
        STEPS[name](warehouse, run)


# After how many commits a night dies, and of which table the last is: among them those that leave a build of
# states, and the staged lists, in two parts.
@pytest.mark.parametrize(
    ("seed", "model", "deaths"),
    [
        (1, "mha", [(5, "user_link_states"), (11, "staging")]),
        (2, "mha", [(1, "leases"), (7, "runs")]),
        (3, "xor", [(5, "user_link_states"), (9, "candidate_history")]),
    ],
)
def test_every_night_is_that_of_a_full_one(
    shop_of_its_own: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    model: str,
    deaths: list[tuple[int, str]],
) -> None:
    rng, own = np.random.default_rng(seed), shop_of_its_own
    policy = Policy(name="some", exclude_seen="all" if seed == 1 else 3, eligible="kind <> 'kind-5'")

    def fresh(k: int) -> Warehouse:
        """What a new process knows."""
        return with_night(reopen(own), k=k, policy=policy, model=model, units_per_commit=2)

    for number in range(NIGHTS):
        day = START + dt.timedelta(days=number)
        ds = str(day + dt.timedelta(days=1))
        k = 6 if number == NIGHTS - 1 and seed == 2 else 5
        happen(fresh(k), rng, day)
        if number:
            after, table = deaths[number - 1]
            with dying(monkeypatch, after) as died:
                run_night(fresh(k), ds)
            assert died == [table]
        warehouse = fresh(k)
        run_night(warehouse, ds)
        run = acquire_lease(warehouse, ds, "night")
        assert verify_full(warehouse, run).passed
        states = need_manifest(warehouse, run, StatesManifest)
        assert histories(warehouse, states) == log_of(warehouse, ds, states, model)
        plan = need_manifest(warehouse, run, ScoreManifest).policies["some"].plan_reason
        assert plan.startswith("full night" if number == 0 or k == 6 else "incremental night"), plan


def test_a_build_that_never_finished_and_upkeep_leave_a_night_that_reads_every_history(
    shop_of_its_own: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the last finished build had written is gone, and what the other wrote is one table of two."""
    warehouse = with_night(shop_of_its_own, k=5)
    run_night(warehouse, "2024-05-11")
    day_of(warehouse, "2024-05-11", [(1, 7, "08:00:00"), (2, 9, "09:00:00")])
    # Another writer came to the table, so it is written whole.
    warehouse.delta("user_link_states").update(F.col("user_id") == 3, {"events_version": F.lit(0)})
    run = acquire_lease(warehouse, "2024-05-12", "night")
    STEPS["build_candidate_bank"](warehouse, run)
    with dying(monkeypatch, 1) as died:
        STEPS["build_link_states"](warehouse, run)
    assert died == ["user_link_states"]
    assert vacuum(warehouse, "user_link_states", 0, []) > 0
    warehouse = with_night(reopen(shop_of_its_own), k=5)
    run_night(warehouse, "2024-05-12")
    states = need_manifest(warehouse, acquire_lease(warehouse, "2024-05-12", "night"), StatesManifest)
    assert states.plan_reason.startswith("every history is read: files of user_link_states are gone")
    assert histories(warehouse, states) == log_of(warehouse, "2024-05-12", states, "mha")


def reopen(warehouse: Warehouse) -> Warehouse:
    """The same shop, as a new process knows it."""
    return removing(open_shop(warehouse.spark, Path(warehouse.settings.drops).parent))


def histories(warehouse: Warehouse, states: StatesManifest) -> dict[int, tuple[int, ...]]:
    """What the stored states say they have read."""
    rows = warehouse.read("user_link_states", states.versions["user_link_states"])
    rows = rows.where(f"model_version = '{states.model_version}' AND event_count > 0")
    found = rows.select("user_id", "event_count", "history_xor", "history_sum").collect()
    return {row[0]: tuple(row[1:]) for row in found}


def log_of(warehouse: Warehouse, ds: str, states: StatesManifest, model: str) -> dict[int, tuple[int, ...]]:
    """The same of the whole log, read again."""
    bundle = load_bundle(bundle_folder(warehouse, model))
    rows = read_histories(warehouse, ds, states.versions["events"], bundle)
    return {
        row[0]: tuple(row[1:])
        for row in rows.select("user_id", "events", "history_xor", "history_sum").collect()
    }
