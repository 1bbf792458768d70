"""Write the answers of users as rows of the staged table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lime_model.arrays import Ints
from lime_model.scoring.incremental.kept_entries import KeptEntries
from lime_model.scoring.queries import TopK


class Answer(NamedTuple):
    """A user's list under one policy, and the entries that are kept for later nights.

    `pairs` is how many pairs were scored for it, and `avoided` how many more a full pass would have scored.
    `anchor` is the run that scored the user in full.
    """

    best: TopK
    pairs: int = 0
    avoided: int = 0
    kept: KeptEntries | None = None
    anchor: str | None = None


class AnswerRows:
    """Writes rows of the columns `SCORED` (`pipelines/schemas.py`).

    Args:
        item_ids: the ids of the bank's candidates, by row.
        k: the length of a list.
    """

    def __init__(self, item_ids: pa.Array, k: int) -> None:
        self.item_ids, self.k = item_ids, k

    def write(
        self, batch: pa.RecordBatch, policy: str, answers: Sequence[Answer], faults: Sequence[str | None]
    ) -> pa.RecordBatch:
        """Write one row for each user of a batch.

        Args:
            batch: the users' stored rows.
            policy: the name of the policy.
            answers: the answers for the users, in their order.
            faults: why a user was not scored; None for a user who was.
        """
        kept = [answer.kept for answer in answers]
        columns = {
            "user_id": batch.column("user_id"),
            "bucket": batch.column("bucket"),
            "policy": pa.repeat(policy, batch.num_rows),
            "candidates": self._candidates([answer.best for answer in answers]),
            "shortfall": pa.array([self.k - len(answer.best.rows) for answer in answers], pa.int32()),
            "pairs": pa.array([answer.pairs for answer in answers], pa.int64()),
            "avoided": pa.array([answer.avoided for answer in answers], pa.int64()),
            "fault": pa.array(faults, pa.string()),
            "anchor": pa.array([answer.anchor for answer in answers], pa.string()),
            "kept_items": self._kept_items(kept),
            "kept_z": pa.array([k and k.z.astype("<f8").tobytes() for k in kept], pa.binary()),
            "tau": pa.array([k and k.tau for k in kept], pa.float32()),
            "fingerprint": batch.column("fingerprint"),
        }
        return pa.record_batch(list(columns.values()), names=list(columns))

    def _candidates(self, lists: Sequence[TopK]) -> pa.Array:
        scores = pa.array(np.concatenate([top.scores for top in lists]), pa.float32())
        struct = pa.StructArray.from_arrays(
            [self._ids([top.rows for top in lists]), scores], ["item_id", "score"]
        )
        return pa.ListArray.from_arrays(_offsets([len(top.rows) for top in lists]), struct)

    def _kept_items(self, kept: Sequence[KeptEntries | None]) -> pa.Array:
        rows = [np.zeros(0, np.int64) if k is None else k.rows for k in kept]
        return pa.ListArray.from_arrays(_offsets([len(each) for each in rows]), self._ids(rows))

    def _ids(self, rows: Sequence[Ints]) -> pa.Array:
        return self.item_ids.take(pa.array(np.concatenate(rows)))


def _offsets(lengths: Sequence[int]) -> pa.Array:
    """Return where each of some lists begins and ends among the values of all."""
    return pa.array(np.cumsum([0, *lengths]), pa.int32())
