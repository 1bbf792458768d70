"""Recommenders from outside, for the quality table: counts, neighbours, EASE, Spark ALS.

Letters: U households, I items, J items with enough buyers.
"""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from pyspark.ml.recommendation import ALS

from benchmarks.journey import Ints, Journey
from benchmarks.lists import Scorer, Scores
from benchmarks.spark_job import session


def popularity(journey: Journey, days: int) -> Scorer:
    """Purchases of the last `days`."""
    recent = np.log1p(_recent(journey, days)).astype(np.float32)
    return lambda rows: np.tile(recent, (len(journey.users[rows]), 1))


def personal_frequency(journey: Journey, days: int) -> Scorer:
    """What a household bought by count, then what was popular in the last `days`."""
    recent = np.log1p(_recent(journey, days))
    small = (1e-3 * recent / max(recent.max(), 1.0)).astype(np.float32)  # below any purchase
    return lambda rows: journey.before[rows].toarray() + small


def item_neighbours(journey: Journey, neighbours: int, shrink: float) -> Scorer:
    """Items like those a household bought: cosine over root counts, the `neighbours` nearest of each."""
    counts = _root(journey.before)
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
    return lambda rows: (counts[rows] @ like).toarray().astype(np.float32)


def ease(journey: Journey, buyers: int, pull: float, once: float) -> Scorer:
    """EASE (Steck 2019, arXiv:1905.03375) over items with `buyers` households; `pull` is its λ.

    A household weighs its root counts to the power of 1 - `once`: with 1 each counts once, however much it
    buys.
    """
    kept = np.flatnonzero(np.bincount(journey.before.indices, minlength=len(journey.items)) >= buyers)
    counts = _root(journey.before)[:, kept]
    lengths = np.maximum(np.sqrt(counts.multiply(counts).sum(1)), 1e-9)
    counts = sp.csr_array(sp.diags_array(lengths**-once) @ counts)
    gram = torch.from_numpy((counts.T @ counts).toarray())  # [J, J]
    gram.diagonal().add_(pull)
    weights = torch.linalg.inv(gram).numpy()
    weights /= -np.diagonal(weights)
    np.fill_diagonal(weights, 0.0)
    return _spread(lambda rows: counts[rows] @ weights, kept, journey)


def spark_als(journey: Journey, rank: int, alpha: float, pull: float) -> Scorer:
    """Spark's implicit ALS over purchase counts."""
    pairs = journey.before.tocoo()
    with session("local[2]") as spark, tempfile.TemporaryDirectory(prefix="lime-bench-") as folder:
        spark.sparkContext.setCheckpointDir(folder)  # or the lineage of ten rounds overflows the stack
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
    return _spread(lambda rows: of_users[rows] @ of_items.T, items["id"].to_numpy(), journey)


def _spread(score: Scorer, kept: Ints, journey: Journey) -> Scorer:
    """Scores of some columns among all; the others come last."""

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


def _recent(journey: Journey, days: int) -> Ints:
    """Purchases of every item in the last `days`."""
    events = journey.events
    since = np.datetime64(journey.day) - np.timedelta64(days, "D")
    items = events["item_id"].to_numpy()[events["event_ts"].to_numpy() >= since]
    return np.bincount(np.searchsorted(journey.items, items), minlength=len(journey.items))
