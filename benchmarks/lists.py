"""Lists of K items for each household, over all items and over items new to it, and their quality.

Letters: U households, I items, K items in a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from benchmarks.journey import Ints, Journey
from lime_model.bundle import Bundle
from lime_model.measure.metrics import ndcg_at_k, recall_at_k
from lime_model.model.fold import ItemFactors, fold_items, fold_users, folded_scores
from lime_model.model.lime import Features, History, LimeModel
from lime_model.train.dataset import build_training_data
from lime_model.train.event_log import TrainingData, item_counts
from lime_model.train.examples import history_pairs

K = 100
Scores = NDArray[np.float32]
Scorer = Callable[
    [slice], Scores
]  # it returns the scores [u, I] of some households, which the caller may overwrite


class Lists(NamedTuple):
    """Item columns `[U, K]` in rank order over all items and over new items; -1 fills a short list."""

    all: Ints
    new: Ints


def make_lists(score: Scorer, journey: Journey, block: int = 256) -> Lists:
    """Return the K best items of every household, with and without the items it has bought before.

    Args:
        score: scores some households.
        journey: the households and items.
        block: how many households are scored together.
    """
    parts: list[tuple[Ints, Ints]] = []
    for start in range(0, len(journey.users), block):
        rows = slice(start, start + block)
        scores = score(rows)
        every = _top(scores)
        scores[journey.before[rows].nonzero()] = -np.inf
        parts.append((every, _top(scores)))
    return Lists(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def _top(scores: Scores) -> Ints:
    best = torch.topk(torch.from_numpy(scores), K, 1)
    return np.where(torch.isfinite(best.values), best.indices, -1)


class Quality(NamedTuple):
    """Recall and NDCG at K of each household that bought something to find."""

    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]


def measure(lists: Lists, journey: Journey) -> tuple[Quality, Quality]:
    """Measure lists over all and over new items; recall divides by all relevant items."""
    fresh = journey.after.copy()
    fresh.data[:] = fresh.data > 0
    old = journey.before.copy()
    old.data[:] = 1.0
    fresh = fresh - fresh.multiply(old)
    fresh.eliminate_zeros()
    return _measure(lists.all, journey.after), _measure(lists.new, fresh)


def _measure(lists: Ints, relevant: sp.csr_array) -> Quality:
    recall, ndcg = [], []
    for row, ranked in enumerate(lists.tolist()):
        wanted = set(relevant.indices[relevant.indptr[row] : relevant.indptr[row + 1]].tolist())
        if wanted:
            recall.append(recall_at_k(ranked, wanted))
            ndcg.append(ndcg_at_k(ranked, wanted, K))
    return Quality(np.array(recall), np.array(ndcg))


def lime_scorer(bundle: Bundle, journey: Journey) -> Scorer:
    """Return a scorer that computes the published score of a bundle as of the day, in float32."""
    model, catalogue = bundle.model.eval(), bundle.catalogue
    data = build_training_data(
        journey.source.events, journey.source.users, catalogue, bundle.user_encoders, model.config
    )
    column = np.concatenate([[-1], np.searchsorted(journey.items, np.asarray(catalogue.item_ids, np.int64))])
    with torch.inference_mode():
        vectors = model.embed_items(catalogue)
        recent = item_counts(data.log, 0.0, model.config.bias_days, len(vectors))[:, 0]
        bias = model.item_bias(torch.from_numpy(recent).float()).numpy()
        factors = fold_items(model, vectors)
    owners = np.unique(journey.events["user_id"].to_numpy())
    place = np.searchsorted(owners, journey.users)

    def score(rows: slice) -> Scores:
        users = place[rows]
        out = np.full((len(users), len(journey.items)), -np.inf, np.float32)
        with torch.inference_mode():
            for start in range(0, len(users), 32):
                block = users[start : start + 32]
                z = _base(model, data, vectors, factors, block)
                _remember(model, data, z, block)
                out[start : start + 32, column[1:]] = z[:, 1:] + bias[1:]
        return out

    return score


def _base(
    model: LimeModel, data: TrainingData, vectors: torch.Tensor, factors: ItemFactors, users: Ints
) -> Scores:
    """Compute z `[B, I + 1]` of users of the log."""
    spans = [slice(*data.log.offsets[user : user + 2]) for user in users]
    width = max(span.stop - span.start for span in spans)
    item, kind, days = (np.zeros((len(users), width), t) for t in (np.int64, np.int64, np.float32))
    keep = np.zeros((len(users), width), np.bool_)
    for row, span in enumerate(spans):
        tail = slice(width - (span.stop - span.start), None)
        item[row, tail], kind[row, tail] = data.log.item[span], data.log.event_type[span]
        days[row, tail] = data.log.days[span] - data.log.days[span.stop - 1]
        keep[row, tail] = True
    events = model.embed_events(vectors[torch.from_numpy(item)], torch.from_numpy(kind))
    history = History(events, torch.from_numpy(days), torch.from_numpy(keep))
    folded = fold_users(model, model.read(history, Features.of(data.users, users)))
    tiles = zip(*(side.split(4096) for side in factors), strict=True)
    return torch.cat([folded_scores(model, folded, ItemFactors(*tile)) for tile in tiles], 1).numpy()


def _remember(model: LimeModel, data: TrainingData, z: Scores, users: Ints) -> None:
    """Add the repeat boost to the scores of every household's own items, in place."""
    for row, user in enumerate(users):
        span = slice(*data.log.offsets[user : user + 2])
        item, days = data.log.item[span], data.log.days[span]
        pairs = history_pairs(item, days, days[-1], model.config.memory_days, data.catalogue.fame)
        base = torch.from_numpy(z[row, pairs.item])
        z[row, pairs.item] += model.repeat_boost(torch.from_numpy(pairs.features), base).numpy()
