"""Audit the staged lists: check the rules of every night, and compare them with the last published night.

Some audits must always hold (every user once, K items or a reported shortfall, in order, finite, eligible,
unseen, certified). Others compare a number with a limit of the settings (drift, churn, concentration). A
night that breaks such a limit may be published all the same, for a reason that the manifest records.

The exact audits count all rows. Drift and churn are measured on a sample of users, separately for each
segment.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from lime_model.measure.drift import jaccard, population_stability, rank_biased_overlap
from pipelines.models.pinned_inputs import NightInputs
from pipelines.policies.sql import eligible_bit, seen_items
from pipelines.publish.verify_night import user_segment
from pipelines.schemas import DS, ITEM_ID, MODEL_VERSION, POLICY, RUN_ID, USER_ID, VALID_FROM, VALID_TO
from pipelines.settings.night import AuditSettings, SoftCheck
from pipelines.store.catalogue import read_versions
from pipelines.store.frames import persisted
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    AuditManifest,
    BankManifest,
    CertificateManifest,
    CheckReport,
    FailedAuditManifest,
    ScoreManifest,
    SegmentReport,
    StatesManifest,
)
from pipelines.store.runs import need_manifest, record, run_once
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)

SAMPLED_ITEMS = 4_000_000  # the total length of the lists on which drift and churn of a night are measured
SLOTS = 1 << 20  # the number of values of the hash that draws the sample
SEGMENTS = ("cold", "active", "idle")  # as `user_segment` names them
# What may be true of no row at all.
FORBIDDEN = (
    "missing_users", "unknown_users", "unexplained_lists", "repeated_items", "out_of_order", "non_finite",
    "seen_items",
)  # fmt: skip


class AuditFailed(LimeError):
    """The staged lists must not be published."""


class Check(NamedTuple):
    """One audit of one segment of users: `limit` is the largest value that passes (`upper`), or the least."""

    name: str
    value: float
    limit: float
    upper: bool = True
    segment: str = "all"

    @property
    def holds(self) -> bool:
        """Whether the value respects the limit; NaN never does."""
        return bool(self.value <= self.limit if self.upper else self.value >= self.limit)

    def __str__(self) -> str:
        about = "" if self.segment == "all" else f" of {self.segment} users"
        return f"{self.name}{about} is {self.value:.6g}, limit {'<=' if self.upper else '>='} {self.limit:g}"


class AuditedNight(NamedTuple):
    """The staged lists of a night, and what they are audited against."""

    rows: DataFrame  # the staged lists of the published policy
    users: DataFrame  # USER_ID, segment, and seen: the items that the policy excludes
    inputs: NightInputs
    k: int
    items: int  # the number of items that are eligible and not left out
    max_damaged_share: float


def audit_recommendations(warehouse: Warehouse, run: Run) -> AuditManifest:
    """Audit the staged lists of the published policy.

    Raises:
        AuditFailed: an audit failed; the message names check, value and limit, and the report is in `runs`
            under the job `failed_audit`.
        MissingTable: the run was not scored or not certified.
    """

    def work() -> AuditManifest:
        night, limits = _read_audited_night(warehouse, run), warehouse.settings.audits
        counts = count_rows(night)
        checks = [
            check_certificate(need_manifest(warehouse, run, CertificateManifest)),
            *check_rows(counts, night.max_damaged_share, limits),
            *check_items(night, _bias(warehouse, run, night.inputs), limits),
            check_withdrawn(warehouse, run, night),
        ]
        before = last_published(warehouse, run.ds)
        if before is not None:
            checks += [
                *check_served(warehouse, night, before, limits),
                *check_drift(warehouse, run, night, before, limits),
            ]
        reasons: dict[str, str] = {o.check: o.reason for o in limits.overrides if str(o.night) == run.ds}
        failed = [check for check in checks if not check.holds]
        overridden = {c.name: reasons[c.name] for c in failed if c.name in reasons}
        report = AuditManifest(
            compared_with=before,
            checks=[CheckReport(**check._asdict(), holds=check.holds) for check in checks],
            overridden=overridden,
            segments=_report_segments(counts),
        )
        if stopping := [check for check in failed if check.name not in reasons]:
            record(warehouse, run.run_id, run.ds, FailedAuditManifest(**dict(report)))
            raise AuditFailed(_explain(run, stopping, before))
        for name, reason in overridden.items():
            log.warning("audit %s of night %s does not hold and is overridden: %s", name, run.ds, reason)
        return report

    return run_once(warehouse, run, AuditManifest, work)


def _explain(run: Run, failed: Sequence[Check], before: str | None) -> str:
    soft = [check.name for check in failed if check.name in get_args(SoftCheck)]
    remedy = (
        f"If this is right for {run.ds}, say so in audits.overrides "
        f"(night: {run.ds}, check: {soft[0]}, reason: …) and run the job again"
        if len(soft) == len(failed)
        else "Score the night again under a new --run-key"
    )
    return (
        f"night {run.ds}, run {run.key!r}: {'; '.join(map(str, failed))} (compared with night {before}); "
        f"nothing was published, the last lists remain in force, the staged rows are kept under "
        f"run_id {run.run_id}. " + remedy
    )


def _read_audited_night(warehouse: Warehouse, run: Run) -> AuditedNight:
    inputs, scored = NightInputs.of(warehouse, run), need_manifest(warehouse, run, ScoreManifest)
    policy, night = warehouse.settings.night.policy, warehouse.settings.night
    mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy.name)
    of_model = F.col(MODEL_VERSION) == inputs.model_version
    states = warehouse.read("user_link_states", inputs.states).where(of_model)
    memory = warehouse.read("user_memory", inputs.memory).where(of_model)
    users = states.select(USER_ID, user_segment(run.ds).alias("segment")).join(
        memory.select(USER_ID, seen_items(policy.exclude_seen, run.ds).alias("seen")), USER_ID, "left"
    )
    eligible = need_manifest(warehouse, run, BankManifest).eligible[policy.name]
    items = eligible - scored.items_left_out
    rows = warehouse.read("staging", scored.versions["staging"]).where(mine)
    return AuditedNight(rows, users, inputs, night.k, items, night.max_damaged_share)


def check_certificate(certificate: CertificateManifest) -> Check:
    """Check that the sampled proof of exactness has passed."""
    return Check("certificate", float(certificate.passed), 1.0, upper=False)


def count_rows(night: AuditedNight) -> dict[str, int]:
    """Count the rows and users, the rows of each case that must not be, and the users of each segment."""
    both = night.users.join(night.rows.withColumn("staged", F.lit(1)), USER_ID, "full_outer")
    listed = F.col("candidates.item_id")
    size, excluded = (F.coalesce(F.size(name), F.lit(0)) for name in ("candidates", "seen"))
    at_least = F.least(F.lit(night.k), night.items - excluded)
    staged, healthy = F.col("staged").isNotNull(), F.col("fault").isNull()
    cases = {
        "missing_users": ~staged,
        "unknown_users": F.col("segment").isNull(),
        "unexplained_lists": staged
        & ((size + F.col("shortfall") != night.k) | (healthy & (size < at_least)) | (~healthy & (size > 0))),
        "repeated_items": F.size(F.array_distinct(listed)) < size,
        "out_of_order": _out_of_order(),
        "non_finite": F.exists("candidates", lambda c: c["score"].isNull() | ~(F.abs(c["score"]) < np.inf)),
        "seen_items": F.size(F.array_intersect(listed, "seen")) > 0,
    }
    short = F.col("shortfall") > 0
    shares = {"short": short, "left_out": ~healthy}
    for name in SEGMENTS:
        shares |= {name: F.col("segment") == name, f"short_{name}": short & (F.col("segment") == name)}
    totals = {name: F.sum(case.cast("long")).alias(name) for name, case in (cases | shares).items()}
    found = both.agg(F.count("*").alias("rows"), F.count_distinct(USER_ID).alias("users"), *totals.values())
    return {name: count or 0 for name, count in found.collect()[0].asDict().items()}


def check_rows(counts: Mapping[str, int], max_damaged_share: float, limits: AuditSettings) -> Iterator[Check]:
    """Check that every user has one sound row, and limit the shares of short lists, cold users and faults.

    Args:
        counts: what `count_rows` has counted.
        max_damaged_share: the highest share of users that may be left out.
        limits: the limits of the settings.
    """
    yield Check("repeated_users", counts["rows"] - counts["users"], 0)
    yield from (Check(name, counts[name], 0) for name in FORBIDDEN)
    users = max(1, counts["users"])
    yield Check("short_share", counts["short"] / users, limits.max_short_share)
    yield Check("cold_share", counts["cold"] / users, limits.max_cold_share)
    yield Check("left_out_share", counts["left_out"] / users, max_damaged_share)


def _report_segments(counts: Mapping[str, int]) -> dict[str, SegmentReport]:
    """Return the users of each segment."""
    return {
        name: SegmentReport(users=counts[name], users_with_shortfall=counts[f"short_{name}"])
        for name in SEGMENTS
    }


def _out_of_order() -> Column:
    """Whether a candidate has a higher score than the one before it, or the same and a lower id."""
    pairs = F.arrays_zip(
        F.col("candidates").alias("one"), F.slice("candidates", 2, F.size("candidates")).alias("next")
    )
    behind = F.slice(pairs, 1, F.greatest(F.size("candidates") - 1, F.lit(0)))
    return F.exists(
        behind,
        lambda p: (
            (p["one"]["score"] < p["next"]["score"])
            | ((p["one"]["score"] == p["next"]["score"]) & (p["one"]["item_id"] >= p["next"]["item_id"]))
        ),
    )


def _bias(warehouse: Warehouse, run: Run, inputs: NightInputs) -> DataFrame:
    """Read the night's items with their eligibility bits."""
    this_night = (F.col(DS) == F.lit(run.ds).cast("date")) & (F.col(MODEL_VERSION) == inputs.model_version)
    return warehouse.read("item_bias", inputs.bias).where(this_night)


def check_items(night: AuditedNight, bias: DataFrame, limits: AuditSettings) -> Iterator[Check]:
    """Check that no ineligible item is listed, and that the lists do not all have the same few items.

    Args:
        night: the staged lists and the number of eligible items.
        bias: the night's rows of `item_bias`, with their eligibility bits.
        limits: the limits of the settings.
    """
    listed = night.rows.select(F.explode("candidates.item_id").alias(ITEM_ID)).groupBy(ITEM_ID).count()
    listed = listed.join(bias.select(ITEM_ID, (eligible_bit(0) == 1).alias("allowed")), ITEM_ID, "left")
    wrong = F.when(~F.coalesce("allowed", F.lit(False)), F.col("count"))
    with persisted(listed) as counted:
        row = counted.agg(
            F.sum(wrong).alias("banned"), F.sum("count").alias("ranks"), F.count("*").alias("items")
        ).collect()[0]
        most = counted.orderBy(F.desc("count")).limit(max(1, night.items // 100))
        top = most.agg(F.sum("count").alias("ranks")).collect()[0]["ranks"] or 0
    yield Check("ineligible_items", row["banned"] or 0, 0)
    yield Check("top_share", top / max(1, row["ranks"] or 0), limits.max_top_share)
    yield Check("item_coverage", row["items"] / max(1, night.items), limits.min_item_coverage, upper=False)


def check_withdrawn(warehouse: Warehouse, run: Run, night: AuditedNight) -> Check:
    """Check that no listed item was withdrawn from the catalogue: its last version ended before the night.

    Args:
        warehouse: holds the versions of items.
        run: gives the date of the night.
        night: gives the staged lists and the Delta version of `items`.
    """
    day = F.date_sub(F.lit(run.ds).cast("date"), 1)
    for_ever = F.lit("9999-12-31").cast("date")
    versions = read_versions(warehouse, "items", night.inputs.items).where(F.col(VALID_FROM) <= day)
    ends = versions.groupBy(ITEM_ID).agg(F.max(F.coalesce(VALID_TO, for_ever)).alias("end"))
    listed = night.rows.select(F.explode("candidates.item_id").alias(ITEM_ID)).distinct()
    found = listed.join(ends.where(F.col("end") <= day), ITEM_ID, "left_semi").count()
    return Check("withdrawn_items", found, 0)


def last_published(warehouse: Warehouse, night: str) -> str | None:
    """Find the newest published night before this one; None when there is none."""
    earlier = warehouse.read("recommendations").where(F.col(DS) < F.lit(night).cast("date"))
    found: str | None = earlier.agg(F.max(DS).cast("string")).collect()[0][0]
    return found


def check_served(
    warehouse: Warehouse, night: AuditedNight, before: str, limits: AuditSettings
) -> Iterator[Check]:
    """Compare the number of users who have a list with that of an earlier night.

    An incomplete drop of users would lower it.

    Args:
        warehouse: holds the published lists.
        night: the staged lists.
        before: the date of the earlier night (YYYY-MM-DD).
        limits: the limits of the settings; small nights are not compared.
    """
    earlier = warehouse.read("recommendations").where(F.col(DS) == F.lit(before).cast("date"))
    served, last = (rows.where(F.size("candidates") > 0).count() for rows in (night.rows, earlier))
    if last >= limits.min_segment_users:
        yield Check("served_share", served / last, limits.min_served_share, upper=False)


def check_drift(
    warehouse: Warehouse, run: Run, night: AuditedNight, before: str, limits: AuditSettings
) -> list[Check]:
    """Compare scores and lists of a sample of users with those of an earlier night, segment by segment.

    Scores of another model are not compared, because they have another scale.

    Args:
        warehouse: holds the published lists.
        run: the run that is audited.
        night: the staged lists of the run.
        before: the date of the earlier night (YYYY-MM-DD).
        limits: the limits of the settings.
    """
    users = max(1, need_manifest(warehouse, run, StatesManifest).users)
    slots = round(min(1.0, SAMPLED_ITEMS / night.k / users) * SLOTS)
    drawn = F.pmod(F.xxhash64(F.col(USER_ID), F.lit(run.ds)), F.lit(SLOTS)) < slots
    items, scores = F.col("candidates.item_id"), F.col("candidates.score")
    old = warehouse.read("recommendations").where((F.col(DS) == F.lit(before).cast("date")) & drawn)
    old = old.select(USER_ID, MODEL_VERSION, items.alias("old_items"), scores.alias("old_scores"))
    new = night.rows.where(drawn).select(USER_ID, items.alias("items"), scores.alias("scores"))
    pairs = new.join(old, USER_ID, "inner")
    table = pairs.join(night.users.select(USER_ID, "segment"), USER_ID, "inner").toArrow().to_pandas()
    checks: list[Check] = []
    for segment, users in table.groupby("segment"):
        if len(users) >= limits.min_segment_users:
            checks += _compare(str(segment), users, night.inputs.model_version, limits)
    return checks


def _compare(segment: str, users: Any, model_version: str, limits: AuditSettings) -> Iterator[Check]:
    """Compare the new and old lists of one segment.

    `users` has a row for each user: `items, scores, old_items, old_scores, model_version`.
    """
    both = list(zip(users["items"], users["old_items"], strict=True))
    for name, limit, measure in (
        ("jaccard", limits.min_jaccard, jaccard),
        ("rank_biased_overlap", limits.min_rank_biased_overlap, rank_biased_overlap),
    ):
        value = float(np.mean([measure(np.asarray(new), np.asarray(old)) for new, old in both]))
        yield Check(name, value, limit, upper=False, segment=segment)
    same = users[users["model_version"] == model_version]
    scores = [np.concatenate([*same[side], np.zeros(0)]) for side in ("old_scores", "scores")]
    if all(map(len, scores)):
        yield Check("psi", population_stability(*scores), limits.max_psi, segment=segment)
