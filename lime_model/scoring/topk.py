"""The one scoring operation: users × candidates to each user's exact top K.

    TopK(rows, scores) per user and policy, ordered by (score descending, row ascending)

Candidate rows are in item-id order, so a tie goes to the smaller item id. Items of a
user's history are left out of the dense pass and scored apart, first, with the repeat
memory; excluded ones never come back. As policies over the same candidates differ only
in which of the user's own items they exclude, one dense pass serves all of them.
Backends are filters: what survives is rescored canonically, so all of them return the
same lists to the bit.

Letters: U users, C candidates, M items of one history, P policies, K wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lime_model.arrays import F32, F64, Bools, Ints
from lime_model.errors import LimeError
from lime_model.scoring.canonical import UserRow, Weights, publish
from lime_model.scoring.cells import Cells

LARGEST, SMALLEST = 1e30, 1e-25  # far inside fp32's 3e38 and 1e-38: sums and steps of int8 need room
TINY = 2.0**-126  # the smallest normal fp32 number; processors may take less for zero
SPARE = 2.0**-24 / 20  # see `in_range`


class ShapeMismatch(LimeError, ValueError):
    """Users, bank and model do not fit each other, or k is no list length."""


class DeviceFull(LimeError, RuntimeError):
    """A device has no memory for even one user."""


class Memory(NamedTuple):
    """A user's history inside the candidates.

    `rows [M]` ascending candidate rows, `features [M, Q]`, `excluded [P, M]`: never recommended by
    that policy.
    """

    rows: Ints
    features: F32
    excluded: Bools

    @classmethod
    def empty(cls, features: int, policies: int = 1) -> Memory:
        """Of a user without history."""
        nothing = np.zeros((policies, 0), np.bool_)
        return cls(np.zeros(0, np.int64), np.zeros((0, features), np.float32), nothing)


class TopK(NamedTuple):
    """`rows [k]` and `scores [k]`, k <= K only when fewer candidates are left to the user.

    `z [k]`: what the scores are without the night's bias, the repeat memory included.
    """

    rows: Ints
    scores: F32
    z: F64

    @classmethod
    def empty(cls) -> TopK:
        """Of nobody."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0))

    def take(self, which: Ints | Bools) -> TopK:
        """Some of them."""
        return TopK(self.rows[which], self.scores[which], self.z[which])

    def join(self, other: TopK, start: int = 0) -> TopK:
        """Both, in no order; the rows of `other` count from `start`."""
        rows, scores = np.append(self.rows, other.rows + start), np.append(self.scores, other.scores)
        return TopK(rows, scores, np.append(self.z, other.z))

    def best(self, k: int) -> TopK:
        """The first k by (score descending, row ascending)."""
        return self.take(np.lexsort((self.rows, -self.scores))[:k])


class Query(NamedTuple):
    """One user to score."""

    factors: UserRow
    memory: Memory


class Backend(ABC):
    """How candidates are filtered; what passes is scored canonically, so backends differ in speed only."""

    @abstractmethod
    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Per user, rows outside the memory that may reach the K best: a superset of them, ascending.

        Args:
            weights: shared parameters.
            users: the users to score.
            candidates: a shard of them; rows count from its start.
            seeds: exact scores that raise the threshold: of the users' own items that no policy excludes,
                and of the best of earlier shards.
            k: list length.
        """

    def fold(self, weights: Weights, links: F64, pools: F64, users: F64) -> list[UserRow]:
        """`Weights.fold_users`."""
        return weights.fold_users(links, pools, users)

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Canonical z `[n]` of the candidates at `rows`."""
        return weights.base(user.factors, candidates.take(rows))


def score_top_k(
    weights: Weights, users: Sequence[Query], shards: Sequence[Cells], k: int, backend: Backend
) -> list[list[TopK]]:
    """Exact top K of every user under every policy `[U][P]`, one shard of candidates after the other.

    The best of earlier shards raise the threshold of later ones; how candidates are cut into
    shards changes no list.

    Args:
        weights: shared parameters.
        users: the users to score; their rows count through all shards.
        shards: factors of all candidates, in item-id order.
        k: list length, at least 1.
        backend: see `backends.make_backend`.

    Raises:
        ShapeMismatch: k < 1, or widths of users and candidates differ.
    """
    check_shapes(weights, users, shards, k)
    if not users:
        return []
    k = min(k, max(1, sum(map(len, shards))))  # backends keep room for k
    own = [TopK.empty()] * len(users)
    parts, start = [], 0  # the users as each shard sees them, and where it starts
    for cells in shards:
        local = [within(user, start, start + len(cells)) for user in users]
        scored = score_memories(weights, local, cells, backend)
        own = [before.join(now, start) for before, now in zip(own, scored, strict=True)]
        parts.append((start, local))
        start += len(cells)
    common = [mine.scores[~user.memory.excluded.any(0)] for user, mine in zip(users, own, strict=True)]
    found = [TopK.empty()] * len(users)
    for cells, (start, local) in zip(shards, parts, strict=True):
        found = _extend(weights, local, cells, start, found, common, k, backend)
    return [
        [mine.take(left).join(best).best(k) for left in ~user.memory.excluded]
        for user, mine, best in zip(users, own, found, strict=True)
    ]


def _extend(
    weights: Weights,
    users: Sequence[Query],
    cells: Cells,
    start: int,
    found: Sequence[TopK],
    common: Sequence[F32],
    k: int,
    backend: Backend,
) -> list[TopK]:
    """The K best outside the memory, with those of the shard that begins at row `start`."""
    seeds = [np.append(scores, best.scores) for scores, best in zip(common, found, strict=True)]
    kept = filter_rows(weights, users, cells, seeds, k, backend)
    better = []
    for user, rows, best in zip(users, kept, found, strict=True):
        z = backend.base(weights, user, cells, rows)
        better.append(best.join(TopK(rows, publish(z, cells.beta(rows)), z), start).best(k))
    return better


def filter_rows(
    weights: Weights, users: Sequence[Query], cells: Cells, seeds: Sequence[F32], k: int, backend: Backend
) -> list[Ints]:
    """`Backend.keep`; of a user whose numbers leave fp32's range of constant relative error, every row."""
    usual = [i for i, user in enumerate(users) if in_range(weights, user, cells)]
    kept = [np.zeros(0, np.int64)] * len(users)
    if usual:
        found = backend.keep(weights, [users[i] for i in usual], cells, [seeds[i] for i in usual], k)
        for i, rows in zip(usual, found, strict=True):
            kept[i] = rows
    for i in set(range(len(users))) - set(usual):
        kept[i] = np.setdiff1d(np.arange(len(cells)), users[i].memory.rows, assume_unique=True)
    return kept


def in_range(weights: Weights, user: Query, cells: Cells) -> bool:
    """Whether the filters' bounds hold: they are relative to the largest terms of a score, so nothing may
    overflow, and what fp32 loses near zero must be little beside them.

    Below `TINY` fp32 has fewer digits, or none: an operation, or a number that is read, may be off by `TINY`
    whatever its size. Such a loss in a hidden unit is multiplied by its w, and one in w by the unit, though
    their product looks ordinary. `lost` adds all of them up; the bounds leave room for `SPARE` of the total.
    """
    out, stats = np.abs(weights.out), cells.stats
    g, e = np.abs(user.factors.g).max(0).astype(np.float64), np.abs(user.factors.e.astype(np.float64))
    hidden, norm, width = g + stats.b_max, float(np.linalg.norm(e)), len(user.factors.g) + 2
    total = out @ hidden + norm * stats.d_norm + stats.beta_max
    largest = max(total, stats.d_norm, *(side.max(initial=0.0) for side in (hidden, e, out)))
    if total == 0.0:
        return bool(largest < LARGEST)
    # By term: links and B of each unit, its w, the products with w, and the dot product with its sides.
    lost = out.sum() * width + hidden.sum() + len(out) + len(e) * (1 + norm + stats.d_norm) + 2
    return bool(largest < LARGEST and total > SMALLEST and TINY * lost < SPARE * total)


def within(user: Query, start: int, stop: int) -> Query:
    """The user as a shard sees it that holds the rows `[start, stop)`: rows counted from its start."""
    rows, features, excluded = user.memory
    low, high = np.searchsorted(rows, [start, stop])
    return Query(user.factors, Memory(rows[low:high] - start, features[low:high], excluded[:, low:high]))


def score_memories(
    weights: Weights, users: Sequence[Query], candidates: Cells, backend: Backend
) -> list[TopK]:
    """Each user's own items `[M]` with their canonical scores, in row order."""
    if not users:
        return []
    rows = [user.memory.rows for user in users]
    base = [backend.base(weights, user, candidates, own) for user, own in zip(users, rows, strict=True)]
    # Together: a pair's boost is its own, and numpy takes longer to begin than a user has numbers.
    every = weights.remember(np.concatenate([user.memory.features for user in users]), np.concatenate(base))
    each = np.split(every, np.cumsum([len(own) for own in rows])[:-1])
    return [TopK(own, publish(z, candidates.beta(own)), z) for own, z in zip(rows, each, strict=True)]


def score_in_halves(
    weights: Weights, users: Sequence[Query], shards: Sequence[Cells], k: int, backend: Backend
) -> list[list[TopK]]:
    """`score_top_k`; a block of users that a device has no memory for is halved and tried again.

    Raises:
        DeviceFull: one user alone is too many.
    """
    try:
        return score_top_k(weights, users, shards, k, backend)
    except torch.OutOfMemoryError as error:
        if len(users) == 1:
            raise DeviceFull(
                f"the device has no memory for one user over {sum(map(len, shards)):,} candidates: {error}; "
                "use a larger device, or night.device: cpu"
            ) from error
    torch.cuda.empty_cache()  # here, where the failed attempt holds nothing any more
    half = len(users) // 2
    parts = (users[:half], users[half:])
    return [lists for part in parts for lists in score_in_halves(weights, part, shards, k, backend)]


def check_shapes(weights: Weights, users: Sequence[Query], shards: Sequence[Cells], k: int) -> None:
    """Refuse what cannot be scored, naming both sides (raises ShapeMismatch)."""
    if k < 1:
        raise ShapeMismatch(f"k is {k}; it must be at least 1")
    links, hidden = weights.raw_links.shape[0], weights.out.shape[0]
    model = (links, hidden, weights.dot_out_bias.shape[0])
    for bank in {tuple(cells.shape) for cells in shards} - {model}:
        raise ShapeMismatch(
            f"the candidate bank has (L, F, E) = {bank} and the model {model}; "
            "rebuild the bank with this bundle (jobs/build_candidate_bank.py)"
        )
    for number, user in enumerate(users):
        _check_user(number, user, model, sum(map(len, shards)))


def _check_user(number: int, user: Query, model: tuple[int, int, int], candidates: int) -> None:
    factors, own = user.factors, user.memory.rows
    found, wanted = (factors.g.shape, factors.e.shape), (model[:2], model[2:])
    if found != wanted:
        raise ShapeMismatch(
            f"the factors of user {number} are {found} and the model wants {wanted}; "
            "rebuild the link states with this bundle (jobs/build_link_states.py)"
        )
    if not (np.isfinite(factors.g).all() and np.isfinite(factors.e).all()):
        raise ShapeMismatch(f"the factors of user {number} hold NaN or infinity")
    if len(own) and (own[0] < 0 or own[-1] >= candidates or (np.diff(own) <= 0).any()):
        raise ShapeMismatch(f"the memory of user {number} must be ascending rows below {candidates}")
