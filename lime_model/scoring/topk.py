"""The one scoring operation: from users × candidates to each user's exact top K.

    TopK(rows, scores) for every user and policy, ordered by (score descending, row ascending)

Candidate rows are in item-id order, so a tie goes to the smaller item id. The items of a user's history are
scored first and apart, with the repeat memory, and the dense pass over all candidates leaves them out.
Policies over the same candidates differ only in which of the user's own items they exclude, so one dense pass
serves all of them. Backends are filters: what passes is scored canonically, so all of them return the same
lists to the bit.

Letters: U users, C candidates, M items of one history, P policies, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lime_model.arrays import F32, F64, Ints
from lime_model.errors import LimeError
from lime_model.scoring.backend import Backend
from lime_model.scoring.canonical import UserRow, Weights, round_scores
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Query, TopK
from lime_model.scoring.safe_range import in_safe_range
from lime_model.scoring.shapes import check_shapes


class DeviceFull(LimeError, RuntimeError):
    """A device has no memory for even one user."""


class _LocalShard(NamedTuple):
    """A shard, its first row in the bank, and the users with memory rows that count from there."""

    cells: Cells
    start: int
    users: list[Query]


@dataclass(frozen=True)
class Engine:
    """The parameters of a model and the backend that filters.

    Args:
        weights: shared parameters.
        backend: see `lime_model.scoring.backends.choose.make_backend`.
    """

    weights: Weights
    backend: Backend

    def score_top_k(self, users: Sequence[Query], shards: Sequence[Cells], k: int) -> list[list[TopK]]:
        """Compute the exact top K of every user under every policy `[U][P]`.

            engine = Engine(Weights.of(bundle.model), make_backend("native", "cpu"))
            for user, by_policy in zip(users, engine.score_top_k(users, bank.shards, k=100), strict=True):
                item_ids = bank.item_ids.take(by_policy[0].rows)

        Shards are read one after the other, and the best of earlier shards raise the threshold of later ones.
        How the candidates are cut into shards changes no list.

        Args:
            users: the users to score; memory rows count through all shards.
            shards: factors of all candidates, in item-id order.
            k: list length, at least 1.

        Raises:
            ShapeMismatch: k is below 1, or widths of users and candidates differ.
        """
        check_shapes(self.weights, users, shards, k)
        if not users:
            return []
        k = min(k, max(1, sum(map(len, shards))))  # backends reserve room for k
        own = [TopK.empty()] * len(users)
        parts, start = [], 0
        for cells in shards:
            part = _LocalShard(cells, start, [user.within(start, start + len(cells)) for user in users])
            scored = self.score_own_items(part.users, cells)
            own = [before.join(now, start) for before, now in zip(own, scored, strict=True)]
            parts.append(part)
            start += len(cells)
        # An own item that no policy excludes is on every list that it is good enough for: its score is a
        # threshold.
        seeds = [mine.scores[~user.memory.excluded.any(0)] for user, mine in zip(users, own, strict=True)]
        found = [TopK.empty()] * len(users)
        for part in parts:
            found = self._add_shard(part, found, seeds, k)
        return [
            [mine.take(left).join(best).best(k) for left in ~user.memory.excluded]
            for user, mine, best in zip(users, own, found, strict=True)
        ]

    def score_in_halves(self, users: Sequence[Query], shards: Sequence[Cells], k: int) -> list[list[TopK]]:
        """Score as `score_top_k` does, halving a block of users for which the device has no memory.

        Args:
            users: the users to score.
            shards: factors of all candidates.
            k: list length.

        Raises:
            DeviceFull: the device has no memory for one user alone.
        """
        try:
            return self.score_top_k(users, shards, k)
        except torch.OutOfMemoryError as error:
            if len(users) == 1:
                raise DeviceFull(
                    f"the device has no memory for one user over {sum(map(len, shards)):,} candidates: "
                    f"{error}; use a larger device, or night.device: cpu"
                ) from error
        torch.cuda.empty_cache()  # after the except block: nothing refers to the failed attempt any more
        half = len(users) // 2
        parts = (users[:half], users[half:])
        return [lists for part in parts for lists in self.score_in_halves(part, shards, k)]

    def score_own_items(self, users: Sequence[Query], candidates: Cells) -> list[TopK]:
        """Score each user's own items `[M]` canonically, repeat memory included, in row order."""
        if not users:
            return []
        rows = [user.memory.rows for user in users]
        base = [
            self.backend.base(self.weights, user, candidates, own)
            for user, own in zip(users, rows, strict=True)
        ]
        # All users in one call: the boost of a pair depends on that pair alone, and NumPy's overhead per call
        # exceeds the work for one user.
        features = np.concatenate([user.memory.features for user in users])
        every = self.weights.remember(features, np.concatenate(base))
        each = np.split(every, np.cumsum([len(own) for own in rows])[:-1])
        return [
            TopK(own, round_scores(z, candidates.beta(own)), z) for own, z in zip(rows, each, strict=True)
        ]

    def score_rows(self, user: Query, cells: Cells, rows: Ints) -> TopK:
        """Score candidates outside the user's memory canonically, in the order of `rows`.

        Args:
            user: the user; only its factors are read.
            cells: a shard.
            rows: rows of the shard `[n]`.
        """
        z = self.backend.base(self.weights, user, cells, rows)
        return TopK(rows, round_scores(z, cells.beta(rows)), z)

    def filter_rows(self, users: Sequence[Query], cells: Cells, seeds: Sequence[F32], k: int) -> list[Ints]:
        """Filter with the backend; for a user outside fp32's safe range, keep every row outside the memory.

        Args:
            users: the users to score.
            cells: a shard; rows count from its start.
            seeds: exact scores that raise each user's threshold, see `Backend.keep`.
            k: list length.

        Returns:
            For every user a superset of the rows of the K best outside the memory, ascending.
        """
        usual = [i for i, user in enumerate(users) if in_safe_range(self.weights, user, cells)]
        kept = [np.zeros(0, np.int64)] * len(users)
        if usual:
            found = self.backend.keep(
                self.weights, [users[i] for i in usual], cells, [seeds[i] for i in usual], k
            )
            for i, rows in zip(usual, found, strict=True):
                kept[i] = rows
        for i in set(range(len(users))) - set(usual):
            kept[i] = np.setdiff1d(np.arange(len(cells)), users[i].memory.rows, assume_unique=True)
        return kept

    def fold_users(self, links: F64, pools: F64, users: F64) -> list[UserRow]:
        """Fold users with the backend.

        Args:
            links: P_u `[U, L, D]`.
            pools: `[U, J, D]`.
            users: x_u `[U, X]`.
        """
        return self.backend.fold(self.weights, links, pools, users)

    def _add_shard(
        self, shard: _LocalShard, found: Sequence[TopK], seeds: Sequence[F32], k: int
    ) -> list[TopK]:
        """Extend the K best outside the memory by the candidates of a shard."""
        raised = [np.append(scores, best.scores) for scores, best in zip(seeds, found, strict=True)]
        kept = self.filter_rows(shard.users, shard.cells, raised, k)
        return [
            best.join(self.score_rows(user, shard.cells, rows), shard.start).best(k)
            for user, rows, best in zip(shard.users, kept, found, strict=True)
        ]
