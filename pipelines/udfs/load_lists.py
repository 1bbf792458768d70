"""Load lists into Redis or Valkey from Arrow batches: in pipelines, at a limited rate, part by part.

A list is JSON in rank order under one key (see `list_store.py`): `{"items": […], "scores": […]}`. A finished
part is recorded in the version's hash of parts, so that a load that was killed can continue.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from redis.exceptions import RedisClusterException, RedisError

from pipelines.udfs.list_store import PIPELINE, Client, Store, send
from pipelines.udfs.store_errors import is_transient, store_errors

SCHEMA = "part int, keys long"


class PartKeys(NamedTuple):
    """A part, and how many keys of it were written or found."""

    part: int
    keys: int


@dataclass(frozen=True)
class Load:
    """What a task needs to know about the load that it belongs to."""

    store: Store
    version: str
    keys_per_second: float  # the limit for this task


def load_lists(batches: Iterable[pa.RecordBatch], load: Load) -> Iterator[pa.RecordBatch]:
    """Write lists, and yield how many of each part were written: `SCHEMA`.

    Args:
        batches: `part, user_id, list`, sorted by part; every part is complete.
        load: the store, the version and the rate.

    Raises:
        StoreProblem: the store refuses the lists, or is unreachable for longer than its patience.
    """
    store, talk, pace = load.store, Talk(load.store), Pace(load.keys_per_second)
    done = [store.parts(load.version)]
    for part, keys in each_part(batches, lambda rows: _write(talk, load, rows, pace)):
        talk.send(done, functools.partial(_note_part, part=part, keys=keys))
        # A load that is continued after this time begins again.
        talk.send(done, lambda to, key: to.expire(key, store.ttl_seconds // 4))
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "keys": [keys]})


def _note_part(to: Any, key: str, *, part: int, keys: int) -> None:
    to.hset(key, str(part), keys)


def count_lists(batches: Iterable[pa.RecordBatch], load: Load) -> Iterator[pa.RecordBatch]:
    """Count the lists of each part that the store holds; the arguments are those of `load_lists`."""
    talk = Talk(load.store)
    for part, keys in each_part(batches, lambda rows: _count(talk, load, rows)):
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "keys": [keys]})


def each_part(batches: Iterable[pa.RecordBatch], work: Callable[[pa.RecordBatch], int]) -> Iterator[PartKeys]:
    """Yield each part once `work` is done for all of its rows.

    Args:
        batches: rows with the column `part`, sorted by it.
        work: handles some rows of one part and returns how many keys these were.
    """
    current, total = None, 0
    for batch in batches:
        parts = batch.column("part").to_numpy()
        for part in dict.fromkeys(parts.tolist()):
            if current not in (None, part):
                yield PartKeys(int(current), total)
                total = 0
            current = part
            total += work(batch.filter(pa.array(parts == part)))
    if current is not None:
        yield PartKeys(int(current), total)


class Pace:
    """Limits the keys that are written per second, by sleeping."""

    def __init__(self, keys_per_second: float) -> None:
        self.rate, self.started, self.keys = keys_per_second, time.monotonic(), 0

    def wait(self, keys: int) -> None:
        """Wait after a write of so many keys until the next one may begin."""
        self.keys += keys
        ahead = self.keys / self.rate - (time.monotonic() - self.started)
        if ahead > 0:
            time.sleep(ahead)


class Talk:
    """A connection that waits for a failover to end, and then asks a cluster again which server has what.

    All commands of a call are sent again, so they must be commands that change nothing the second time.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client: Client | None = None

    def send(self, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
        """Send a command for each key, as `list_store.send` does, and try again during a failover.

        Raises:
            StoreProblem: the store is unreachable for longer than its patience, or refuses the commands.
        """
        began, pause = time.monotonic(), 0.1
        while True:
            with store_errors(self.store):
                try:
                    self.client = self.client or self.store.connect()
                    return send(self.client, keys, command)
                except (RedisError, RedisClusterException, OSError) as error:
                    if not is_transient(error) or time.monotonic() - began > self.store.patience_seconds:
                        raise
            self.client = None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _write(talk: Talk, load: Load, rows: pa.RecordBatch, pace: Pace) -> int:
    users, lists = (rows.column(name).to_pylist() for name in ("user_id", "list"))
    for start in range(0, len(users), PIPELINE):
        cut = slice(start, start + PIPELINE)
        keys = [load.store.key(load.version, user) for user in users[cut]]
        texts = dict(zip(keys, lists[cut], strict=True))
        talk.send(keys, functools.partial(_set_list, texts=texts, ttl=load.store.ttl_seconds))
        pace.wait(len(keys))
    return len(users)


def _set_list(to: Any, key: str, *, texts: Mapping[str, str], ttl: int) -> None:
    to.set(key, texts[key], ex=ttl)


def _count(talk: Talk, load: Load, rows: pa.RecordBatch) -> int:
    keys = [load.store.key(load.version, user) for user in rows.column("user_id").to_pylist()]
    cuts = (keys[start : start + PIPELINE] for start in range(0, len(keys), PIPELINE))
    return sum(sum(talk.send(cut, lambda to, key: to.exists(key))) for cut in cuts)
