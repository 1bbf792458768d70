"""Random sequences of nights through Spark and Delta; each night is killed at a commit and then retried.

The code that keeps entries is tested with hundreds of sequences in
tests/lime_model/scoring/test_kept_entries.py; these few sequences use real tables and commits.
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
from pipelines.steps import Job
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
    """The process is killed; no handler of ordinary errors catches this."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[str]]:
    """Kill the process right after so many commits; the yielded list then names the table of the last."""
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
    """Change the items and add the events of a day, and sometimes correct the day before."""
    users = rng.choice(shop.USERS, 4, replace=False)
    today = [
        (int(u), int(i), f"{h:02}:00:00") for h, u in enumerate(users) for i in rng.choice(shop.ITEMS, 2)
    ]
    kinds = {int(rng.integers(shop.ITEMS)): f"kind-{rng.integers(shop.KINDS)}", 500 + day.day: "kind-2"}
    items_of(warehouse, str(day), kinds, tuple(int(i) for i in rng.choice(shop.ITEMS, 2)))
    if rng.random() < 0.5:  # the correction loses the events of the day before and adds a late one
        before = (int(rng.integers(shop.USERS)), int(rng.integers(shop.ITEMS)), "12:00:00")
        day_of(warehouse, str(day - dt.timedelta(days=1)), [before])
    day_of(warehouse, str(day), today)


def run_night(warehouse: Warehouse, ds: str) -> None:
    run = acquire_lease(warehouse, ds, "night")
    for name in SCORED:
        STEPS[name](warehouse, run)


# Each of `deaths` is the number of commits after which a night is killed, and the table of the last commit.
# Some leave one of the two tables of states unwritten, or a part of the lists unstaged.
@pytest.mark.parametrize(
    ("seed", "model", "deaths"),
    [
        (1, "mha", [(5, "user_link_states"), (11, "staging")]),
        (2, "mha", [(1, "leases"), (7, "runs")]),
        (3, "xor", [(5, "user_link_states"), (9, "candidate_history")]),
    ],
)
def test_every_retried_night_equals_a_full_one(
    shop_of_its_own: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    model: str,
    deaths: list[tuple[int, str]],
) -> None:
    rng, own = np.random.default_rng(seed), shop_of_its_own
    policy = Policy(name="some", exclude_seen="all" if seed == 1 else 3, eligible="kind <> 'kind-5'")

    def fresh(k: int) -> Warehouse:
        """Open the shop as a new process does."""
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


def test_every_history_is_read_after_an_unfinished_build_and_a_vacuum(
    shop_of_its_own: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vacuum removes files of the last finished build; the unfinished one wrote one of two tables."""
    warehouse = with_night(shop_of_its_own, k=5)
    run_night(warehouse, "2024-05-11")
    day_of(warehouse, "2024-05-11", [(1, 7, "08:00:00"), (2, 9, "09:00:00")])
    # Another writer changed the table, so the build rewrites it.
    warehouse.delta("user_link_states").update(F.col("user_id") == 3, {"events_version": F.lit(0)})
    run = acquire_lease(warehouse, "2024-05-12", "night")
    STEPS[Job.BUILD_CANDIDATE_BANK](warehouse, run)
    with dying(monkeypatch, 1) as died:
        STEPS[Job.BUILD_LINK_STATES](warehouse, run)
    assert died == ["user_link_states"]
    assert vacuum(warehouse, "user_link_states", 0, []) > 0
    warehouse = with_night(reopen(shop_of_its_own), k=5)
    run_night(warehouse, "2024-05-12")
    states = need_manifest(warehouse, acquire_lease(warehouse, "2024-05-12", "night"), StatesManifest)
    assert states.plan_reason.startswith("every history is read: files of user_link_states are gone")
    assert histories(warehouse, states) == log_of(warehouse, "2024-05-12", states, "mha")


def reopen(warehouse: Warehouse) -> Warehouse:
    """Open the same shop as a new process does."""
    return removing(open_shop(warehouse.spark, Path(warehouse.settings.drops).parent))


def histories(warehouse: Warehouse, states: StatesManifest) -> dict[int, tuple[int, ...]]:
    """Return the histories that the stored states were computed from, by user."""
    rows = warehouse.read("user_link_states", states.versions["user_link_states"])
    rows = rows.where(f"model_version = '{states.model_version}' AND event_count > 0")
    found = rows.select("user_id", "event_count", "history_xor", "history_sum").collect()
    return {row[0]: tuple(row[1:]) for row in found}


def log_of(warehouse: Warehouse, ds: str, states: StatesManifest, model: str) -> dict[int, tuple[int, ...]]:
    """Count the histories of the complete log again, by user."""
    bundle = load_bundle(bundle_folder(warehouse, model))
    rows = read_histories(warehouse, ds, states.versions["events"], bundle)
    return {
        row[0]: tuple(row[1:])
        for row in rows.select("user_id", "events", "history_xor", "history_sum").collect()
    }
