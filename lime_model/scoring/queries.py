"""What scoring reads of a user, and what it returns.

Letters: M items of one history, P policies, Q memory features, K list length, k entries of a list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lime_model.arrays import F32, F64, Bools, Ints
from lime_model.scoring.canonical import UserRow


class Memory(NamedTuple):
    """The items of a user's history that are candidates.

    `rows [M]` are ascending candidate rows, `features [M, Q]` what the repeat memory reads, and
    `excluded [P, M]` says which of the items a policy never recommends.
    """

    rows: Ints
    features: F32
    excluded: Bools

    @classmethod
    def empty(cls, features: int, policies: int = 1) -> Memory:
        """Return the memory of a user without history: Q is `features`, P is `policies`."""
        nothing = np.zeros((policies, 0), np.bool_)
        return cls(np.zeros(0, np.int64), np.zeros((0, features), np.float32), nothing)


class Query(NamedTuple):
    """One user to score."""

    factors: UserRow
    memory: Memory

    def within(self, start: int, stop: int) -> Query:
        """Return the user for the shard that holds rows `[start, stop)`; memory rows count from its start."""
        rows, features, excluded = self.memory
        low, high = np.searchsorted(rows, [start, stop])
        memory = Memory(rows[low:high] - start, features[low:high], excluded[:, low:high])
        return Query(self.factors, memory)


class TopK(NamedTuple):
    """A list of candidates: `rows [k]` and published `scores [k]`.

    k is below K only when the user has fewer candidates left. `z [k]` are the scores without the night's bias
    and with the repeat memory, in float64.
    """

    rows: Ints
    scores: F32
    z: F64

    @classmethod
    def empty(cls) -> TopK:
        """Return a list without entries."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0))

    def take(self, which: Ints | Bools) -> TopK:
        """Return the entries that an index or a mask chooses."""
        return TopK(self.rows[which], self.scores[which], self.z[which])

    def join(self, other: TopK, start: int = 0) -> TopK:
        """Append another list, whose rows count from `start`; the result is in no order."""
        rows, scores = np.append(self.rows, other.rows + start), np.append(self.scores, other.scores)
        return TopK(rows, scores, np.append(self.z, other.z))

    def best(self, k: int) -> TopK:
        """Return the first k entries by (score descending, row ascending)."""
        return self.take(np.lexsort((self.rows, -self.scores))[:k])
