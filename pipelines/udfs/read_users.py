"""Read stored rows of users into what scoring needs: folded factors and the repeat memory.

Letters: L links, J pools, D width, P entries of a row's features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lime_model.arrays import F64, Ints
from lime_model.bundle import Bundle, BundleError
from lime_model.config import MEMORY_FEATURES, ModelConfig
from lime_model.model.entries import Entries
from lime_model.rows.link_states import decode_state
from lime_model.scoring.backend import Backend
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.canonical import UserRow, Weights, sum_entries
from lime_model.scoring.queries import Memory, Query
from lime_model.scoring.topk import Engine
from pipelines.policies.arrays import find_excluded
from pipelines.udfs.score_task import ScoreTask, day_start_us


class StateFolder:
    """Folds link states, pools and features into the factors that scoring reads.

    Args:
        bundle: the model.
        backend: the backend that folds.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.engine = Engine(Weights.of(bundle.model), backend)
        self.table: F64 = bundle.model.users.table.weight.detach().double().numpy()

    def fold(self, links: Sequence[F64], pools: Sequence[F64], features: Sequence[Entries]) -> list[UserRow]:
        """Fold users to G_u and e_u.

        Args:
            links: P_u `[L, D]` of each user.
            pools: `[J, D]` of each user.
            features: `[1, P]` of each user.
        """
        if not links:
            return []
        users = np.concatenate([sum_entries(self.table, each) for each in features])
        return self.engine.fold_users(np.stack(links), np.stack(pools), users)


class User(NamedTuple):
    """A user to score, and the rows of the bank that the base night excluded and this night does not."""

    query: Query
    lapsed: Ints


class Users(NamedTuple):
    """The users of a batch by their place in it, and why the others must not be scored."""

    users: dict[int, User]
    faults: dict[int, str]


class _Stored(NamedTuple):
    """What is stored for a user, before folding; for `lapsed` see `User`."""

    links: F64
    pools: F64
    features: Entries
    memory: Memory
    lapsed: Ints


class UserReader:
    """Reads the users of a batch for one task.

    Args:
        task: the night, its policies, and whether a damaged row ends the task.
        config: the model's sizes.
        states: folds what is read.
        bank: the candidates.
    """

    def __init__(self, task: ScoreTask, config: ModelConfig, states: StateFolder, bank: PackedBank) -> None:
        self.task, self.config, self.states, self.bank = task, config, states, bank
        self.night_us = day_start_us(task.night)
        self.base_us = day_start_us(task.base_ds) if task.base_ds else None

    def read(self, batch: pa.RecordBatch) -> Users:
        """Read and fold all users of a batch.

        Raises:
            BundleError: a user's rows are damaged and the task is strict; the message names the user.
        """
        stored: dict[int, _Stored] = {}
        faults: dict[int, str] = {}
        last = split_lists(batch.column("last_ts"), lambda times: times.cast(pa.int64()).to_numpy())
        for i, own in enumerate(self.find_rows(batch.column("items"))):
            try:
                stored[i] = self._read(batch, i, own, last[i])
            except BundleError as error:
                faults[i] = self._refuse(batch, i, error)
        every = stored.values()
        rows = self.states.fold(
            [user.links for user in every], [user.pools for user in every], [user.features for user in every]
        )
        users: dict[int, User] = {}
        for (i, user), row in zip(stored.items(), rows, strict=True):
            try:
                check_finite(row)
            except BundleError as error:
                faults[i] = self._refuse(batch, i, error)
            else:
                users[i] = User(Query(row, user.memory), user.lapsed)
        return Users(users, faults)

    def find_rows(self, lists: pa.ListArray) -> list[Ints]:
        """Return the candidate rows of the item ids of each list, -1 for an id that is no candidate."""
        return split_lists(lists, lambda items: self.bank.find(items.to_numpy(zero_copy_only=False)))

    def _refuse(self, batch: pa.RecordBatch, i: int, error: BundleError) -> str:
        """Return the fault of the user at place `i`, or fail when the task is strict."""
        if self.task.strict:
            raise BundleError(
                f"user {batch.column('user_id')[i].as_py()!r}: {error}, "
                "or let night.max_damaged_share leave such users out"
            ) from error
        return str(error)

    def _read(self, batch: pa.RecordBatch, i: int, rows: Ints, last: Ints) -> _Stored:
        """Read what is stored for the user at place `i`.

        Args:
            batch: the rows of all users.
            i: place of the user.
            rows: candidate rows of the user's own items, -1 for an item that is no candidate.
            last: time of each item's last event, microseconds since 1970.

        Raises:
            BundleError: the stored row is damaged.
        """
        links, pools = decode_state(batch.column("state")[i].as_py(), self.config)
        if not batch.column("sound")[i].as_py():
            raise BundleError(
                "its state or memory is not what was written (checksum); build it again under a new "
                "--run-key (jobs/build_link_states.py)"
            )
        memory, lapsed = self._read_memory(batch, i, rows, last)
        if not np.isfinite(memory.features).all():
            raise BundleError("its repeat memory holds NaN or infinity; look at the times of its events")
        return _Stored(links, pools, _read_entries(batch, i), memory, lapsed)

    def _read_memory(self, batch: pa.RecordBatch, i: int, rows: Ints, last: Ints) -> tuple[Memory, Ints]:
        """Return the user's own items among the candidates, and the rows whose exclusion lapsed."""
        here = np.flatnonzero(rows >= 0)
        here = here[np.argsort(rows[here])]
        if len(here) == 0:
            return Memory.empty(MEMORY_FEATURES, len(self.task.exclude_seen)), rows[here]
        features = np.frombuffer(batch.column("features")[i].as_py(), "<f4").reshape(-1, MEMORY_FEATURES)
        last = last[here]
        seen = list(self.task.exclude_seen.values())
        excluded = np.stack([find_excluded(each, last, self.night_us) for each in seen])
        lapsed = np.zeros(len(here), np.bool_)
        if self.base_us is not None:
            lapsed = find_excluded(seen[0], last, self.base_us) & ~excluded[0]
        return Memory(rows[here], features[here], excluded), rows[here][lapsed]


def check_finite(factors: UserRow) -> None:
    """Refuse factors that would make every score of a user meaningless.

    Raises:
        BundleError: a number is not finite.
    """
    if not (np.isfinite(factors.g).all() and np.isfinite(factors.e).all()):
        raise BundleError("its state and features fold to NaN or infinity; train again")


def split_lists(lists: pa.ListArray, convert: Callable[[pa.Array], Ints]) -> list[Ints]:
    """Convert the values of all lists in one call, and return one array for each list."""
    ends = lists.offsets.to_numpy()
    return np.split(convert(lists.values.slice(ends[0], ends[-1] - ends[0])), ends[1:-1] - ends[0])


def _read_entries(batch: pa.RecordBatch, i: int) -> Entries:
    """Return the features `[1, P]` of the user at place `i`."""
    slots, weights = (batch.column(name)[i].values.to_numpy() for name in ("slots", "weights"))
    return Entries(slots[None], weights[None])
