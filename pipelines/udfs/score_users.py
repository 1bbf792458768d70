"""Score users against the packed bank for their exact top K; `score_users` is the body of a UDF."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from lime_model.bundle import worker_bundle
from lime_model.scoring.backends.choose import make_backend
from lime_model.scoring.bank import PackedBank, open_bank
from lime_model.scoring.incremental.kept_entries import KeptEntries, keep_best
from lime_model.scoring.incremental.night_changes import NightChanges, UnchangedUser, day_number
from lime_model.scoring.queries import TopK
from pipelines.udfs.answer_rows import Answer, AnswerRows
from pipelines.udfs.read_users import StateFolder, User, UserReader
from pipelines.udfs.score_task import ScoreTask


def score_users(
    batches: Iterator[pa.RecordBatch],
    task: ScoreTask,
    bundle: Path,
    bank: Path,
    night_changes: Path | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows of the columns `SCORED` (`pipelines/schemas.py`) for each batch and policy.

    Args:
        batches: `user_id, bucket, state, slots, weights, items, last_ts, features, sound, fingerprint`, and
            `anchor, kept_items, kept_z, tau`, which are null for a user whose list can't be taken over.
        task: what to score and how.
        bundle: folder of the bundle.
        bank: index file of the packed bank.
        night_changes: file of an incremental night (lime_model/scoring/incremental/night_changes.py).

    Raises:
        BundleError: a user's rows are damaged and the task is strict; the message names the user.
    """
    torch.set_num_threads(1)  # one core per task
    scorer = _Scorer(task, bundle, bank, night_changes)
    for batch in batches:
        if batch.num_rows:
            yield from scorer.score(batch)


class _Advanced(NamedTuple):
    """The answers that entries gave, by place in the batch, and the pairs scored for users without one."""

    answers: dict[int, list[Answer]]
    spent: dict[int, int]


class _Scorer:
    """Scores the users of one task, batch by batch."""

    def __init__(self, task: ScoreTask, bundle: Path, bank: Path, night_changes: Path | None) -> None:
        loaded = worker_bundle(bundle)
        states = StateFolder(loaded, make_backend(task.backend, task.device))
        self.task, self.engine = task, states.engine
        self.bank, self.night_changes = _open(bank, task.model_version, night_changes)
        self.reader = UserReader(task, loaded.config, states, self.bank)
        self.rows = AnswerRows(self.bank.item_ids, task.k)

    def score(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a batch, one table for each policy."""
        users, faults = self.reader.read(batch)
        answers, spent = self._advance(batch, users)
        full = [i for i in users if i not in answers]
        wanted = max(self.task.k, self.task.entries)
        lists = self.engine.score_in_halves([users[i].query for i in full], self.bank.shards, wanted)
        for i, by_policy in zip(full, lists, strict=True):
            left = len(self.bank) - users[i].query.memory.excluded.sum(1)
            more = spent.get(i, 0)
            answers[i] = [
                self._full_answer(best, int(n) + more) for best, n in zip(by_policy, left, strict=True)
            ]
        nobody = [Answer(TopK.empty())] * len(self.task.exclude_seen)
        why = [faults.get(i) for i in range(batch.num_rows)]
        for policy, name in enumerate(self.task.exclude_seen):
            mine = [answers.get(i, nobody)[policy] for i in range(batch.num_rows)]
            yield self.rows.write(batch, name, mine, why)

    def _full_answer(self, best: TopK, pairs: int) -> Answer:
        """Return the answer for a user who was scored in full, and keep entries if the task asks for them."""
        if not self.task.entries:
            return Answer(best, pairs)
        kept = keep_best(best, self.task.entries)
        return Answer(best.take(np.arange(len(best.rows)) < self.task.k), pairs, 0, kept, self.task.run_id)

    def _advance(self, batch: pa.RecordBatch, users: Mapping[int, User]) -> _Advanced:
        """Answer users who did not change from their entries, as far as these can prove the list."""
        if self.night_changes is None:
            return _Advanced({}, {})
        anchors = batch.column("anchor").to_pylist()
        entries, tau = self.reader.find_rows(batch.column("kept_items")), batch.column("tau").to_pylist()
        # Users of one anchor night come together, because they share subsets of the bank.
        places = sorted((i for i in users if anchors[i]), key=lambda i: anchors[i])
        unchanged = []
        for i in places:
            kept = KeptEntries(entries[i], np.frombuffer(batch.column("kept_z")[i].as_py(), "<f8"), tau[i])
            unchanged.append(UnchangedUser(users[i].query, kept, day_number(anchors[i]), users[i].lapsed))
        answers, spent = {}, {}
        advances = self.night_changes.advance_users(unchanged, self.task.k, self.engine)
        for i, (found, pairs) in zip(places, advances, strict=True):
            if found:
                avoided = len(self.bank) - int(users[i].query.memory.excluded.sum()) - pairs
                answers[i] = [Answer(found.best, pairs, avoided, found.kept, anchors[i])]
            else:
                spent[i] = pairs
        return _Advanced(answers, spent)


@functools.lru_cache(maxsize=1)  # for the worker's next task: packing the changed candidates takes time
def _open(
    bank: Path, model_version: str, night_changes: Path | None
) -> tuple[PackedBank, NightChanges | None]:
    """Open the packed bank and, on an incremental night, what changed; a shipped file never changes."""
    opened = open_bank(bank, model_version)
    return opened, NightChanges(night_changes, opened) if night_changes else None
