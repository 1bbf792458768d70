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
from numpy.typing import NDArray

from lime_model.scoring.canonical import F32, F64, UserRow, Weights
from lime_model.scoring.cells import Cells, Ints


class Memory(NamedTuple):
    """A user's history inside the candidates.

    `rows [M]` ascending candidate rows, `features [M, Q]`, `excluded [P, M]`: never recommended by
    that policy.
    """

    rows: Ints
    features: F32
    excluded: NDArray[np.bool_]

    @classmethod
    def empty(cls, features: int, policies: int = 1) -> Memory:
        """Of a user without history."""
        nothing = np.zeros((policies, 0), np.bool_)
        return cls(np.zeros(0, np.int64), np.zeros((0, features), np.float32), nothing)


class TopK(NamedTuple):
    """`rows [k]` and `scores [k]`, k <= K only when fewer candidates are left to the user."""

    rows: Ints
    scores: F32


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
            candidates: all of them.
            seeds: exact scores of the users' own items that no policy excludes; they raise the threshold.
            k: list length.
        """

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Canonical z `[n]` of the candidates at `rows`."""
        return weights.base(user.factors, candidates.take(rows))


def score_top_k(
    weights: Weights, users: Sequence[Query], candidates: Cells, k: int, backend: Backend
) -> list[list[TopK]]:
    """Exact top K of every user under every policy `[U][P]`.

    Args:
        weights: shared parameters.
        users: the users to score.
        candidates: factors of all candidates, in item-id order.
        k: list length, at least 1.
        backend: see `backends.make_backend`.

    Raises:
        ValueError: k < 1, or widths of users and candidates differ.
    """
    check_shapes(weights, users, candidates, k)
    if not users:
        return []
    own = [score_memory(weights, user, candidates, backend) for user in users]
    seeds = [scores[~user.memory.excluded.any(0)] for user, scores in zip(users, own, strict=True)]
    kept = backend.keep(weights, users, candidates, seeds, k)
    lists = []
    for user, rows, mine in zip(users, kept, own, strict=True):
        memory = user.memory
        scores = weights.publish(backend.base(weights, user, candidates, rows), candidates.beta(rows))
        lists.append(
            [
                order(np.append(memory.rows[left], rows), np.append(mine[left], scores), k)
                for left in ~memory.excluded
            ]
        )
    return lists


def score_memory(weights: Weights, user: Query, candidates: Cells, backend: Backend) -> F32:
    """Canonical scores of the user's own items `[M]`."""
    rows = user.memory.rows
    z = backend.base(weights, user, candidates, rows)
    return weights.publish(z, candidates.beta(rows), user.memory.features)


def order(rows: Ints, scores: F32, k: int) -> TopK:
    """The first k by (score descending, row ascending)."""
    best = np.lexsort((rows, -scores))[:k]
    return TopK(rows[best], scores[best])


def check_shapes(weights: Weights, users: Sequence[Query], candidates: Cells, k: int) -> None:
    """Refuse what cannot be scored, naming both sides."""
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    links, hidden = weights.raw_links.shape[0], weights.out.shape[0]
    bank = tuple(candidates.shape)
    model = (links, hidden, weights.dot_out_bias.shape[0])
    if bank != model:
        raise ValueError(
            f"the candidate bank has (L, F, E) = {bank} and the model {model}; "
            "rebuild the bank with this bundle (jobs/build_candidate_bank.py)"
        )
    for user in users[:1]:
        if user.factors.g.shape != (links, hidden):
            raise ValueError(
                f"the user factors are {user.factors.g.shape} and the model wants {(links, hidden)}; "
                "rebuild the link states with this bundle (jobs/build_link_states.py)"
            )
