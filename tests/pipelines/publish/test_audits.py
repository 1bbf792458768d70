"""Each audit blocks: staged rows are spoiled in the matching way, and the last lists stay published."""

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
BANNED = 3  # of this kind nothing is eligible
ALL = "true"


def audited(warehouse: Warehouse, **limits: Any) -> Warehouse:
    """Under a policy that excludes something of everything, and with other limits."""
    policy = Policy(name="strict", exclude_seen=14, eligible=f"kind <> 'kind-{BANNED}'")
    night = warehouse.settings.night.model_copy(update={"policy": policy})
    audits = AuditSettings(**{"min_segment_users": 20, **limits})
    settings: Settings = warehouse.settings.model_copy(update={"night": night, "audits": audits})
    return Warehouse(warehouse.spark, settings)


@pytest.fixture(scope="module")
def staged(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Run]:
    """A published night, and the next one scored and certified."""
    warehouse = audited(copy_log(trained, tmp_path_factory.mktemp("audits")))
    full_night(warehouse, "before", BEFORE)
    run = acquire_lease(warehouse, NIGHT, "audited")
    for name in ("build_candidate_bank", "build_link_states", "score_candidates", "verify_night"):
        STEPS[name](warehouse, run)
    return warehouse, run


@pytest.fixture
def spoil(staged: tuple[Warehouse, Run]) -> Iterator[Callable[..., None]]:
    """Changes staged rows of the run: `spoil(where, column=value)`; put right again afterwards."""
    warehouse, run = staged
    before = warehouse.version("staging")

    def change(where: str, **values: str) -> None:
        warehouse.delta("staging").update(f"run_id = '{run.run_id}' AND {where}", values)
        point_at(warehouse, run, ScoreManifest, "staging")

    yield change
    warehouse.delta("staging").restoreToVersion(before)
    point_at(warehouse, run, ScoreManifest, "staging")


def candidates(item: str = "c.item_id", score: str = "c.score") -> str:
    """The list with other items or scores, in SQL of `c` and of its place `i`."""
    return f"transform(candidates, (c, i) -> struct({item} AS item_id, cast({score} AS float) AS score))"


NONE = {"candidates": "slice(candidates, 1, 0)", "shortfall": "10", "fault": "'damaged'"}
# Of a user each: what is done to the row, and which audits must count it, once.
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
    """Audits that do not hold, with their values, of a run that must not be published."""
    with pytest.raises(AuditFailed, match=r"is .*, limit .*nothing was published, the last lists stand"):
        audit_recommendations(warehouse, run)
    with pytest.raises(MissingTable, match="audit_recommendations has not finished"):
        publish_recommendations(warehouse, run)
    report = find_manifest(warehouse, run.run_id, FailedAuditManifest)
    assert report is not None
    return {check.name: check.value for check in report.checks if not check.holds}


def test_each_spoiled_row_is_counted_and_the_last_lists_stand(
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
    # The list handed to user 20 beside its own holds what that user has seen, or not.
    assert found.pop("seen_items") in (1, 2)
    assert found.keys() == counts.keys() - {"seen_items"}
    assert {name: counts[name] for name in found} == found
    assert lists_of(warehouse, BEFORE) == expected
    assert lists_of(warehouse, NIGHT) == {}


def take_recently(warehouse: Warehouse, user: int) -> int:
    """An eligible item that the user took inside the policy's window."""
    rows = warehouse.read("events").where(f"user_id = {user} AND event_ts < '{NIGHT}' AND ds >= '2024-04-24'")
    taken = [row["item_id"] for row in rows.collect()]
    return next(item for item in taken if item % shop.KINDS != BANNED and item != shop.UNLISTED)


def test_a_night_gone_wrong_by_degree_is_blocked(
    staged: tuple[Warehouse, Run], spoil: Callable[..., None]
) -> None:
    """Everybody gets one item ten times, with other scores; a fifth of the users get nothing."""
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


def test_an_override_is_for_one_night_and_recorded(staged: tuple[Warehouse, Run]) -> None:
    """Then the night publishes, and says what was overridden and why."""
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
    assert publish_recommendations(lenient, run).audits.overridden == report.overridden
    assert sorted(lists_of(warehouse, NIGHT)) == list(range(shop.USERS))


def test_nothing_holds_that_is_not_a_number() -> None:
    assert not Check("psi", float("nan"), 0.25).holds
    assert not Check("jaccard", float("nan"), 0.3, upper=False).holds
