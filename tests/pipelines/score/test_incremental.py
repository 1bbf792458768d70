"""Incremental nights through Spark and Delta give the lists of full nights for few of their pairs."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import functions as F

from pipelines.ingest.load_days import day_before
from pipelines.night import STEPS
from pipelines.publish.full_comparison import verify_full
from pipelines.publish.verify_night import CertificateFailed
from pipelines.score.base_night import describe_entries, find_base
from pipelines.score.forecast import plan_night
from pipelines.settings.night import Policy
from pipelines.steps import Job
from pipelines.store.leases import Run, acquire_lease, find_run
from pipelines.store.manifests import (
    AuditManifest,
    CertificateManifest,
    ForecastManifest,
    PolicyReport,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import need_manifest, record
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.nights import SCORED, day_of, items_of, point_at, with_night

pytestmark = pytest.mark.nights


class Scored(PolicyReport):
    """The report of a policy by scoring, with the strata of the certificate."""

    strata: dict[str, int]


def night(warehouse: Warehouse, ds: str, key: str = "night") -> Scored:
    """Score and certify a night, and compare its lists with those of a full one."""
    run = acquire_lease(warehouse, ds, key)
    for name in SCORED:
        STEPS[name](warehouse, run)
    report = need_manifest(warehouse, run, ScoreManifest).policies[warehouse.settings.night.policy.name]
    if report.plan_reason.startswith("incremental"):
        assert verify_full(warehouse, run).passed
    strata = need_manifest(warehouse, run, CertificateManifest).strata
    return Scored(**report.model_dump(), strata=strata)


def test_incremental_nights_equal_full_ones_and_score_little(
    shop_of_its_own: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = with_night(shop_of_its_own, k=5)
    rng = np.random.default_rng(1)
    first = night(warehouse, "2024-05-11")
    assert first.plan_reason == "full night: no earlier certified one"
    assert "reused" not in first.strata
    shares = []
    for number in range(2):
        day, ds = f"2024-05-{11 + number}", f"2024-05-{12 + number}"
        active = rng.choice(shop.USERS, 4, replace=False)
        events = [
            (int(u), int(i), f"{h:02}:00:00") for h, u in enumerate(active) for i in rng.choice(shop.ITEMS, 3)
        ]
        items_of(warehouse, day, {int(rng.integers(shop.ITEMS)): "kind-1", 500 + number: "kind-2"}, (number,))
        day_of(warehouse, day, events)
        before = plan_night(warehouse, Run(ds, "early"))
        scored = night(warehouse, ds)
        # This forecast uses the counts of the run's builds.
        after = plan_night(warehouse, find_run(warehouse, ds, "night"))
        check_forecasts(before, after, scored)
        assert scored.plan_reason.startswith("incremental night: from run")
        assert scored.strata["reused"] == warehouse.settings.night.certificate_users // 2
        shares.append(scored.pairs / (scored.pairs + scored.pairs_avoided))
    assert np.mean(shares) < 0.5
    monkeypatch.setattr("pipelines.score.base_night.MAX_ANCHORS", 1)
    # The anchor of most users is the first night, which is no longer known.
    few = night(warehouse, "2024-05-14")
    assert few.plan_reason == "incremental night: from run 2024-05-13.1"
    assert few.pairs > few.pairs_avoided > 0


def check_forecasts(before: ForecastManifest, after: ForecastManifest, scored: Scored) -> None:
    """Check forecasts of a night after four users were active and some items changed."""
    for forecast in (before, after):
        assert forecast.plan_reason == scored.plan_reason
        assert forecast.users == shop.USERS
        assert 1 <= forecast.changed <= 5  # items that are new, changed, or changed back
        assert 4 <= forecast.in_full < shop.USERS
        assert forecast.taken_over_per_second > 0
        assert forecast.pairs + forecast.pairs_avoided == forecast.users * forecast.candidates
    assert (after.changed, after.pairs) == (before.changed, before.pairs)
    # Users who are not active and have no room left in their lists are few.
    assert after.pairs / scored.pairs == pytest.approx(1.0, abs=0.6)


def test_lists_are_taken_over_after_lapses_corrections_and_missing_nights(
    shop_of_its_own: Warehouse,
) -> None:
    """The model is LIME-XOR, and the exclusions of the policy end after three days."""
    policy = Policy(name="fresh", exclude_seen=3, eligible="kind IS NOT NULL OR kind IS NULL")
    warehouse = with_night(shop_of_its_own, k=5, policy=policy, model="xor")
    night(warehouse, "2024-05-08")
    plans = [night(warehouse, "2024-05-09")]
    # A correction replaces the events of that day.
    day_of(warehouse, "2024-05-09", [(1, 7, "08:00:00")])
    plans += [night(warehouse, ds) for ds in ("2024-05-10", "2024-05-13")]  # two nights are missing
    assert all(plan.plan_reason.startswith("incremental") for plan in plans)
    assert all(plan.pairs_avoided > plan.pairs for plan in plans[:1])
    back = night(warehouse, "2024-05-09", "again")  # a past night starts from the night before it
    assert back.plan_reason == "incremental night: from run 2024-05-08.1"


def test_a_user_whose_state_has_other_last_digits_is_scored_again(
    shop_of_its_own: Warehouse,
) -> None:
    """A past night reads a complete history that an earlier build had merged, and its last digits differ."""
    warehouse = with_night(shop_of_its_own, k=5)

    def run_to(ds: str, key: str, user: int | None) -> Run:
        if user is not None:
            day_of(warehouse, day_before(ds), [(user, item, f"{item:02}:00:00") for item in range(8, 16)])
        run = acquire_lease(warehouse, ds, key)
        for name in SCORED:
            STEPS[name](warehouse, run)
        return run

    for ds, user in (("2024-05-11", None), ("2024-05-12", 3), ("2024-05-13", None), ("2024-05-14", 3)):
        run_to(ds, "night", user)
    merged = need_manifest(warehouse, Run("2024-05-12", "night", 1), StatesManifest)
    assert merged.merged == 1
    again = run_to("2024-05-13", "again", None)
    assert need_manifest(warehouse, again, StatesManifest).recomputed >= 1
    plan = need_manifest(warehouse, again, ScoreManifest).policies["all"].plan_reason
    assert plan == "incremental night: from run 2024-05-12.1"
    assert verify_full(warehouse, again).passed


def test_users_whose_lists_cannot_be_taken_over_are_scored_in_full(shop_of_its_own: Warehouse) -> None:
    warehouse = with_night(shop_of_its_own, k=5)
    night(warehouse, "2024-05-11")
    other = night(with_night(warehouse, k=6), "2024-05-12")
    assert other.plan_reason == "full night: k, entries changed since run 2024-05-11.1"
    back = night(warehouse, "2024-05-13")  # it starts from the newest comparable run
    assert back.plan_reason == "incremental night: from run 2024-05-11.1"
    assert back.pairs_avoided > 0
    quiet = night(with_night(warehouse, reuse=False), "2024-05-14")
    assert quiet.plan_reason == "full night: night.reuse is false"
    warehouse.delta("staging").update(F.col("run_id") == "2024-05-14.1", {"tau": F.lit(-99.0).cast("float")})
    scored = acquire_lease(warehouse, "2024-05-14", "night")
    point_at(warehouse, scored, ScoreManifest, "staging")
    damaged = night(warehouse, "2024-05-15")
    assert damaged.plan_reason == "incremental night: from run 2024-05-14.1"
    assert damaged.pairs_avoided == 0  # the checksum of every row was wrong
    assert damaged.pairs == quiet.pairs


def test_a_list_that_differs_from_the_full_night_is_disproved(shop_of_its_own: Warehouse) -> None:
    warehouse = with_night(shop_of_its_own, k=5)
    run, built_on_it = (acquire_lease(warehouse, ds, "night") for ds in ("2024-05-11", "2024-05-12"))
    for each in (run, built_on_it):
        for name in SCORED:
            STEPS[name](warehouse, each)
    mine = (F.col("run_id") == run.run_id) & (F.col("user_id") == 3)
    warehouse.delta("staging").update(mine, {"candidates": F.slice("candidates", 1, 4)})
    point_at(warehouse, run, ScoreManifest, "staging")
    publish_after_audits(warehouse, run)
    with pytest.raises(
        CertificateFailed,
        match=r"1 of 40 lists are not those of a full night, such as user 3.* Readers of night 2024-05-11 "
        rf"are served the lists of run {run.run_id}, which is disproved .* --from {run.run_id} --reason …, "
        r"which withdraws the night, as no other run published it; .* then export the night again",
    ):
        verify_full(warehouse, run)
    with pytest.raises(CertificateFailed, match=r"are not those of a full night .*nothing was published"):
        publish_after_audits(warehouse, built_on_it)
    later = acquire_lease(warehouse, "2024-05-13", "night")
    rules = describe_entries(warehouse, "any", warehouse.settings.night.policy)
    assert find_base(warehouse, later, rules) == (None, "full night: no earlier certified one")


def publish_after_audits(warehouse: Warehouse, run: Run) -> None:
    """Publish a run as if it had passed the audits."""
    record(warehouse, run.run_id, run.ds, AuditManifest(checks=[]))
    STEPS[Job.PUBLISH_RECOMMENDATIONS](warehouse, run)
