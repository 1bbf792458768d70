"""Compute offline metrics, which compare the lists of a night with the events of the days after it.

Each model is scored under each evaluation policy and compared with popularity and personal frequency. Its
lists are written to separate tables (`apart.py`), so they are never published and no night starts from them.
Models of labels are measured by `evaluate_labels.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.measure.metrics import (
    bootstrap_interval,
    coverage,
    mean_and_error,
    ndcg_at_k,
    novelty,
    recall_at_k,
)
from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.learn.evaluate_labels import evaluate_labels
from pipelines.models.champions import need_champion
from pipelines.schemas import DS, EVENT_TS, ITEM_ID, POLICY, RUN_ID, USER_ID
from pipelines.score.stage import score_candidates
from pipelines.settings.base import SettingsError
from pipelines.store.apart import set_apart
from pipelines.store.event_log import read_events, read_log
from pipelines.store.leases import Run
from pipelines.store.manifests import EvaluationManifest
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)

POPULARITY_DAYS = 28


class Truth(NamedTuple):
    """The items of each user before and after the night, and the popularity of items before it."""

    before: dict[Any, dict[Any, int]]  # the number of events of each item, by user and item
    after: dict[Any, set[Any]]  # distinct items by user, for the users that are measured
    popular: list[Any]  # items, the one with most events in the last `POPULARITY_DAYS` first
    takers: dict[Any, int]  # the number of users who had an event of the item before the night


class Contestant(NamedTuple):
    """A bundle that is measured."""

    model: str
    version: str


def evaluate_models(
    warehouse: Warehouse, night: str, key: str, models: Sequence[str], *, horizon_days: int, min_events: int
) -> EvaluationManifest:
    """Evaluate the champions of a night.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        night: the date (YYYY-MM-DD); events before it are the history, and those from it on are the truth.
        key: the key of the run; a repeated key reuses its lists.
        models: the names of the models.
        horizon_days: the number of days, from the night on, whose events are the truth.
        min_events: users with fewer events before the night are left out.

    Raises:
        BundleError: a model has no champion on that night.
        SettingsError: there is nothing to measure; see `read_truth` and `evaluate_labels`.
    """
    chosen = {name: Contestant(name, need_champion(warehouse, name, night)) for name in models}
    return evaluate_bundles(warehouse, night, key, chosen, horizon_days=horizon_days, min_events=min_events)


def evaluate_bundles(
    warehouse: Warehouse,
    night: str,
    key: str,
    contestants: Mapping[str, Contestant],
    *,
    horizon_days: int,
    min_events: int,
) -> EvaluationManifest:
    """Measure every bundle and baseline under every evaluation policy, and record the metrics in `runs`.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        night: the date (YYYY-MM-DD); events before it are the history, and those from it on are the truth.
        key: the key of the run; a repeated key reuses its lists.
        contestants: the bundles by the name that they get in the metrics.
        horizon_days: the number of days, from the night on, whose events are the truth.
        min_events: users with fewer events before the night are left out.

    Raises:
        SettingsError: there is nothing to measure; see `read_truth` and `evaluate_labels`.
    """
    k = warehouse.settings.night.k
    of_labels = {n: c for n, c in contestants.items() if warehouse.settings.model(c.model).labels}
    rows = evaluate_labels(warehouse, night, of_labels, horizon_days=horizon_days) if of_labels else []
    if ranking := {name: c for name, c in contestants.items() if name not in of_labels}:
        truth = read_truth(warehouse, night, horizon_days, min_events)
        rows += evaluate_lists(warehouse, night, key, ranking, truth)
    manifest = EvaluationManifest(
        night=night, horizon_days=horizon_days, min_events=min_events, k=k, rows=rows
    )
    record(warehouse, f"{night}.evaluate-{key}", night, manifest)
    return manifest


def evaluate_lists(
    warehouse: Warehouse, night: str, key: str, contestants: Mapping[str, Contestant], truth: Truth
) -> list[dict[str, Any]]:
    """Score every bundle, and measure its lists and those of the baselines under every evaluation policy.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        night: the date of the night (YYYY-MM-DD).
        key: the key of the run; a repeated key reuses its lists.
        contestants: the bundles, none of them a model of labels, by the name that they get in the metrics.
        truth: the items of the users before and after the night.

    Returns:
        The rows of `measure`.
    """
    k = warehouse.settings.night.k
    apart = set_apart(warehouse, f"{night}.evaluate-{key}")
    rows = []
    for name, (model, version) in contestants.items():
        run = Run(night, f"evaluate-{key}-{model}-{_digest(warehouse, version)}")
        policies = warehouse.settings.evaluate_policies
        log.info("evaluating %s", name)
        build_candidate_bank(apart, run, model, policies, version=version)
        build_link_states(apart, run, model)
        score_candidates(apart, run, policies)
        log.info("measuring the lists of %s", name)
        for policy in warehouse.settings.evaluate_policies:
            lists = _staged(apart, run, policy.name)
            rows.append(measure(name, policy.name, lists, truth, k, fresh=policy.exclude_seen == "all"))
    for policy in warehouse.settings.evaluate_policies:
        fresh = policy.exclude_seen == "all"
        rows.append(
            measure("popularity", policy.name, popularity_lists(truth, k, fresh=fresh), truth, k, fresh=fresh)
        )
        if not fresh:
            lists = frequency_lists(truth, k)
            rows.append(measure("personal frequency", policy.name, lists, truth, k, fresh=fresh))
    return rows


def _digest(warehouse: Warehouse, version: str) -> str:
    """Digest everything that the lists depend on, as another bundle, log, K or policy makes another run."""
    policies = [policy.model_dump(mode="json") for policy in warehouse.settings.evaluate_policies]
    tables = [warehouse.fingerprint(name) for name in ("events", "items", "users")]
    text = json.dumps([version, warehouse.settings.night.k, policies, tables])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_truth(warehouse: Warehouse, night: str, horizon_days: int, min_events: int) -> Truth:
    """Read which items users had events of before and after a night.

    Args:
        warehouse: the warehouse that contains the log.
        night: the date of the night (YYYY-MM-DD).
        horizon_days: the number of days, from the night on, whose events are the truth.
        min_events: users with fewer events before the night are left out.

    Raises:
        SettingsError: no user with enough events before the night has an event in those days.
    """
    events = read_log(warehouse)
    until = F.date_add(F.lit(night).cast("date"), horizon_days)
    later = events.where((F.col(EVENT_TS) >= F.to_timestamp(F.lit(night))) & (F.col(DS) < until))
    past = read_events(warehouse, night)
    since = F.date_sub(F.lit(night).cast("date"), POPULARITY_DAYS)
    recent = past.where(F.col(DS) >= since).groupBy(ITEM_ID).count().orderBy(F.desc("count"), ITEM_ID)
    before: dict[Any, dict[Any, int]] = defaultdict(dict)
    for user, item, count in _rows(past.groupBy(USER_ID, ITEM_ID).count()):
        before[user][item] = count
    after: dict[Any, set[Any]] = defaultdict(set)
    for user, item in _rows(later.select(USER_ID, ITEM_ID).distinct()):
        if sum(before.get(user, {}).values()) >= min_events:
            after[user].add(item)
    if not after:
        raise SettingsError(
            f"no user with {min_events} events before {night} has one in the {horizon_days} days after it; "
            "ingest those days first"
        )
    takers = Counter(item for items in before.values() for item in items)
    return Truth(dict(before), dict(after), [item for item, _ in _rows(recent)], takers)


def measure(
    name: str, policy: str, lists: dict[Any, list[Any]], truth: Truth, k: int, *, fresh: bool
) -> dict[str, Any]:
    """Measure the lists of one model under one policy.

    Args:
        name: the name of the model or baseline in the row.
        policy: the name of the policy in the row.
        lists: item ids by user, the best first; a user without a list counts as having an empty one.
        truth: the items of the users before and after the night.
        k: the number of items of a list that are measured.
        fresh: whether only items that are new to the user are relevant.

    Returns:
        A row with the means over users of recall@k (with its standard error and 95% interval), NDCG@k and hit
        rate, the coverage of the items with earlier events (a share of 1), and the novelty in bits.
    """
    recalls, gains, shown = [], [], []
    for user, items in truth.after.items():
        relevant = items - truth.before[user].keys() if fresh else items
        if relevant:
            shown.append(lists.get(user, [])[:k])
            recalls.append(recall_at_k(shown[-1], relevant))
            gains.append(ndcg_at_k(shown[-1], relevant, k))
    recall, error = mean_and_error(recalls)
    return {
        "model": name,
        "policy": policy,
        "users": len(recalls),
        "recall": round(recall, 4),
        "recall_error": round(error, 4),
        "recall_95": [round(end, 4) for end in bootstrap_interval(recalls)],
        "ndcg": round(mean_and_error(gains)[0], 4),
        "hit_rate": round(mean_and_error([float(r > 0) for r in recalls])[0], 4),
        "coverage": round(coverage(shown, truth.takers), 4),
        "novelty_bits": round(novelty(shown, truth.takers, len(truth.before)), 2),
    }


def popularity_lists(truth: Truth, k: int, *, fresh: bool) -> dict[Any, list[Any]]:
    """List the most popular items for each user, as a baseline.

    Args:
        truth: the items of the users before and after the night.
        k: the longest length of a list.
        fresh: whether the items that a user had before the night are left out of the user's list.

    Returns:
        Item ids by user, the most popular first.
    """
    lists = {}
    for user in truth.after:
        seen = truth.before[user].keys() if fresh else ()
        lists[user] = [item for item in truth.popular[: k + len(seen)] if item not in seen][:k]
    return lists


def frequency_lists(truth: Truth, k: int) -> dict[Any, list[Any]]:
    """List each user's own items by their number of events, the more popular first among equal ones.

    Popular items fill up a list that is shorter than `k`.
    """
    place = {item: i for i, item in enumerate(truth.popular)}
    lists = {}
    for user in truth.after:
        mine = truth.before[user]
        own = sorted(mine, key=lambda item: (-mine[item], place.get(item, len(place))))
        rest = [item for item in truth.popular[: 2 * k] if item not in mine]
        lists[user] = [*own, *rest][:k]
    return lists


def _staged(warehouse: Warehouse, run: Run, policy: str) -> dict[Any, list[Any]]:
    mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy)
    rows = warehouse.read("staging").where(mine).select(USER_ID, F.col("candidates.item_id").alias("items"))
    return dict(_rows(rows))


def _rows(frame: DataFrame) -> Any:
    """Return the rows of a frame as tuples; Arrow carries them to the driver."""
    table = frame.toArrow()
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
