"""Certify that a night is exact: compare the staged lists of sampled users with the unfolded model.

`night.certificate_users` users are sampled (all users if there are fewer). A quarter each has no history, has
the longest histories, was active in the last week, and was idle. In an incremental night, half of the sample
are users whose lists were taken over; half of these have the oldest anchors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from lime_model.measure.certificate import Certifier
from pipelines.models.bundles import ship_bundle
from pipelines.models.pinned_inputs import NightInputs
from pipelines.publish.certified_sources import CertifiedCorpus, HistorySource
from pipelines.schemas import ITEM_ID, POLICY, RUN_ID, USER_ID
from pipelines.score.users import read_users
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.manifests import CertificateManifest, ScoreManifest
from pipelines.store.runs import need_manifest, run_once
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # times max(1, |score|); fp32 factors are compared with float64
BATCH = 16  # users that are certified at once
Sample = dict[Any, str]  # stratum by user id


class CertificateFailed(LimeError):
    """A staged list differs from the model, or nothing could be certified."""


class StagedList(NamedTuple):
    """One user's staged list, or the fault that left the user out."""

    candidates: list[Row]
    fault: str | None


class Findings(NamedTuple):
    """The faults of the certified lists, and the largest relative error of a score."""

    faults: list[str]
    worst: float


def verify_night(warehouse: Warehouse, run: Run) -> CertificateManifest:
    """Certify the staged lists of the published policy.

    Raises:
        CertificateFailed: a list is wrong, or none could be certified; the night must not be published.
    """

    def work() -> CertificateManifest:
        inputs = NightInputs.of(warehouse, run)
        scored = need_manifest(warehouse, run, ScoreManifest)
        bundle = ship_bundle(warehouse, inputs.model, inputs.model_version)
        night, version = warehouse.settings.night, scored.versions["staging"]
        reused = _read_reused(warehouse, run, version, night.policy)
        sample = sample_users(read_users(warehouse, inputs), run.ds, night.certificate_users, reused)
        corpus = CertifiedCorpus.read(warehouse, run.ds, inputs, bundle, night.policy)
        if scored.items_left_out:
            corpus.eligible[corpus.rows(_read_left_out(warehouse, run))] = False
        log.info("certifying the lists of %d users", len(sample))
        lists = _read_lists(warehouse, run, version, night.policy, list(sample))
        certifier = Certifier(bundle, corpus.items, corpus.recent, corpus.eligible)
        source = HistorySource(warehouse, run.ds, inputs, bundle, corpus, list(sample))
        found = certify(certifier, source, corpus, sample, lists)
        skipped = sum(lists[user].fault is not None for user in sample if user in lists)
        _refuse(run, sample, skipped, found)
        return CertificateManifest(
            users=len(sample) - skipped,
            users_left_out=skipped,
            strata=dict(Counter(sample.values())),
            candidates=len(corpus.ids),
            worst_relative_error=found.worst,
            tolerance=TOLERANCE,
            passed=True,
        )

    return run_once(warehouse, run, CertificateManifest, work)


def _refuse(run: Run, sample: Sample, skipped: int, found: Findings) -> None:
    """Fail if nothing could be certified or a list is wrong.

    Raises:
        CertificateFailed: the message names what is wrong.
    """
    if sample and skipped == len(sample):
        raise CertificateFailed(
            f"night {run.ds}, run {run.key!r}: all {skipped} sampled users were left out as damaged, "
            "so nothing is certified; build the night again under a new --run-key"
        )
    if found.faults:
        raise CertificateFailed(
            f"night {run.ds}, run {run.key!r}: {len(found.faults)} of {len(sample)} certified users fail, "
            f"the first: {found.faults[:3]}; nothing was published, the staged rows are kept "
            f"under run_id {run.run_id}"
        )


def sample_users(states: DataFrame, night: str, wanted: int, reused: Mapping[Any, str]) -> Sample:
    """Draw a stratified sample of users; the same states give the same sample.

    Args:
        states: `user_id, event_count, last_event_ts` of all users.
        night: the date of the night.
        wanted: the number of users to draw.
        reused: for each user whose list was taken over, the run that scored the user in full.
    """
    rows = states.select(USER_ID, "event_count", "last_event_ts").withColumn("stratum", user_segment(night))
    shuffled = rows.withColumn("draw", F.xxhash64(USER_ID, F.lit(night))).collect()
    by_draw = sorted(shuffled, key=lambda r: (r["draw"], str(r[USER_ID])))
    longest = sorted(shuffled, key=lambda r: (-r["event_count"], str(r[USER_ID])))
    picked: Sample = {}
    taken_over = [r for r in by_draw if r[USER_ID] in reused]
    oldest = sorted(taken_over, key=lambda r: reused[r[USER_ID]])
    _pick(picked, oldest, "reused", wanted // 4)
    _pick(picked, taken_over, "reused", wanted // 4)
    quota = -(-(wanted - len(picked)) // 4)
    _pick(picked, [r for r in by_draw if r["stratum"] == "cold"], "cold", quota)
    _pick(picked, longest, "longest", quota)
    for stratum in ("active", "idle"):
        _pick(picked, [r for r in by_draw if r["stratum"] == stratum], stratum, quota)
    _pick(picked, by_draw, "any", max(0, wanted - len(picked)))
    return picked


def user_segment(night: str) -> Column:
    """Name a user's segment: `cold` without events, `active` in the week before the night, else `idle`."""
    week = F.date_sub(F.lit(night).cast("date"), 7)
    active = F.when(F.col("last_event_ts") >= week, "active").otherwise("idle")
    return F.when(F.col("event_count") == 0, "cold").otherwise(active)


def _pick(picked: Sample, rows: Sequence[Row], stratum: str, quota: int) -> None:
    """Add the first `quota` users that are not picked yet."""
    fresh = [row[USER_ID] for row in rows if row[USER_ID] not in picked]
    picked.update(dict.fromkeys(fresh[:quota], stratum))


def certify(
    certifier: Certifier,
    source: HistorySource,
    corpus: CertifiedCorpus,
    sample: Sample,
    lists: Mapping[Any, StagedList],
) -> Findings:
    """Check the list of every sampled user.

    Args:
        certifier: recomputes scores from raw histories.
        source: reads the histories.
        corpus: the items of the night.
        sample: the stratum of each sampled user.
        lists: the staged list of each user who has one.
    """
    faults = [f"user {user!r} ({sample[user]}) has no staged row" for user in sample if user not in lists]
    staged, worst, night = [user for user in sample if user in lists], 0.0, source.night
    items = corpus.rows([c["item_id"] for user in staged for c in lists[user].candidates])
    ends = np.cumsum([len(lists[user].candidates) for user in staged])
    listed = dict(zip(staged, np.split(items, ends), strict=False))
    for start in range(0, len(staged), BATCH):
        users = staged[start : start + BATCH]
        histories = [source.read(user, night.policy) for user in users]
        scores = certifier.scores([each.history for each in histories])
        for user, history, row in zip(users, histories, scores, strict=True):
            name, mine = f"user {user!r} ({sample[user]})", lists[user]
            if mine.fault is not None:  # the user's rows are damaged: the list must be empty
                faults += [f"{name}: has a list in spite of a fault"] if mine.candidates else []
                continue
            given = np.asarray([c["score"] for c in mine.candidates], np.float32)
            finding = certifier.check(row, history.excluded, listed[user], given, night.k, TOLERANCE)
            worst = max(worst, finding.worst)
            faults += [f"{name}: {finding.fault}"] if finding.fault else []
    return Findings(faults, worst)


def _read_left_out(warehouse: Warehouse, run: Run) -> list[Any]:
    """Read the items that this run left out from `bank_quarantine`."""
    rows = warehouse.read("bank_quarantine").where(F.col(RUN_ID) == run.run_id).select(ITEM_ID).collect()
    return [row[ITEM_ID] for row in rows]


def _of_policy(run: Run, policy: Policy) -> Column:
    return (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy.name)


def _read_lists(
    warehouse: Warehouse, run: Run, version: int, policy: Policy, users: list[Any]
) -> dict[Any, StagedList]:
    """Read the staged lists of some users."""
    mine = _of_policy(run, policy) & F.col(USER_ID).isin(users)
    rows = warehouse.read("staging", version).where(mine).collect()
    return {row[USER_ID]: StagedList(row["candidates"], row["fault"]) for row in rows}


def _read_reused(warehouse: Warehouse, run: Run, version: int, policy: Policy) -> dict[Any, str]:
    """Read the users whose lists were taken over, with the run that scored each of them in full."""
    mine = _of_policy(run, policy) & (F.col("anchor") != run.run_id)
    rows = warehouse.read("staging", version).where(mine)
    return {row[USER_ID]: row["anchor"] for row in rows.select(USER_ID, "anchor").collect()}
