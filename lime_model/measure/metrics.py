"""Metrics of lists, one user at a time (recall divides by all relevant items), and of predicted labels.

`tests/lime_model/measure/test_metrics.py` has golden values that were computed by hand. No library of this
project computes recall over *all* relevant items with lists of limited length, so recall and NDCG are written
here.

Letters: n labelled events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import bootstrap, mannwhitneyu

from lime_model.arrays import Floats, Ints


def recall_at_k(ranked: Sequence[object], relevant: Collection[object]) -> float:
    """Return the share of `relevant` (not empty) that `ranked` holds."""
    return sum(item in relevant for item in ranked) / len(relevant)


def ndcg_at_k(ranked: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Return the discounted gain of the first k items over the best possible one, with binary relevance.

    Args:
        ranked: the list.
        relevant: relevant items, not empty.
        k: how many of the list count.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.fromiter((item in relevant for item in ranked[:k]), np.float64)
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def coverage(lists: Collection[Sequence[object]], items: Collection[object]) -> float:
    """Return the share of the distinct `items` that any list holds."""
    listed = {item for ranked in lists for item in ranked}
    return sum(item in listed for item in items) / max(len(items), 1)


def novelty(lists: Collection[Sequence[object]], takers: Mapping[object, int], users: int) -> float:
    """Return the mean self-information of the listed items in bits, log2(users / takers).

    One bit more means that half as many users took an item (Zhou et al. 2010, doi:10.1073/pnas.1000488107).
    An item that nobody took counts as taken by one user.

    Args:
        lists: one list for each user.
        takers: how many users took each item.
        users: all users.
    """
    listed = [takers.get(item, 1) for ranked in lists for item in ranked]
    return float(np.log2(users / np.asarray(listed, np.float64)).mean()) if listed else 0.0


def auc(label: Floats, score: Floats) -> float:
    """Return the area under the ROC curve: how often a 1 is above a 0, ties counting half.

    It is NaN when one of the labels is missing.
    """
    ones, zeros = score[label == 1], score[label == 0]
    if not len(ones) or not len(zeros):
        return float("nan")
    return float(mannwhitneyu(ones, zeros, method="asymptotic").statistic / (len(ones) * len(zeros)))


def auc_interval(
    label: Floats, score: Floats, user: Ints, *, minus: Floats | None = None, draws: int = 200
) -> tuple[float, float]:
    """Return a 95 % interval of the AUC, or of its lead over that of the score `minus`.

    It is the same in every call with the same values, and NaN when no draw has both labels.

    Args:
        label: 0 or 1 `[n]`.
        score: `[n]`.
        user: user of each event `[n]`.
        minus: another score `[n]`.
        draws: how often users are resampled.
    """

    def measure(events: Ints, _: np.random.Generator) -> float:
        less = auc(label[events], minus[events]) if minus is not None else 0.0
        return auc(label[events], score[events]) - less

    return interval_over_users(measure, user, draws)


def interval_over_users(
    measure: Callable[[Ints, np.random.Generator], float],
    user: Ints,
    draws: int = 200,
) -> tuple[float, float]:
    """Return a 95 % interval of a measure of events by resampling their users; NaN when every draw gives NaN.

    Args:
        measure: computes the measure from the places of some events and a random generator.
        user: user of each event `[n]`.
        draws: how often users are resampled.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    found = []
    for _ in range(draws):
        drawn = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        found.append(measure(drawn, rng))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def grouped_auc(label: Floats, score: Floats, user: Ints) -> float:
    """Return the mean AUC within users, weighted by their numbers of events (GAUC of arXiv:1706.06978).

    Users with only one of the labels are left out; it is NaN when every user is.

    Args:
        label: 0 or 1 `[n]`.
        score: `[n]`.
        user: user of each event `[n]`.
    """
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    each = [(auc(label[g], score[g]), len(g)) for g in groups]
    values, weights = np.array([pair for pair in each if not np.isnan(pair[0])]).reshape(-1, 2).T
    return float(values @ weights / weights.sum()) if len(values) else float("nan")


def log_loss(label: Floats, logit: Floats) -> float:
    """Return the mean negative log likelihood in nats; NaN if a logit is NaN."""
    with np.errstate(invalid="ignore"):
        return float(np.mean(np.logaddexp(0.0, logit) - label * logit))


def normalised_entropy(label: Floats, logit: Floats) -> float:
    """Return the log loss over that of always predicting the labels' mean; NaN when all labels are the same.

    See He et al. 2014, doi:10.1145/2648584.2648589.
    """
    share = label.mean()
    if share in (0.0, 1.0):
        return float("nan")
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    return log_loss(label, logit) / float(entropy)


def calibration(label: Floats, logit: Floats) -> float:
    """Return the sum of predicted probabilities over that of the labels; NaN without a label of 1."""
    return float(expit(logit).sum() / label.sum()) if label.any() else float("nan")


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % interval of the mean over users by resampling them; NaN without users.

    It is the same in every call with the same values.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    if len(set(values)) < 2:
        return values[0], values[0]
    found = bootstrap(
        (np.asarray(values),), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over users and its standard error; NaN without users."""
    if len(values) == 0:
        return float("nan"), float("nan")
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
