"""A Redis or Valkey store that serves lists, as a single server or a cluster: its keys, clients and scans.

Every command names a single key, so a cluster needs no hash tags and its nodes share the lists evenly:

    {prefix}:current            the version that is served (the run that published it)
    {prefix}:versions           the set of versions whose load has begun
    {prefix}-parts:{version}    the finished parts of a load, a hash
    {prefix}:{version}:{user}   a list

A version is `YYYY-MM-DD.EPOCH`, and no part of a prefix looks like one. So a key can be read in one way only,
whatever characters a user id has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from pipelines.udfs.store_errors import StoreAddress, store_errors

Client = redis.Redis | redis.RedisCluster
PIPELINE = 500  # commands that are sent before the answers are read
SCANNED = 5000  # keys that a server examines for one answer of a scan
VERSION = r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.[^:]+"
GLOB = re.compile(r"[*?\[\]\\]")


class ListKey(NamedTuple):
    """What the key of a list says."""

    version: str
    user: str


class StoredList(NamedTuple):
    """A list that a store holds: its key, and what the key says."""

    key: str
    version: str
    user: str


@dataclass(frozen=True)
class Store(StoreAddress):
    """The address of a store, its keys and its time limits."""

    prefix: str  # the start of every key
    cluster: bool | None  # None: unknown until `detect` asks the server
    ttl_seconds: int  # after which a list expires
    patience_seconds: float  # how long a load waits for a failover to end

    @property
    def current(self) -> str:
        """The key of the version that is served."""
        return f"{self.prefix}:current"

    @property
    def versions(self) -> str:
        """The key of the set of versions whose load has begun."""
        return f"{self.prefix}:versions"

    def parts(self, version: str) -> str:
        """Return the key of the finished parts of a load."""
        return f"{self.prefix}-parts:{version}"

    def key(self, version: str, user: object) -> str:
        """Return the key of the list of a user."""
        return f"{self.prefix}:{version}:{user}"

    def read_key(self, key: str) -> ListKey | None:
        """Read the key of a list; return None for any other key, such as one of another prefix."""
        if not key.startswith(f"{self.prefix}:"):
            return None
        found = re.fullmatch(rf"({VERSION}):(.+)", key[len(self.prefix) + 1 :], re.DOTALL)
        return ListKey(found[1], found[2]) if found else None

    def connect(self) -> Client:
        """Make a client; it tries a command again that a short break of the network cut off.

        The client and its commands raise redis-py's own errors; see `store_errors`.
        """
        options: dict[str, Any] = {
            # Keys of other programs that are not UTF-8 are read and written without a change.
            "decode_responses": True, "encoding_errors": "surrogateescape",
            "password": self.password, "socket_timeout": 30, "socket_connect_timeout": 5,
        }  # fmt: skip
        retry = Retry(ExponentialBackoff(cap=2, base=0.1), retries=3)
        if self.cluster:
            return redis.RedisCluster.from_url(self.url, retry=retry, **options)
        return redis.Redis.from_url(self.url, retry=retry, **options)

    def detect(self) -> Store:
        """Return the same store with `cluster` set, after asking the server.

        Raises:
            StoreProblem: the server does not answer.
        """
        if self.cluster is not None:
            return self
        with store_errors(self):
            info: Any = replace(self, cluster=False).connect().info("cluster")
        return replace(self, cluster=bool(info.get("cluster_enabled", 0)))


def scan_lists(client: Client, store: Store, version: str | None = None) -> Iterator[StoredList]:
    """Yield the lists that the servers of a store hold; a list may come twice.

    Args:
        client: a client of the store.
        store: the store.
        version: the version whose lists are wanted; None for all versions.
    """
    pattern = f"{escape_glob(store.prefix)}:{escape_glob(version) if version else ''}*"
    for node in _servers(client):
        for key in node.scan_iter(match=pattern, count=SCANNED):
            parsed = store.read_key(str(key))
            if parsed and version in (None, parsed.version):
                yield StoredList(str(key), *parsed)


def _servers(client: Client) -> list[redis.Redis]:
    """Return a connection to each server that has keys of its own."""
    if isinstance(client, redis.RedisCluster):
        primaries: list[ClusterNode] = client.get_primaries()  # type: ignore[no-untyped-call]
        return [client.get_redis_connection(node) for node in primaries]
    return [client]


def escape_glob(text: str) -> str:
    """Return a glob pattern that matches only this text."""
    return GLOB.sub(r"\\\g<0>", text)


def send(client: Client, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
    """Send a command for each key, all at once; return the answers in the order of the keys.

    Args:
        client: a client of the store.
        keys: the keys.
        command: calls a command of the pipeline (its first argument) for a key (its second).
    """
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        command(pipeline, key)
    return list(pipeline.execute())


def unlink(client: Client, keys: Sequence[str]) -> int:
    """Remove keys from whichever servers hold them; return how many there were."""
    return sum(send(client, keys, lambda pipeline, key: pipeline.unlink(key))) if keys else 0
