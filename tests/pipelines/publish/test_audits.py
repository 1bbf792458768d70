"""Each audit stops a night whose staged rows were changed, and the last lists remain in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from pipelines.night import STEPS
from pipelines.publish.audits import AuditFailed, Check, audit_recommendations
from pipelines.publish.publish import publish_recommendations
from pipelines.settings.night import AuditSettings, Override, Policy, SoftCheck
from pipelines.settings.settings import Settings
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.manifests import FailedAuditManifest, ScoreManifest
from pipelines.store.runs import find_manifest
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable
from synthetic import shop
from tests.conftest import copy_log
from tests.nights import full_night, lists_of, point_at

pytestmark = pytest.mark.operate
BEFORE, NIGHT = "2024-05-07", "2024-05-08"
BANNED = 3  # no item of this kind is eligible
ALL = "true"


def audited(warehouse: Warehouse, **limits: Any) -> Warehouse:
    """Return the same tables under a policy with an exclusion and a rule, and with other limits."""
    policy = Policy(name="strict", exclude_seen=14, eligible=f"kind <> 'kind-{BANNED}'")
    night = warehouse.settings.night.model_copy(update={"policy": policy})
    audits = AuditSettings(**{"min_segment_users": 20, **limits})
    settings: Settings = warehouse.settings.model_copy(update={"night": night, "audits": audits})
    return Warehouse(warehouse.spark, settings)


@pytest.fixture(scope="module")
def staged(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Run]:
    """Publish a night, and score and certify the next one."""
    warehouse = audited(copy_log(trained, tmp_path_factory.mktemp("audits")))
    full_night(warehouse, "before", BEFORE)
    run = acquire_lease(warehouse, NIGHT, "audited")
    for name in ("build_candidate_bank", "build_link_states", "score_candidates", "verify_night"):
        STEPS[name](warehouse, run)
    return warehouse, run


@pytest.fixture
def spoil(staged: tuple[Warehouse, Run]) -> Iterator[Callable[..., None]]:
    """Return a function that changes staged rows, `spoil(where, column=value)`; restore them afterwards."""
    warehouse, run = staged
    before = warehouse.version("staging")

    def change(where: str, **values: str) -> None:
        warehouse.delta("staging").update(f"run_id = '{run.run_id}' AND {where}", values)
        point_at(warehouse, run, ScoreManifest, "staging")

    yield change
    warehouse.delta("staging").restoreToVersion(before)
    point_at(warehouse, run, ScoreManifest, "staging")


def candidates(item: str = "c.item_id", score: str = "c.score") -> str:
    """Return SQL for a list with other items or scores, from an entry `c` and its place `i`."""
    return f"transform(candidates, (c, i) -> struct({item} AS item_id, cast({score} AS float) AS score))"


NONE = {"candidates": "slice(candidates, 1, 0)", "shortfall": "10", "fault": "'damaged'"}
# Each entry changes the row of another user; the named audits must count it once.
SPOILED: list[tuple[dict[str, str], set[str]]] = [
    ({"run_id": "'gone'"}, {"missing_users"}),
    ({"user_id": "12345"}, {"missing_users", "unknown_users"}),
    ({"user_id": "20"}, {"missing_users", "repeated_users"}),
    ({"candidates": "slice(candidates, 1, 7)", "shortfall": "3"}, {"unexplained_lists"}),
    ({"candidates": "slice(candidates, 1, 9)"}, {"unexplained_lists"}),
    ({"candidates": candidates("if(i = 1, candidates[0].item_id, c.item_id)")}, {"repeated_items"}),
    ({"candidates": candidates(score="candidates[9 - i].score")}, {"out_of_order"}),
    ({"candidates": candidates(score="if(i = 0, double('nan'), c.score)")}, {"non_finite"}),
    ({"candidates": candidates(score="if(i = 0, double('infinity'), c.score)")}, {"non_finite"}),
    ({"candidates": candidates(f"if(i = 9, {BANNED}, c.item_id)")}, {"ineligible_items"}),
]


def failing(warehouse: Warehouse, run: Run) -> dict[str, float]:
    """Check that the audits stop a run; return the names and values of those that failed."""
    with pytest.raises(AuditFailed, match=r"is .*, limit .*nothing was published, the last lists remain"):
        audit_recommendations(warehouse, run)
    with pytest.raises(MissingTable, match="audit_recommendations has not finished"):
        publish_recommendations(warehouse, run)
    report = find_manifest(warehouse, run.run_id, FailedAuditManifest)
    assert report is not None
    return {check.name: check.value for check in report.checks if not check.holds}


def test_each_changed_row_is_counted_and_the_last_lists_remain_in_force(
    staged: tuple[Warehouse, Run], spoil: Callable[..., None]
) -> None:
    warehouse, run = staged
    expected = lists_of(warehouse, BEFORE)
    seen = take_recently(warehouse, user=10)
    low = candidates(f"if(i = 9, {seen}, c.item_id)", "if(i = 9, c.score - 1, c.score)")
    cases = [*SPOILED, ({"candidates": low}, {"seen_items"})]
    for user, (values, _) in enumerate(cases):
        spoil(f"user_id = {user}", **values)
    found = failing(warehouse, run)
    counts = Counter(name for _, names in cases for name in names)
    # User 20 got a second list, which may hold an item that this user has seen.
    assert found.pop("seen_items") in (1, 2)
    assert found.keys() == counts.keys() - {"seen_items"}
    assert {name: counts[name] for name in found} == found
    assert lists_of(warehouse, BEFORE) == expected
    assert lists_of(warehouse, NIGHT) == {}


def take_recently(warehouse: Warehouse, user: int) -> int:
    """Return an eligible item that the user took within the window of the policy."""
    rows = warehouse.read("events").where(f"user_id = {user} AND event_ts < '{NIGHT}' AND ds >= '2024-04-24'")
    taken = [row["item_id"] for row in rows.collect()]
    return next(item for item in taken if item % shop.KINDS != BANNED and item != shop.UNLISTED)


def test_a_night_that_breaks_the_limits_of_the_settings_is_stopped(
    staged: tuple[Warehouse, Run], spoil: Callable[..., None]
) -> None:
    """Every user gets one item ten times, with other scores, or, for a fifth of the users, an empty list."""
    warehouse, run = staged
    strict = audited(warehouse, max_cold_share=0.05, min_item_coverage=0.05)
    spoil(ALL, candidates=candidates("0", "c.score + 3"))
    spoil("user_id < 8", **NONE)
    found = failing(strict, run)
    by_degree = get_args(SoftCheck)
    assert set(by_degree) <= found.keys()
    assert found["short_share"] == found["left_out_share"] == 8 / shop.USERS
    assert found["cold_share"] == len(shop.COLD) / shop.USERS
    assert found["top_share"] == 1.0
    assert found["psi"] > 0.25
    assert max(found["jaccard"], found["rank_biased_overlap"]) < 0.3


def test_an_override_holds_for_one_night_and_is_recorded(staged: tuple[Warehouse, Run]) -> None:
    """With the override the night is published, and its manifest has the reason."""
    warehouse, run = staged
    other = Override(night="2024-05-09", check="cold_share", reason="registration campaign")
    with pytest.raises(AuditFailed, match="cold_share"):
        audit_recommendations(audited(warehouse, max_cold_share=0.01, overrides=[other]), run)
    mine = other.model_copy(update={"night": Override(night=NIGHT, check="psi", reason="0123456789").night})
    lenient = audited(warehouse, max_cold_share=0.01, overrides=[mine])
    report = audit_recommendations(lenient, run)
    assert report.overridden == {"cold_share": "registration campaign"}
    assert report.compared_with == BEFORE
    assert {check.segment for check in report.checks} == {"all", "active"}
    assert report.segments["cold"].users == len(shop.COLD)
    assert sum(each.users for each in report.segments.values()) == shop.USERS
    assert publish_recommendations(lenient, run).audits.overridden == report.overridden
    assert sorted(lists_of(warehouse, NIGHT)) == list(range(shop.USERS))


def test_an_audit_whose_value_is_nan_fails() -> None:
    assert not Check("psi", float("nan"), 0.25).holds
    assert not Check("jaccard", float("nan"), 0.3, upper=False).holds
