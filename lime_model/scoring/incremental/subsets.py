"""Some candidates of the bank, packed apart, and those of them that reach a floor for a user.

They are what an incremental night scores (kept_entries.py): changed candidates and movers, the same for many
users. A subset is filtered by the same backends as the whole bank, and what passes is scored canonically, so
its z are those of a full pass to the bit.

Letters: n candidates of the subset, M items of one history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lime_model.arrays import Ints
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Memory, Query, TopK
from lime_model.scoring.topk import Engine


@dataclass(frozen=True)
class CandidateSubset:
    """Candidates at `rows [n]` of the bank, ascending."""

    rows: Ints
    cells: Cells

    @classmethod
    def of(cls, bank: PackedBank, rows: Ints) -> CandidateSubset:
        """Pack the candidates at some rows, given in any order."""
        rows = np.sort(rows)
        return cls(rows, Cells.pack(bank.take(rows)))

    def localise(self, user: Query) -> Query:
        """Return the user with the memory rows that the subset holds, counted within it."""
        own = user.memory
        at = np.searchsorted(self.rows, own.rows)
        here = np.flatnonzero(at < len(self.rows))
        here = here[self.rows[at[here]] == own.rows[here]]
        return Query(user.factors, Memory(at[here], own.features[here], own.excluded[:, here]))

    def find_reaching(
        self, engine: Engine, users: Sequence[Query], floors: Sequence[float], policy: int = 0
    ) -> list[TopK]:
        """Find, for every user, all candidates of the subset whose published score reaches the user's floor.

        Args:
            engine: scores the pairs.
            users: the users, with memory rows of the bank.
            floors: a score for every user; -inf asks for all candidates.
            policy: the row of the memories' `excluded` that applies; what it excludes is left out.

        Returns:
            For every user the candidates in no order, at rows of the bank.
        """
        local, cells = [self.localise(user) for user in users], self.cells
        # With one more seed than there are candidates, the threshold of the K best never leaves the floor.
        size = len(cells) + 1
        seeds = [np.full(size, floor, np.float32) for floor in floors]
        every = []
        owned = engine.score_own_items(local, cells)
        passed = engine.filter_rows(local, cells, seeds, size)
        for user, own, rows, floor in zip(local, owned, passed, floors, strict=True):
            found = own.take(~user.memory.excluded[policy]).join(engine.score_rows(user, cells, rows))
            found = found.take(found.scores >= np.float32(floor))
            every.append(found._replace(rows=self.rows[found.rows]))
        return every
