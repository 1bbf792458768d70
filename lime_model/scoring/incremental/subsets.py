"""Some candidates of the bank, packed apart, and which of them reach a floor for a user.

What an incremental night scores (anchors.py): changed candidates and movers, the same for many
users. A part is filtered by the same backends as the whole bank; what passes is scored
canonically, so its z are to the bit those of a full pass.

Letters: C candidates of the bank, n of the part, M items of one history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lime_model.arrays import Ints
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.canonical import Weights, publish
from lime_model.scoring.cells import Cells
from lime_model.scoring.topk import Backend, Memory, Query, TopK, filter_rows, score_memories


@dataclass(frozen=True)
class CandidateSubset:
    """Candidates at `rows [n]` of the bank, ascending."""

    rows: Ints
    cells: Cells

    @classmethod
    def of(cls, bank: PackedBank, rows: Ints) -> CandidateSubset:
        """The candidates at some rows, in any order."""
        rows = np.sort(rows)
        return cls(rows, Cells.pack(bank.take(rows)))

    def localise(self, user: Query) -> Query:
        """The user as this part sees it: memory rows counted in the part."""
        own = user.memory
        at = np.searchsorted(self.rows, own.rows)
        here = np.flatnonzero(at < len(self.rows))
        here = here[self.rows[at[here]] == own.rows[here]]
        return Query(user.factors, Memory(at[here], own.features[here], own.excluded[:, here]))


def find_reaching(
    weights: Weights,
    users: Sequence[Query],
    part: CandidateSubset,
    floors: Sequence[float],
    backend: Backend,
    policy: int = 0,
) -> list[TopK]:
    """Per user, every candidate of the part whose published score reaches the user's floor; in no order.

    Args:
        weights: shared parameters.
        users: their memory in rows of the bank; what `policy` excludes is left out.
        part: the candidates.
        floors: -inf for all candidates.
        backend: see `backends.make_backend`.
        policy: which row of the memory's `excluded` holds.

    Returns:
        Rows are those of the bank.
    """
    local, cells = [part.localise(user) for user in users], part.cells
    # With one more seed than there are candidates, the threshold of the K best never leaves the floor.
    size = len(cells) + 1
    seeds = [np.full(size, floor, np.float32) for floor in floors]
    every = []
    owned = score_memories(weights, local, cells, backend)
    passed = filter_rows(weights, local, cells, seeds, size, backend)
    for user, own, rows, floor in zip(local, owned, passed, floors, strict=True):
        own = own.take(~user.memory.excluded[policy])
        z = backend.base(weights, user, cells, rows)
        found = own.join(TopK(rows, publish(z, cells.beta(rows)), z))
        found = found.take(found.scores >= np.float32(floor))
        every.append(found._replace(rows=part.rows[found.rows]))
    return every
