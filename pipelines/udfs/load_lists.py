"""Lists into Redis or Valkey, from Arrow batches: pipelined, at a rate, part by part.

A list is one key (see `list_store.py`) of JSON in rank order: `{"items": […], "scores": […]}`. A part that is
done is a field of the version's hash of parts, so that a load that was killed goes on.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from redis.exceptions import RedisClusterException, RedisError

from pipelines.udfs.list_store import PIPELINE, Client, Store, send
from pipelines.udfs.store_errors import is_transient, store_errors

SCHEMA = "part int, keys long"


@dataclass(frozen=True)
class Load:
    """What a task knows of the load that it is a part of."""

    store: Store
    version: str
    keys_per_second: float  # of this task


def load_lists(batches: Iterable[pa.RecordBatch], load: Load) -> Iterator[pa.RecordBatch]:
    """Write lists, and say how many of each part.

    Args:
        batches: `part, user_id, list`, sorted by part; every part is whole.

    Raises:
        StoreProblem: the store refuses them, or is away for longer than its patience.
    """
    store, talk, pace = load.store, Talk(load.store), Pace(load.keys_per_second)
    done = [store.parts(load.version)]
    for part, keys in each_part(batches, lambda rows: _write(talk, load, rows, pace)):
        talk.send(done, functools.partial(_note_part, part=part, keys=keys))
        # A load that goes on later than this begins anew.
        talk.send(done, lambda to, key: to.expire(key, store.ttl_seconds // 4))
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "keys": [keys]})


def _note_part(to: Any, key: str, *, part: int, keys: int) -> None:
    to.hset(key, str(part), keys)


def count_lists(batches: Iterable[pa.RecordBatch], load: Load) -> Iterator[pa.RecordBatch]:
    """How many of the lists of each part are there; reads as `load_lists`."""
    talk = Talk(load.store)
    for part, keys in each_part(batches, lambda rows: _count(talk, load, rows)):
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "keys": [keys]})


def each_part(
    batches: Iterable[pa.RecordBatch], work: Callable[[pa.RecordBatch], int]
) -> Iterator[tuple[int, int]]:
    """The part's number and the sum of `work` over its rows, when all of them were worked on."""
    current, total = None, 0
    for batch in batches:
        parts = batch.column("part").to_numpy()
        for part in dict.fromkeys(parts.tolist()):
            if current not in (None, part):
                yield int(current), total
                total = 0
            current = part
            total += work(batch.filter(pa.array(parts == part)))
    if current is not None:
        yield int(current), total


class Pace:
    """Sleeps so that no more than a number of keys is written a second."""

    def __init__(self, keys_per_second: float) -> None:
        self.rate, self.started, self.keys = keys_per_second, time.monotonic(), 0

    def wait(self, keys: int) -> None:
        """Before the next write, after one of so many keys."""
        self.keys += keys
        ahead = self.keys / self.rate - (time.monotonic() - self.started)
        if ahead > 0:
            time.sleep(ahead)


class Talk:
    """A client that waits for a failover to end, and asks a cluster anew who holds what.

    Commands are sent again as a whole, so they must be ones that change nothing the second time.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client: Client | None = None

    def send(self, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
        """See `list_store.send`.

        Raises:
            StoreProblem: the store is away for longer than its patience, or refuses the commands.
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
