"""What a worker knows of an incremental night beside the bank: which candidates changed, whose bias
rose, and the parts of the bank that hold their pairs.

It comes as one Arrow table of tonight's candidates: `item_id`, `since` and `reference` (anchors.py), and per
anchor night one column with the bias of that night, null for a candidate that was none. The schema's
metadata says which night is which; nights are days since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lime_model.arrays import Ints
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.canonical import Weights
from lime_model.scoring.incremental.kept_entries import (
    AdvancedList,
    CandidateChanges,
    KeptEntries,
    Movers,
    ReferenceBias,
    advance_list,
)
from lime_model.scoring.incremental.subsets import CandidateSubset, find_reaching
from lime_model.scoring.topk import Backend, Query, TopK

MOST_MOVERS = 0.05  # of the candidates: with more, a full pass is not much dearer and slack is back
MOST_CHANGED = 0.25  # of the candidates: from there on everybody is scored in full, as each worker packs them
SMALLEST_SUBSET = 64  # movers of the smallest part
USERS_PER_PASS = 32  # users that meet the changed candidates in one pass
SUBSET_BYTES = 128 << 20  # of movers that a worker holds packed


def too_many_changed(changed: int, candidates: int) -> bool:
    """Whether everybody is scored in full; also when there are no candidates at all."""
    return changed >= MOST_CHANGED * candidates


def day_number(name: str) -> int:
    """Days since 1970 of a night, or of a run, whose id begins with its night."""
    return int(np.datetime64(name.split(".")[0], "D").astype(np.int64))


def write_night_changes(path: Path, table: pa.Table, night: int, anchors: dict[int, str]) -> None:
    """Write the table with tonight's number and, per anchor night, the name of its column."""
    about = {"night": night, "anchors": {str(anchor): name for anchor, name in anchors.items()}}
    table = table.replace_schema_metadata({"tonight": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class NightChanges:
    """An incremental night over a bank."""

    def __init__(self, path: Path, bank: PackedBank) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = json.loads(table.schema.metadata[b"tonight"])
        rows = bank.find(table["item_id"].to_numpy())
        here = rows >= 0

        def align(name: str, absent: float = 0) -> NDArray[Any]:
            given = table[name].fill_null(absent).to_numpy()
            values = np.full(len(bank), absent, given.dtype)
            values[rows[here]] = given[here]
            return values

        reference = ReferenceBias(align("since").astype(np.int64), align("reference"))
        beta = bank.beta()
        references = {
            # A bias that is lost may have risen by anything: then users of that night are scored in full.
            int(night): reference.at(int(night), align(name, -np.inf))
            for night, name in about["anchors"].items()
        }
        changed = reference.since == about["night"]
        self.candidates = CandidateChanges(
            beta,
            changed,
            {anchor: Movers.find(beta, reference) for anchor, reference in references.items()},
            max(float(np.abs(side).max(initial=0.0)) for side in (beta, *references.values())),
            int(MOST_MOVERS * len(bank)),
        )
        self.bank = bank
        many = too_many_changed(int(changed.sum()), len(bank))
        self.changed = None if many else CandidateSubset.of(bank, np.flatnonzero(changed))
        self._movers: dict[tuple[int, int], CandidateSubset] = {}  # the oldest first

    def movers(self, anchor: int, count: int) -> CandidateSubset:
        """The first `count` movers, and some more: users share parts whose sizes double."""
        size = SMALLEST_SUBSET
        while size < count:
            size *= 2
        if (anchor, size) not in self._movers:
            while sum(part.cells.words.nbytes for part in self._movers.values()) > SUBSET_BYTES:
                self._movers.pop(next(iter(self._movers)))
            self._movers[anchor, size] = CandidateSubset.of(
                self.bank, self.candidates.movers[anchor].rows[:size]
            )
        return self._movers[anchor, size]

    def advance_users(
        self,
        users: Sequence[UnchangedUser],
        k: int,
        weights: Weights,
        backend: Backend,
    ) -> Iterator[tuple[AdvancedList | None, int]]:
        """NightChanges's answer of each user, or None (see `kept_entries.advance_list`), and how many pairs that took.

        Also None for an anchor night that this night does not know, and for all users when too many
        candidates changed.
        """
        if self.changed is None:
            yield from [(None, 0)] * len(users)
            return
        for start in range(0, len(users), USERS_PER_PASS):
            block = users[start : start + USERS_PER_PASS]
            queries, floors = [user.query for user in block], [user.kept.tau for user in block]
            changed = find_reaching(weights, queries, self.changed, floors, backend)
            for user, found in zip(block, changed, strict=True):
                if user.anchor not in self.candidates.movers:
                    yield None, 0
                    continue
                pairs = UserPairScorer(self, weights, user, backend, len(self.changed.rows))
                answer = advance_list(user.kept, found, user.anchor, self.candidates, k, pairs)
                yield answer, pairs.count


class UnchangedUser(NamedTuple):
    """A user who did not change since the night before: entries (in rows of tonight), the anchor night
    that they date from, and the rows that were excluded the night before and are not tonight."""

    query: Query
    kept: KeptEntries
    anchor: int
    lapsed: Ints


@dataclass
class UserPairScorer:
    """Scores further pairs of one user, and counts them."""

    changes: NightChanges
    weights: Weights
    user: UnchangedUser
    backend: Backend
    count: int

    def lapsed(self) -> TopK:
        """See `anchors.PairScorer`."""
        if len(self.user.lapsed) == 0:
            return TopK.empty()
        return self._reaching(CandidateSubset.of(self.changes.bank, self.user.lapsed), -np.inf)

    def movers(self, anchor: int, count: int, floor: float) -> TopK:
        """See `anchors.PairScorer`."""
        return self._reaching(self.changes.movers(anchor, count), floor)

    def _reaching(self, part: CandidateSubset, floor: float) -> TopK:
        self.count += len(part.rows)
        return find_reaching(self.weights, [self.user.query], part, [floor], self.backend)[0]
