"""The other recommenders of the quality table: counts, neighbours, EASE, Spark ALS and a blend.

Each learns from the purchases of all households before the day, as LIME does.

Letters: U households asked about, V all households, I items, J items with enough buyers.
"""

from __future__ import annotations

import functools
import tempfile

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from pyspark.ml.recommendation import ALS

from benchmarks.journey import Ints, Journey
from benchmarks.lists import Scorer, Scores
from benchmarks.spark_job import session

EaseConstants = tuple[int, float, float]  # buyers, pull and once of `ease`


def popularity(journey: Journey, days: int) -> Scorer:
    """Score an item by its purchases in the last `days`."""
    recent = np.log1p(_recent(journey, days)).astype(np.float32)
    return lambda rows: np.tile(recent, (len(journey.users[rows]), 1))


def personal_frequency(journey: Journey, days: int, memory: float) -> Scorer:
    """Score an item by the household's own purchases, and rank the others by their popularity.

    Args:
        journey: the households to learn from.
        days: the days before the split whose purchases make an item popular.
        memory: a purchase weighs exp(-age / `memory`), both in days.
    """
    recent = np.log1p(_recent(journey, days))
    small = (1e-9 * recent / max(recent.max(), 1.0)).astype(np.float32)  # below any purchase of a year
    own = _decayed(journey, memory)
    return lambda rows: own[rows].toarray() + small


def item_neighbours(journey: Journey, neighbours: int, shrink: float) -> Scorer:
    """Score an item by its similarity to what the household bought: the cosine of root counts.

    Args:
        journey: the households to learn from.
        neighbours: an item counts only for so many of its nearest items.
        shrink: it is added to the denominator of the cosine, so that rare pairs weigh less.
    """
    counts = _root(journey.past)
    overlap = sp.csc_array(counts.T @ counts)
    norms = np.sqrt(overlap.diagonal())
    overlap.setdiag(0.0)
    columns = []
    for item in range(overlap.shape[1]):
        span = slice(overlap.indptr[item], overlap.indptr[item + 1])
        near, dot = overlap.indices[span], overlap.data[span]
        alike = dot / (norms[near] * norms[item] + shrink)
        if len(near) > neighbours:
            best = np.argpartition(-alike, neighbours)[:neighbours]
            near, alike = near[best], alike[best]
        columns.append((near, alike))
    sizes = [len(near) for near, _ in columns]
    like = sp.csc_array(
        (
            np.concatenate([alike for _, alike in columns]),
            np.concatenate([near for near, _ in columns]),
            np.concatenate([[0], np.cumsum(sizes)]),
        ),
        shape=overlap.shape,
    )
    own = counts[journey.rows]
    return lambda rows: (own[rows] @ like).toarray().astype(np.float32)


def ease(journey: Journey, buyers: int, pull: float, once: float) -> Scorer:
    """Fit EASE (Steck 2019, arXiv:1905.03375).

    Args:
        journey: the households to learn from.
        buyers: only items with so many households are scored.
        pull: the regularisation λ.
        once: the norm of a household's root counts is raised to the power 1 - `once`; with 1, each household
            has the same weight, however much it buys.
    """
    weights, counts, kept = _fit_ease(journey, buyers, pull, once)
    own = counts[journey.rows]
    return _spread(lambda rows: own[rows] @ weights, kept, journey)


@functools.lru_cache(maxsize=1)
def _fit_ease(journey: Journey, buyers: int, pull: float, once: float) -> tuple[Scores, sp.csr_array, Ints]:
    """Return weights `[J, J]`, the counts `[V, J]` that they multiply, and the columns of their items."""
    kept = np.flatnonzero(np.bincount(journey.past.indices, minlength=len(journey.items)) >= buyers)
    counts = _root(journey.past)[:, kept]
    lengths = np.maximum(np.sqrt(counts.multiply(counts).sum(1)), 1e-9)
    counts = sp.csr_array(sp.diags_array(lengths**-once) @ counts)
    gram = torch.from_numpy((counts.T @ counts).toarray())  # [J, J]
    gram.diagonal().add_(pull)
    weights = torch.linalg.inv(gram).numpy()
    weights /= -np.diagonal(weights)
    np.fill_diagonal(weights, 0.0)
    return weights, counts, kept


def blend(
    journey: Journey, ease_constants: EaseConstants, popular: float, own: float, memory: float
) -> Scorer:
    """Add popularity and the household's own purchases to the score of EASE.

    Both terms are log1p of a number of purchases, in units of the standard deviation of EASE's score.

    Args:
        journey: the households to learn from.
        ease_constants: the constants of EASE.
        popular: the weight of an item's purchases in the last 7 days.
        own: the weight of the household's own purchases.
        memory: an own purchase weighs exp(-age / `memory`), both in days.
    """
    base = ease(journey, *ease_constants)
    recent = np.log1p(_recent(journey, 7)).astype(np.float32)
    mine = _decayed(journey, memory)
    mine.data = np.log1p(mine.data)
    sample = base(slice(0, 256))
    size = float(sample[np.isfinite(sample)].std())
    mine.data *= own * size
    recent *= popular * size
    return lambda rows: base(rows) + recent + mine[rows].toarray()


def spark_als(journey: Journey, rank: int, alpha: float, pull: float) -> Scorer:
    """Fit Spark's implicit ALS to purchase counts.

    Args:
        journey: the households to learn from.
        rank: the number of factors.
        alpha: the weight of a purchase.
        pull: the regularisation.
    """
    pairs = journey.past.tocoo()
    with session("local[2]") as spark, tempfile.TemporaryDirectory(prefix="lime-bench-") as folder:
        spark.sparkContext.setCheckpointDir(
            folder
        )  # without it, the lineage of ten rounds overflows the stack
        user, item = (side.astype(np.int32) for side in pairs.coords)
        table = spark.createDataFrame(pa.table({"user": user, "item": item, "count": pairs.data}))
        als = ALS(
            rank=rank, alpha=alpha, regParam=pull, implicitPrefs=True, seed=7, maxIter=10,
            checkpointInterval=2, userCol="user", itemCol="item", ratingCol="count",
        )  # fmt: skip
        model = als.fit(table)
        users, items = (
            frame.toPandas().sort_values("id") for frame in (model.userFactors, model.itemFactors)
        )
    of_users, of_items = (np.array(side["features"].tolist(), np.float32) for side in (users, items))
    asked = of_users[np.searchsorted(users["id"], journey.rows)]
    return _spread(lambda rows: asked[rows] @ of_items.T, items["id"].to_numpy(), journey)


def _spread(score: Scorer, kept: Ints, journey: Journey) -> Scorer:
    """Spread scores of some columns over all columns; the others get the lowest score."""

    def spread(rows: slice) -> Scores:
        some = score(rows)
        out = np.full((len(some), len(journey.items)), -np.inf, np.float32)
        out[:, kept] = some
        return out

    return spread


def _root(counts: sp.csr_array) -> sp.csr_array:
    rooted = counts.copy()
    rooted.data = np.sqrt(rooted.data)
    return rooted


def _decayed(journey: Journey, memory: float) -> sp.csr_array:
    """Sum the purchases `[U, I]`, each of which weighs exp(-age / `memory`), both in days."""
    events = journey.events
    users = events["user_id"].to_numpy()
    asked = np.isin(users, journey.users)
    age = (np.datetime64(journey.day) - events["event_ts"].to_numpy()[asked]) / np.timedelta64(1, "D")
    entry = (
        np.searchsorted(journey.users, users[asked]),
        np.searchsorted(journey.items, events["item_id"].to_numpy()[asked]),
    )
    shape = (len(journey.users), len(journey.items))
    weights = np.exp(-age / memory).astype(np.float32)
    return sp.csr_array(sp.coo_array((weights, entry), shape=shape))


def _recent(journey: Journey, days: int) -> Ints:
    """Count the purchases of every item in the last `days`."""
    events = journey.events
    since = np.datetime64(journey.day) - np.timedelta64(days, "D")
    items = events["item_id"].to_numpy()[events["event_ts"].to_numpy() >= since]
    return np.bincount(np.searchsorted(journey.items, items), minlength=len(journey.items))
