"""The night's exactness certificate: staged lists of sampled users against the unfolded model.

At least `night.certificate_users` users, a quarter each without history, with the longest
histories, active in the last week and idle (all users when there are fewer). Of an incremental night half
of them are users whose lists were taken over, those of the oldest anchors first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from lime_model.config import DAY_US
from lime_model.errors import LimeError
from lime_model.measure.certificate import Certifier, RawHistory
from lime_model.model.features import encode_rows, event_actions
from lime_model.rows.items import ItemEncoder, ItemInputs
from pipelines.build.candidate_bank import read_corpus
from pipelines.models.bundles import ship_bundle
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.users import read_users
from pipelines.settings.night import Policy
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, need_manifest, run_once
from pipelines.store.schemas import (
    ELIGIBLE,
    EVENT_TS,
    HISTORY_ORDER,
    ITEM_ID,
    POLICY,
    RECENT,
    RUN_ID,
    USER_ID,
)
from pipelines.store.tables import Warehouse, sorted_arrow

TOLERANCE = 1e-4  # times max(1, |score|): fp32 factors against float64 throughout
BATCH = 16  # users certified at once


class CertificateFailed(LimeError):
    """A staged list is not what the model says."""


def verify_night(warehouse: Warehouse, run: Run) -> Manifest:
    """Certify the staged lists of the published policy.

    Raises:
        CertificateFailed: naming users and faults; the night must not be published.
    """

    def work() -> Manifest:
        inputs = NightInputs.of(warehouse, run)
        staged = need_manifest(warehouse, run, "score_candidates")
        bundle = ship_bundle(warehouse, inputs.model, inputs.model_version)
        policy, wanted = warehouse.settings.night.policy, warehouse.settings.night.certificate_users
        reused = _reused_lists(warehouse, run, staged["versions"]["staging"], policy)
        sample = sample_users(read_users(warehouse, inputs), run.ds, wanted, reused)
        corpus = _Corpus.read(warehouse, run.ds, inputs, bundle, policy)
        if staged["items_left_out"]:
            corpus.eligible[corpus.rows(_left_out(warehouse, run))] = False
        lists = _staged_lists(warehouse, run, staged["versions"]["staging"], policy, list(sample))
        faults, worst = certify(warehouse, run, inputs, bundle, corpus, sample, lists)
        skipped = sum(lists[user].fault is not None for user in sample if user in lists)
        if sample and skipped == len(sample):
            raise CertificateFailed(
                f"night {run.ds}, run {run.key!r}: all {skipped} sampled users were left out as damaged, "
                "so nothing is certified; build the night again under a new --run-key"
            )
        report = {
            "users": len(sample) - skipped,
            "users_left_out": skipped,
            "strata": _count(sample.values()),
            "candidates": len(corpus.ids),
            "worst_relative_error": worst,
            "tolerance": TOLERANCE,
        }
        if faults:
            raise CertificateFailed(
                f"night {run.ds}, run {run.key!r}: {len(faults)} of {len(sample)} certified users fail, "
                f"the first: {faults[:3]}; nothing was published, the staged rows are kept "
                f"under run_id {run.run_id}"
            )
        return {**report, "passed": True}

    return run_once(warehouse, run, "verify_night", work)


def sample_users(states: DataFrame, night: str, wanted: int, reused: Mapping[Any, str]) -> dict[Any, str]:
    """Stratified user ids -> stratum, the same for the same states.

    Args:
        reused: users whose lists were taken over, and the run that scored them in full.
    """
    rows = states.select(USER_ID, "event_count", "last_event_ts").withColumn("stratum", user_segment(night))
    shuffled = rows.withColumn("draw", F.xxhash64(USER_ID, F.lit(night))).collect()
    by_draw = sorted(shuffled, key=lambda r: (r["draw"], str(r[USER_ID])))
    longest = sorted(shuffled, key=lambda r: (-r["event_count"], str(r[USER_ID])))
    picked: dict[Any, str] = {}
    standing = [r for r in by_draw if r[USER_ID] in reused]
    _pick(picked, sorted(standing, key=lambda r: reused[r[USER_ID]]), "reused", wanted // 4)
    _pick(picked, standing, "reused", wanted // 4)
    quota = -(-(wanted - len(picked)) // 4)
    _pick(picked, [r for r in by_draw if r["stratum"] == "cold"], "cold", quota)
    _pick(picked, longest, "longest", quota)
    for stratum in ("active", "idle"):
        _pick(picked, [r for r in by_draw if r["stratum"] == stratum], stratum, quota)
    _pick(picked, by_draw, "any", max(0, wanted - len(picked)))
    return picked


def user_segment(night: str) -> Column:
    """`cold` without events, `active` in the week before the night, else `idle`."""
    week = F.date_sub(F.lit(night).cast("date"), 7)
    active = F.when(F.col("last_event_ts") >= week, "active").otherwise("idle")
    return F.when(F.col("event_count") == 0, "cold").otherwise(active)


def _pick(picked: dict[Any, str], rows: list[Row], stratum: str, quota: int) -> None:
    fresh = [row[USER_ID] for row in rows if row[USER_ID] not in picked]
    picked.update(dict.fromkeys(fresh[:quota], stratum))


def certify(
    warehouse: Warehouse,
    run: Run,
    inputs: NightInputs,
    bundle: Bundle,
    corpus: _Corpus,
    sample: dict[Any, str],
    lists: dict[Any, _Staged],
) -> tuple[list[str], float]:
    """Check every sampled user; returns the faults and the worst relative error."""
    certifier = Certifier(bundle, corpus.items, corpus.recent, corpus.eligible)
    reader = _HistoryReader(warehouse, run.ds, inputs, bundle, corpus, list(sample))
    night = warehouse.settings.night
    faults = [f"user {user!r} ({sample[user]}) has no staged row" for user in sample if user not in lists]
    worst, staged = 0.0, [user for user in sample if user in lists]
    items = corpus.rows([c["item_id"] for user in staged for c in lists[user].candidates])
    listed = dict(
        zip(
            staged, np.split(items, np.cumsum([len(lists[user].candidates) for user in staged])), strict=False
        )
    )
    for start in range(0, len(staged), BATCH):
        users = staged[start : start + BATCH]
        histories = [reader.read(user, night.policy) for user in users]
        scores = certifier.scores([history for history, _ in histories])
        for user, (_, excluded), row in zip(users, histories, scores, strict=True):
            if (
                lists[user].fault is not None
            ):  # its rows are damaged: it must get nothing, and is not certified
                if lists[user].candidates:
                    faults.append(f"user {user!r} ({sample[user]}): has a list beside a fault")
                continue
            given = np.asarray([c["score"] for c in lists[user].candidates], np.float32)
            finding = certifier.check(row, excluded, listed[user], given, night.k, TOLERANCE)
            worst = max(worst, finding.worst)
            if finding.fault:
                faults.append(f"user {user!r} ({sample[user]}): {finding.fault}")
    return faults, worst


@dataclass(frozen=True)
class _Corpus:
    """All items of the night in id order, read from their sources, not from the bank."""

    ids: pa.Array
    items: ItemInputs
    recent: np.ndarray[Any, np.dtype[np.float64]]
    eligible: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def read(
        cls, warehouse: Warehouse, night: str, inputs: NightInputs, bundle: Bundle, policy: Policy
    ) -> _Corpus:
        corpus = read_corpus(
            warehouse, night, (inputs.events, inputs.items), [policy], bundle.config.bias_days
        )
        table = sorted_arrow(corpus, ITEM_ID)
        ids = table[ITEM_ID].combine_chunks()
        columns = {c: table[c].to_pylist() for c in bundle.item_encoders if c in table.column_names}
        items, _ = ItemEncoder(bundle).read(ids.to_pylist(), columns)
        eligible = table[ELIGIBLE].to_numpy() == 1
        return cls(ids, items, table[RECENT].to_numpy().astype(np.float64), eligible)

    def rows(self, items: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Corpus rows of item ids, -1 for one that is not there."""
        array = items if isinstance(items, pa.ChunkedArray) else pa.array(items, self.ids.type)
        found = pc.fill_null(pc.index_in(array, value_set=self.ids), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


class _HistoryReader:
    """Raw histories of the sampled users."""

    def __init__(
        self,
        warehouse: Warehouse,
        night: str,
        inputs: NightInputs,
        bundle: Bundle,
        corpus: _Corpus,
        users: list[Any],
    ) -> None:
        self.bundle = bundle
        events = read_events(warehouse, night, inputs.events).where(F.col(USER_ID).isin(users))
        self.events = sorted_arrow(events, USER_ID, *HISTORY_ORDER)
        features = (
            read_entity(warehouse, "users", night, inputs.users).where(F.col(USER_ID).isin(users)).collect()
        )
        self.features = {row[USER_ID]: row.asDict() for row in features}
        owner = self.events[USER_ID].to_numpy()
        cuts = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1), len(owner)]
        self.spans = {owner[at]: slice(at, end) for at, end in pairwise(cuts) if end > at}
        ids = self.events[ITEM_ID]
        self.items, self.known = corpus.rows(ids), bundle.catalogue.rows(ids.to_pylist())
        self.cutoff = np.datetime64(bundle.config.cutoff_ds, "us")
        self.night_us = int(np.datetime64(night, "us").astype(np.int64))

    def read(self, user: Any, policy: Policy) -> tuple[RawHistory, np.ndarray[Any, np.dtype[np.int64]]]:
        """History, and corpus rows that the policy excludes."""
        span = self.spans.get(user, slice(0, 0))
        mine, items = self.events.slice(span.start, span.stop - span.start), self.items[span]
        us = mine[EVENT_TS].cast(pa.int64()).to_numpy()
        config = self.bundle.config
        values = {k: [v] for k, v in self.features.get(user, {}).items()}
        history = RawHistory(
            items,
            self.known[span],
            event_actions(mine, config),
            (us - int(self.cutoff.astype(np.int64))) / DAY_US,
            encode_rows(values, self.bundle.user_encoders, 1)[0],
        )
        if policy.exclude_seen == "none":
            return history, np.zeros(0, np.int64)
        since = -np.inf if policy.exclude_seen == "all" else self.night_us - int(policy.exclude_seen) * DAY_US
        return history, np.unique(items[us >= since])


def _left_out(warehouse: Warehouse, run: Run) -> list[Any]:
    """Items that this run does not score; see `bank_quarantine`."""
    rows = warehouse.read("bank_quarantine").where(F.col(RUN_ID) == run.run_id).select(ITEM_ID).collect()
    return [row[0] for row in rows]


class _Staged(NamedTuple):
    """One user's staged list, or why there is none."""

    candidates: list[Row]
    fault: str | None


def _staged_lists(
    warehouse: Warehouse, run: Run, version: int, policy: Policy, users: list[Any]
) -> dict[Any, _Staged]:
    mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy.name)
    rows = warehouse.read("staging", version).where(mine & F.col(USER_ID).isin(users)).collect()
    return {row[USER_ID]: _Staged(row["candidates"], row["fault"]) for row in rows}


def _reused_lists(warehouse: Warehouse, run: Run, version: int, policy: Policy) -> dict[Any, str]:
    """Users whose lists were taken over, and the run that scored them in full."""
    mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy.name)
    rows = warehouse.read("staging", version).where(mine & (F.col("anchor") != run.run_id))
    return {row[USER_ID]: row["anchor"] for row in rows.select(USER_ID, "anchor").collect()}


def _count(strata: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for stratum in strata:
        counts[stratum] = counts.get(stratum, 0) + 1
    return counts
