"""Lists into Redis or Valkey, from Arrow batches: pipelined, at a rate, part by part.

A list is one key, `{prefix}:{version}:{user}`, of JSON in rank order: `{"items": […], "scores": […]}`.
A part that is done is a field of the hash `{prefix}-parts:{version}`, so that a load that was killed goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import redis

SCHEMA = "part int, keys long"
PIPELINE = 500  # commands sent before an answer is waited for


@dataclass(frozen=True)
class Store:
    """Where lists go, and how fast."""

    url: str
    password: str | None
    prefix: str
    version: str
    ttl_seconds: int
    keys_per_second: float  # of this task

    def key(self, user: object) -> str:
        """Where the list of a user lies."""
        return f"{self.prefix}:{self.version}:{user}"

    @property
    def parts(self) -> str:
        """Where the parts that are done lie."""
        return f"{self.prefix}-parts:{self.version}"

    def connect(self) -> redis.Redis:
        """A client; it retries what a short break of the network cut off."""
        retry = redis.retry.Retry(redis.backoff.ExponentialBackoff(cap=5, base=0.1), retries=5)
        return redis.Redis.from_url(
            self.url, password=self.password, decode_responses=True, retry=retry, socket_timeout=30
        )


def load_lists(batches: Iterable[pa.RecordBatch], store: Store) -> Iterator[pa.RecordBatch]:
    """Write lists, and say how many of each part.

    Args:
        batches: `part, user_id, list`, sorted by part; every part is whole.
    """
    client, pace = store.connect(), Pace(store.keys_per_second)
    for part, keys in each_part(batches, lambda rows: _write(client, store, rows, pace)):
        client.hset(store.parts, str(part), keys)
        client.expire(store.parts, store.ttl_seconds // 4)  # a load that goes on later begins anew
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "keys": [keys]})


def count_lists(batches: Iterable[pa.RecordBatch], store: Store) -> Iterator[pa.RecordBatch]:
    """How many of the lists of each part are there; reads as `load_lists`."""
    client = store.connect()
    for part, keys in each_part(batches, lambda rows: _count(client, store, rows)):
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


def _write(client: redis.Redis, store: Store, rows: pa.RecordBatch, pace: Pace) -> int:
    users, lists = (rows.column(name).to_pylist() for name in ("user_id", "list"))
    for start in range(0, len(users), PIPELINE):
        cut = slice(start, start + PIPELINE)
        pipeline = client.pipeline(transaction=False)
        for user, text in zip(users[cut], lists[cut], strict=True):
            pipeline.set(store.key(user), text, ex=store.ttl_seconds)
        pipeline.execute()
        pace.wait(len(users[cut]))
    return len(users)


def _count(client: redis.Redis, store: Store, rows: pa.RecordBatch) -> int:
    keys = [store.key(user) for user in rows.column("user_id").to_pylist()]
    found: Any = [client.exists(*keys[start : start + PIPELINE]) for start in range(0, len(keys), PIPELINE)]
    return int(sum(found))
