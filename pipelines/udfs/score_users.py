"""UDF body: states and memories of users to their exact top K over the packed bank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from lime_model.bundle import Bundle, BundleError, worker_bundle
from lime_model.config import DAY_US, MEMORY_FEATURES
from lime_model.encoders import Entries
from lime_model.scoring.backends import make_backend
from lime_model.scoring.bank import open_bank
from lime_model.scoring.canonical import F64, UserRow, Weights, sum_entries
from lime_model.scoring.topk import Memory, Query, TopK, score_in_halves
from lime_model.states import decode_state

SCHEMA = (
    "user_id {user}, bucket int, policy string, candidates array<struct<item_id: {item}, score: float>>, "
    "shortfall int, pairs long, fault string"
)

ExcludeSeen = Literal["none", "all"] | int


@dataclass(frozen=True)
class ScoreTask:
    """Everything a worker needs besides the rows; small and picklable."""

    model_version: str
    night: str
    k: int
    exclude_seen: Mapping[str, ExcludeSeen]  # by policy
    backend: str
    device: str
    strict: bool = True  # fail at a damaged row; else the user gets an empty list and the reason


def score_users(
    batches: Iterator[pa.RecordBatch], task: ScoreTask, bundle: Path, bank: Path
) -> Iterator[pa.RecordBatch]:
    """Yield `user_id, bucket, policy, candidates, shortfall, pairs, fault` for each batch and policy.

    Args:
        batches: `user_id, bucket, state, slots, weights, items, last_ts, features, sound`.
        task: what to score and how.
        bundle: folder of the bundle.
        bank: index file of the packed bank.

    Raises:
        BundleError: a user's rows are damaged and the task is strict, naming the user.
    """
    torch.set_num_threads(1)  # one core per task
    scorer = _Scorer(task, bundle, bank)
    for batch in batches:
        if batch.num_rows:
            yield from scorer.score(batch)


class StateFolder:
    """Link states to the factors that scoring wants."""

    def __init__(self, bundle: Bundle) -> None:
        self.weights = Weights.of(bundle.model)
        self.table: F64 = bundle.model.users.table.weight.detach().double().numpy()

    def fold(self, links: F64, pools: F64, features: Entries) -> UserRow:
        """G_u and e_u of one user from P_u `[L, D]`, pools `[J, D]` and features `[1, P]`.

        Raises:
            BundleError: a number is not finite.
        """
        factors = self.weights.fold_user(links, pools, sum_entries(self.table, features)[0])
        if not (np.isfinite(factors.g).all() and np.isfinite(factors.e).all()):
            raise BundleError("its state and features fold to NaN or infinity; train again")
        return factors


class _Scorer:
    def __init__(self, task: ScoreTask, bundle: Path, bank: Path) -> None:
        loaded = worker_bundle(bundle)
        self.task, self.config = task, loaded.config
        self.states = StateFolder(loaded)
        self.weights = self.states.weights
        self.bank = open_bank(bank, task.model_version)
        self.backend = make_backend(task.backend, task.device)
        self.night_us = int(np.datetime64(task.night, "us").astype(np.int64))

    def score(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        read = [self._query(batch, i) for i in range(batch.num_rows)]
        queries = [query for query in read if isinstance(query, Query)]
        faults = [None if isinstance(query, Query) else query for query in read]
        places = iter(score_in_halves(self.weights, queries, self.bank.shards, self.task.k, self.backend))
        lists = [next(places) if fault is None else None for fault in faults]
        for i, policy in enumerate(self.task.exclude_seen):
            mine = [TopK.empty() if by_policy is None else by_policy[i] for by_policy in lists]
            short = [self.task.k - len(top.rows) for top in mine]
            pairs = [
                len(self.bank) - int(query.memory.excluded[i].sum()) if isinstance(query, Query) else 0
                for query in read
            ]
            yield pa.record_batch(
                [
                    batch.column("user_id"),
                    batch.column("bucket"),
                    pa.repeat(policy, batch.num_rows),
                    self._candidates(mine),
                    pa.array(short, pa.int32()),
                    pa.array(pairs, pa.int64()),
                    pa.array(faults, pa.string()),
                ],
                names=["user_id", "bucket", "policy", "candidates", "shortfall", "pairs", "fault"],
            )

    def _query(self, batch: pa.RecordBatch, i: int) -> Query | str:
        """The user as scoring wants it, or why it must not be scored."""
        try:
            links, pools = decode_state(batch.column("state")[i].as_py(), self.config)
            if not batch.column("sound")[i].as_py():
                raise BundleError(
                    "its state or memory is not what was written (checksum); build it again under a new "
                    "--run-key (jobs/build_link_states.py)"
                )
            factors = self.states.fold(links, pools, _entries(batch, i))
            memory = self._memory(batch, i)
            if not np.isfinite(memory.features).all():
                raise BundleError("its repeat memory holds NaN or infinity; look at the times of its events")
        except BundleError as error:
            if not self.task.strict:
                return str(error)
            raise BundleError(
                f"user {batch.column('user_id')[i].as_py()!r}: {error}, "
                "or let night.max_damaged_share leave such users out"
            ) from error
        return Query(factors, memory)

    def _memory(self, batch: pa.RecordBatch, i: int) -> Memory:
        items = batch.column("items")[i].values
        if items is None or len(items) == 0:
            return Memory.empty(MEMORY_FEATURES, len(self.task.exclude_seen))
        rows = self.bank.find(items.to_numpy(zero_copy_only=False))
        features = np.frombuffer(batch.column("features")[i].as_py(), "<f4").reshape(-1, MEMORY_FEATURES)
        last = batch.column("last_ts")[i].values.cast(pa.int64()).to_numpy()
        here = np.flatnonzero(rows >= 0)
        here = here[np.argsort(rows[here])]
        excluded = [self._excluded(seen, last[here]) for seen in self.task.exclude_seen.values()]
        return Memory(rows[here], features[here], np.stack(excluded))

    def _excluded(
        self, seen: ExcludeSeen, last_us: np.ndarray[Any, np.dtype[np.int64]]
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which items of a history a policy keeps out."""
        if seen == "none":
            return np.zeros(len(last_us), np.bool_)
        if seen == "all":
            return np.ones(len(last_us), np.bool_)
        return last_us >= self.night_us - int(seen) * DAY_US

    def _candidates(self, lists: list[TopK]) -> pa.Array:
        offsets = np.cumsum([0, *(len(top.rows) for top in lists)])
        items = self.bank.item_ids.take(pa.array(np.concatenate([top.rows for top in lists])))
        scores = pa.array(np.concatenate([top.scores for top in lists]), pa.float32())
        struct = pa.StructArray.from_arrays([items, scores], ["item_id", "score"])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)


def _entries(batch: pa.RecordBatch, i: int) -> Entries:
    """Features of a user `[1, P]`."""
    slots, weights = (batch.column(name)[i].values.to_numpy() for name in ("slots", "weights"))
    return Entries(slots[None], weights[None])
