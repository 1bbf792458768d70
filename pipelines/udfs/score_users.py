"""UDF body: states and memories of users to their exact top K over the packed bank."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from lime_model.arrays import F64, Bools, Ints
from lime_model.bundle import Bundle, BundleError, worker_bundle
from lime_model.config import DAY_US, MEMORY_FEATURES
from lime_model.model.encoders import Entries
from lime_model.rows.link_states import decode_state
from lime_model.scoring.backends.choose import make_backend
from lime_model.scoring.bank import PackedBank, open_bank
from lime_model.scoring.canonical import UserRow, Weights, sum_entries
from lime_model.scoring.incremental.kept_entries import KeptEntries, keep_best
from lime_model.scoring.incremental.night_changes import NightChanges, UnchangedUser, day_number
from lime_model.scoring.topk import Backend, Memory, Query, TopK, score_in_halves

SCHEMA = (
    "user_id {user}, bucket int, policy string, candidates array<struct<item_id: {item}, score: float>>, "
    "shortfall int, pairs long, avoided long, fault string, anchor string, kept_items array<{item}>, "
    "kept_z binary, tau float, fingerprint string"
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
    run_id: str = ""
    entries: int = 0  # to keep of each list for later nights; of a task with one policy
    base_ds: str = ""  # the night whose entries the users bring


def score_users(
    batches: Iterator[pa.RecordBatch],
    task: ScoreTask,
    bundle: Path,
    bank: Path,
    night_changes: Path | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows of `SCHEMA` for each batch and policy.

    `pairs` were scored; `avoided`: what a full pass would have scored beside them.

    Args:
        batches: `user_id, bucket, state, slots, weights, items, last_ts, features, sound, fingerprint`, and
            `anchor, kept_items, kept_z, tau`, null for a user whose list can't be taken over.
        task: what to score and how.
        bundle: folder of the bundle.
        bank: index file of the packed bank.
        night_changes: file of an incremental night (lime_model/scoring/incremental/night_changes.py).

    Raises:
        BundleError: a user's rows are damaged and the task is strict, naming the user.
    """
    torch.set_num_threads(1)  # one core per task
    scorer = _Scorer(task, bundle, bank, night_changes)
    for batch in batches:
        if batch.num_rows:
            yield from scorer.score(batch)


class Answer(NamedTuple):
    """What a user gets under one policy, and what is kept of it."""

    best: TopK
    pairs: int = 0
    avoided: int = 0
    kept: KeptEntries | None = None
    anchor: str | None = None  # the run that scored the user in full


def check_finite(factors: UserRow) -> None:
    """Refuse what would make every score of a user meaningless.

    Raises:
        BundleError: a number is not finite.
    """
    if not (np.isfinite(factors.g).all() and np.isfinite(factors.e).all()):
        raise BundleError("its state and features fold to NaN or infinity; train again")


class StateFolder:
    """Link states to the factors that scoring wants."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.weights, self.backend = Weights.of(bundle.model), backend
        self.table: F64 = bundle.model.users.table.weight.detach().double().numpy()

    def fold(self, links: Sequence[F64], pools: Sequence[F64], features: Sequence[Entries]) -> list[UserRow]:
        """G_u and e_u of users from their P_u `[L, D]`, pools `[J, D]` and features `[1, P]`."""
        if not links:
            return []
        users = np.concatenate([sum_entries(self.table, each) for each in features])
        return self.backend.fold(self.weights, np.stack(links), np.stack(pools), users)


class _Stored(NamedTuple):
    """What is stored of a user, not folded yet; rows of the bank that the base night excluded and tonight
    does not."""

    links: F64
    pools: F64
    features: Entries
    memory: Memory
    lapsed: Ints


class _User(NamedTuple):
    """What is scored, and `_Stored.lapsed`."""

    query: Query
    lapsed: Ints


class _Scorer:
    def __init__(self, task: ScoreTask, bundle: Path, bank: Path, night_changes: Path | None) -> None:
        loaded = worker_bundle(bundle)
        self.task, self.config = task, loaded.config
        self.backend = make_backend(task.backend, task.device)
        self.states = StateFolder(loaded, self.backend)
        self.weights = self.states.weights
        self.bank, self.night_changes = _open(bank, task.model_version, night_changes)
        self.night_us = _microseconds(task.night)
        self.base_us = _microseconds(task.base_ds) if night_changes else 0

    def score(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        users, faults = self._users(batch)
        answers, spent = self._advance(batch, users)
        full = [i for i in users if i not in answers]
        wanted = max(self.task.k, self.task.entries)
        lists = score_in_halves(
            self.weights, [users[i].query for i in full], self.bank.shards, wanted, self.backend
        )
        for i, by_policy in zip(full, lists, strict=True):
            left = len(self.bank) - users[i].query.memory.excluded.sum(1)
            more = spent.get(i, 0)
            answers[i] = [self._answer(best, int(n) + more) for best, n in zip(by_policy, left, strict=True)]
        nobody = [Answer(TopK.empty())] * len(self.task.exclude_seen)
        for policy, name in enumerate(self.task.exclude_seen):
            mine = [answers.get(i, nobody)[policy] for i in range(batch.num_rows)]
            yield self._rows(batch, name, mine, [faults.get(i) for i in range(batch.num_rows)])

    def _answer(self, best: TopK, pairs: int) -> Answer:
        """Of a user scored in full."""
        if not self.task.entries:
            return Answer(best, pairs)
        kept = keep_best(best, self.task.entries)
        return Answer(best.take(np.arange(len(best.rows)) < self.task.k), pairs, 0, kept, self.task.run_id)

    def _advance(
        self, batch: pa.RecordBatch, users: Mapping[int, _User]
    ) -> tuple[dict[int, list[Answer]], dict[int, int]]:
        """Answers of users who did not change, as far as their entries can prove them; and the pairs that
        were scored for the others of them."""
        if self.night_changes is None:
            return {}, {}
        anchors = batch.column("anchor").to_pylist()
        entries, tau = self._find(batch.column("kept_items")), batch.column("tau").to_pylist()
        # Those of one anchor together, as they share parts of the bank.
        brings = sorted((i for i in users if anchors[i]), key=lambda i: anchors[i])
        standing = []
        for i in brings:
            kept = KeptEntries(entries[i], np.frombuffer(batch.column("kept_z")[i].as_py(), "<f8"), tau[i])
            standing.append(UnchangedUser(users[i].query, kept, day_number(anchors[i]), users[i].lapsed))
        answers, spent = {}, {}
        for i, (found, pairs) in zip(
            brings,
            self.night_changes.advance_users(standing, self.task.k, self.weights, self.backend),
            strict=True,
        ):
            if found:
                avoided = len(self.bank) - int(users[i].query.memory.excluded.sum()) - pairs
                answers[i] = [Answer(found.best, pairs, avoided, found.kept, anchors[i])]
            else:
                spent[i] = pairs
        return answers, spent

    def _find(self, lists: pa.ListArray) -> list[Ints]:
        """Candidate rows of the item ids of each list, -1 for one that is no candidate."""
        return _split(lists, lambda items: self.bank.find(items.to_numpy(zero_copy_only=False)))

    def _rows(
        self, batch: pa.RecordBatch, policy: str, answers: list[Answer], faults: list[str | None]
    ) -> pa.RecordBatch:
        kept = [answer.kept for answer in answers]
        columns = {
            "user_id": batch.column("user_id"),
            "bucket": batch.column("bucket"),
            "policy": pa.repeat(policy, batch.num_rows),
            "candidates": self._candidates([answer.best for answer in answers]),
            "shortfall": pa.array([self.task.k - len(answer.best.rows) for answer in answers], pa.int32()),
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

    def _kept_items(self, kept: list[KeptEntries | None]) -> pa.Array:
        rows = [np.zeros(0, np.int64) if k is None else k.rows for k in kept]
        items = self.bank.item_ids.take(pa.array(np.concatenate(rows)))
        offsets = np.cumsum([0, *map(len, rows)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)

    def _users(self, batch: pa.RecordBatch) -> tuple[dict[int, _User], dict[int, str]]:
        """By place in the batch, the users as scoring wants them, and why the others must not be scored."""
        stored: dict[int, _Stored] = {}
        users: dict[int, _User] = {}
        faults: dict[int, str] = {}

        def refuse(i: int, error: BundleError) -> None:
            if self.task.strict:
                raise BundleError(
                    f"user {batch.column('user_id')[i].as_py()!r}: {error}, "
                    "or let night.max_damaged_share leave such users out"
                ) from error
            faults[i] = str(error)

        last = _split(batch.column("last_ts"), lambda times: times.cast(pa.int64()).to_numpy())
        for i, own in enumerate(self._find(batch.column("items"))):
            try:
                stored[i] = self._read(batch, i, own, last[i])
            except BundleError as error:
                refuse(i, error)
        every = stored.values()
        rows = self.states.fold(
            [user.links for user in every], [user.pools for user in every], [user.features for user in every]
        )
        for (i, user), row in zip(stored.items(), rows, strict=True):
            try:
                check_finite(row)
            except BundleError as error:
                refuse(i, error)
            else:
                users[i] = _User(Query(row, user.memory), user.lapsed)
        return users, faults

    def _read(self, batch: pa.RecordBatch, i: int, rows: Ints, last: Ints) -> _Stored:
        """What is stored of a user.

        Args:
            rows: candidate rows of the user's own items, -1 for none.
            last: when each of them came last, microseconds since 1970.

        Raises:
            BundleError: it is damaged.
        """
        links, pools = decode_state(batch.column("state")[i].as_py(), self.config)
        if not batch.column("sound")[i].as_py():
            raise BundleError(
                "its state or memory is not what was written (checksum); build it again under a new "
                "--run-key (jobs/build_link_states.py)"
            )
        memory, lapsed = self._memory(batch, i, rows, last)
        if not np.isfinite(memory.features).all():
            raise BundleError("its repeat memory holds NaN or infinity; look at the times of its events")
        return _Stored(links, pools, _entries(batch, i), memory, lapsed)

    def _memory(self, batch: pa.RecordBatch, i: int, rows: Ints, last: Ints) -> tuple[Memory, Ints]:
        """The user's own items among the candidates; and those that the base night excluded, tonight not."""
        here = np.flatnonzero(rows >= 0)
        here = here[np.argsort(rows[here])]
        if len(here) == 0:
            return Memory.empty(MEMORY_FEATURES, len(self.task.exclude_seen)), rows[here]
        features = np.frombuffer(batch.column("features")[i].as_py(), "<f4").reshape(-1, MEMORY_FEATURES)
        last = last[here]
        seen = list(self.task.exclude_seen.values())
        excluded = np.stack([_excluded(each, last, self.night_us) for each in seen])
        lapsed = np.zeros(len(here), np.bool_)
        if self.night_changes:
            lapsed = _excluded(seen[0], last, self.base_us) & ~excluded[0]
        return Memory(rows[here], features[here], excluded), rows[here][lapsed]

    def _candidates(self, lists: list[TopK]) -> pa.Array:
        offsets = np.cumsum([0, *(len(top.rows) for top in lists)])
        items = self.bank.item_ids.take(pa.array(np.concatenate([top.rows for top in lists])))
        scores = pa.array(np.concatenate([top.scores for top in lists]), pa.float32())
        struct = pa.StructArray.from_arrays([items, scores], ["item_id", "score"])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)


@functools.lru_cache(maxsize=1)  # for the worker's next task: what changed is packed anew each time
def _open(
    bank: Path, model_version: str, night_changes: Path | None
) -> tuple[PackedBank, NightChanges | None]:
    """The packed bank, and what an incremental night knows beside it; files that have landed never change."""
    opened = open_bank(bank, model_version)
    return opened, NightChanges(night_changes, opened) if night_changes else None


def _split(lists: pa.ListArray, make: Callable[[pa.Array], Ints]) -> list[Ints]:
    """One array per list, of what `make` makes of all their values at once."""
    ends = lists.offsets.to_numpy()
    return np.split(make(lists.values.slice(ends[0], ends[-1] - ends[0])), ends[1:-1] - ends[0])


def _entries(batch: pa.RecordBatch, i: int) -> Entries:
    """Features of a user `[1, P]`."""
    slots, weights = (batch.column(name)[i].values.to_numpy() for name in ("slots", "weights"))
    return Entries(slots[None], weights[None])


def _excluded(seen: ExcludeSeen, last_us: Ints, night_us: int) -> Bools:
    """Which items of a history a policy keeps out of a night, by when they came last."""
    if isinstance(seen, int):
        return last_us >= night_us - seen * DAY_US
    return np.full(len(last_us), seen == "all")


def _microseconds(ds: str) -> int:
    """When a night begins, since 1970."""
    return int(np.datetime64(ds, "us").astype(np.int64))
