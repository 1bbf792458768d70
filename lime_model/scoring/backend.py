"""The interface of a backend: a filter that may keep too many candidates and never too few.

Letters: U users, n rows that are asked for, L links, J pools, D width, X user width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.canonical import UserRow, Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Query


class Backend(ABC):
    """How candidates are filtered. What passes is scored canonically, so backends differ in speed only."""

    @abstractmethod
    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Find, for every user, the rows outside the memory that may reach the K best.

        Args:
            weights: shared parameters.
            users: the users to score; their numbers lie inside fp32's safe range (safe_range.py).
            candidates: a shard; rows count from its start.
            seeds: for every user, exact scores that raise the threshold: those of the user's own items that
                no policy excludes, and those of the best of earlier shards.
            k: list length.

        Returns:
            For every user ascending rows, a superset of those of the K best.
        """

    def fold(self, weights: Weights, links: F64, pools: F64, users: F64) -> list[UserRow]:
        """Fold users to the bits of `Weights.fold_users`.

        Args:
            weights: shared parameters.
            links: P_u `[U, L, D]`.
            pools: `[U, J, D]`.
            users: x_u `[U, X]`.
        """
        return weights.fold_users(links, pools, users)

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Compute the canonical z `[n]` of some candidates, without the repeat memory.

        Args:
            weights: shared parameters.
            user: the user; only its factors are read.
            candidates: a shard.
            rows: rows of the shard `[n]`.
        """
        return weights.base(user.factors, candidates.take(rows))
