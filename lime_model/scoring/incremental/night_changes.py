"""An incremental night on a worker: which candidates changed, and whose bias rose.

All of it is read from one Arrow table of this night's candidates: `item_id`, `since` and `reference`
(kept_entries.py), and for each anchor night a column with the bias of that night, null where the item was no
candidate. The schema's metadata gives the number of each night, in days since 1970.
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
from lime_model.scoring.incremental.kept_entries import (
    AdvancedList,
    CandidateChanges,
    KeptEntries,
    Movers,
    ReferenceBias,
    advance_list,
)
from lime_model.scoring.incremental.subsets import CandidateSubset
from lime_model.scoring.queries import Query, TopK
from lime_model.scoring.topk import Engine

MOST_MOVERS = 0.05  # of the candidates: beyond it a full pass costs little more, and it restores the slack
MOST_CHANGED = 0.25  # of the candidates: beyond it all users are scored in full, as workers pack the changed
SMALLEST_SUBSET = 64  # movers of the smallest subset
USERS_PER_PASS = 32  # users that share one pass over the changed candidates
SUBSET_BYTES = 128 << 20  # bytes of packed movers that a worker holds
METADATA = "tonight"  # key of the schema's metadata


def too_many_changed(changed: int, candidates: int) -> bool:
    """Whether all users are scored in full; also true when there are no candidates at all."""
    return changed >= MOST_CHANGED * candidates


def day_number(name: str) -> int:
    """Return the days since 1970 of a night, or of a run, whose id begins with its night."""
    return int(np.datetime64(name.split(".")[0], "D").astype(np.int64))


def write_night_changes(path: Path, table: pa.Table, night: int, anchors: dict[int, str]) -> None:
    """Write the table that `NightChanges` reads.

    Args:
        path: the file to write.
        table: this night's candidates with the columns that the module names.
        night: number of this night.
        anchors: the column of each anchor night's bias, by the night's number.
    """
    about = {"night": night, "anchors": {str(anchor): name for anchor, name in anchors.items()}}
    table = table.replace_schema_metadata({METADATA: json.dumps(about)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class UnchangedUser(NamedTuple):
    """A user who did not change since the night before.

    The rows of `kept` are this night's, `anchor` is the number of the night that the entries date from, and
    `lapsed` are the rows that were excluded on the night before and are not any more.
    """

    query: Query
    kept: KeptEntries
    anchor: int
    lapsed: Ints


class Advance(NamedTuple):
    """The answer for a user, or None where only a full pass gives it; and the number of pairs scored."""

    answer: AdvancedList | None
    pairs: int


class NightChanges:
    """What changed on an incremental night, lined up with the rows of its bank.

    Args:
        path: a file of `write_night_changes`.
        bank: the night's bank.
    """

    def __init__(self, path: Path, bank: PackedBank) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = json.loads(table.schema.metadata[METADATA.encode()])
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
            # A missing bias may have risen by any amount, so users of that anchor night are scored in full.
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
        """Return the first `count` movers of an anchor night, or more: sizes double, and users share them."""
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

    def advance_users(self, users: Sequence[UnchangedUser], k: int, engine: Engine) -> Iterator[Advance]:
        """Compute the exact list of each user from the user's entries, where they can prove it.

        Args:
            users: the users; those of one anchor night in a row share subsets of the bank.
            k: list length.
            engine: scores the pairs.

        Yields:
            One `Advance` for each user, in their order. It has no answer when the entries can't prove the
            list (`kept_entries.advance_list`), when the user's anchor night is not in the table, and, for all
            users, when too many candidates changed.
        """
        if self.changed is None:
            yield from [Advance(None, 0)] * len(users)
            return
        for start in range(0, len(users), USERS_PER_PASS):
            block = users[start : start + USERS_PER_PASS]
            queries, floors = [user.query for user in block], [user.kept.tau for user in block]
            changed = self.changed.find_reaching(engine, queries, floors)
            for user, found in zip(block, changed, strict=True):
                if user.anchor not in self.candidates.movers:
                    yield Advance(None, 0)
                    continue
                pairs = UserPairScorer(self, engine, user, len(self.changed.rows))
                answer = advance_list(user.kept, found, user.anchor, self.candidates, k, pairs)
                yield Advance(answer, pairs.count)


@dataclass
class UserPairScorer:
    """A `PairScorer` over the bank that counts the pairs it scores.

    Args:
        changes: the night's changes, which share their subsets.
        engine: scores the pairs.
        user: the user.
        count: pairs that were scored for the user before.
    """

    changes: NightChanges
    engine: Engine
    user: UnchangedUser
    count: int

    def lapsed(self) -> TopK:
        """Score the candidates whose exclusion has lapsed, see `PairScorer`."""
        if len(self.user.lapsed) == 0:
            return TopK.empty()
        return self._reaching(CandidateSubset.of(self.changes.bank, self.user.lapsed), -np.inf)

    def movers(self, anchor: int, count: int, floor: float) -> TopK:
        """Score movers, see `PairScorer`.

        Args:
            anchor: number of the anchor night.
            count: how many movers the list needs.
            floor: the score that a mover must reach to be returned.
        """
        return self._reaching(self.changes.movers(anchor, count), floor)

    def _reaching(self, part: CandidateSubset, floor: float) -> TopK:
        self.count += len(part.rows)
        return part.find_reaching(self.engine, [self.user.query], [floor])[0]
