"""Offline metrics: lists staged as of a night against what users took in the weeks after it.

Scores each model under each evaluation policy in tables apart from the nightly ones (`apart.py`), so that
nothing can be published and no night starts from it, and compares with popularity and personal frequency.
Models of labels are measured by `evaluate_labels.py`.
"""

from __future__ import annotations

import hashlib
import json
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

POPULARITY_DAYS = 28


class Truth(NamedTuple):
    """Per user: distinct items before the night (with counts) and after it."""

    before: dict[Any, dict[Any, int]]
    after: dict[Any, set[Any]]
    popular: list[Any]  # items by events of the last `POPULARITY_DAYS`
    takers: dict[Any, int]  # of every item before the night, users


class Contestant(NamedTuple):
    """A bundle to measure."""

    model: str
    version: str


def evaluate_models(
    warehouse: Warehouse, night: str, key: str, models: Sequence[str], *, horizon_days: int, min_events: int
) -> EvaluationManifest:
    """Evaluate the champions of a night.

    Args:
        warehouse: that holds log and bundles.
        night: lists are made as of this night.
        key: names the run.
        models: names of the models.
        horizon_days: see `evaluate_bundles`.
        min_events: see `evaluate_bundles`.
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
    """Measure every bundle and baseline under every evaluation policy; the table is kept in `runs`.

    Args:
        warehouse: that holds log and bundles.
        night: lists are made as of this night.
        key: names the run; a repeated key reuses its lists.
        contestants: by the name they get in the table.
        horizon_days: days after the night whose events are the truth.
        min_events: users with fewer events before the night are left out.
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
    """Of every bundle and baseline under every evaluation policy."""
    k = warehouse.settings.night.k
    apart = set_apart(warehouse, f"{night}.evaluate-{key}")
    rows = []
    for name, (model, version) in contestants.items():
        run = Run(night, f"evaluate-{key}-{model}-{_digest(warehouse, version)}")
        policies = warehouse.settings.evaluate_policies
        build_candidate_bank(apart, run, model, policies, version=version)
        build_link_states(apart, run, model)
        score_candidates(apart, run, policies)
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
    """Of what the lists depend on: another bundle, log, K or policy is another run."""
    policies = [policy.model_dump(mode="json") for policy in warehouse.settings.evaluate_policies]
    tables = [warehouse.fingerprint(name) for name in ("events", "items", "users")]
    text = json.dumps([version, warehouse.settings.night.k, policies, tables])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_truth(warehouse: Warehouse, night: str, horizon_days: int, min_events: int) -> Truth:
    """What users took before and after the night.

    Raises:
        SettingsError: no event lies after the night, or no user qualifies.
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
    """Macro recall@k, its interval, NDCG@k and hit rate over users; with `fresh`, over items new to the user.

    Beside them of the users' lists: coverage of the items that anyone took before, and novelty.
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
    """The most popular items, without the user's own when `fresh`."""
    lists = {}
    for user in truth.after:
        seen = truth.before[user].keys() if fresh else ()
        lists[user] = [item for item in truth.popular[: k + len(seen)] if item not in seen][:k]
    return lists


def frequency_lists(truth: Truth, k: int) -> dict[Any, list[Any]]:
    """The user's own items by count, popular ones breaking ties and filling up."""
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
    """Rows as tuples, by Arrow."""
    table = frame.toArrow()
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
