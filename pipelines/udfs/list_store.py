"""A Redis or Valkey that serves lists, a single server or a cluster: its keys, its clients, its scans.

Every command that is sent names one key, so a cluster needs no hash tag and its nodes share the lists evenly:

    {prefix}:current            the version that is served (the run that published it)
    {prefix}:versions           the set of versions that are, or were, on their way
    {prefix}-parts:{version}    the parts of a load that are done, a hash
    {prefix}:{version}:{user}   a list

A version is `YYYY-MM-DD.EPOCH` and no part of a prefix looks like one, so a key is read in one way only,
whatever a user id holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from pipelines.udfs.store_errors import store_errors

Client = redis.Redis | redis.RedisCluster
PIPELINE = 500  # commands sent before an answer is waited for
SCANNED = 5000  # keys that a server looks at for one answer of a scan
VERSION = r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.[^:]+"
GLOB = re.compile(r"[*?\[\]\\]")


@dataclass(frozen=True)
class Store:
    """Where lists go, and how fast."""

    url: str  # without a password
    password: str | None = field(repr=False)
    prefix: str
    cluster: bool | None  # None: not asked yet, see `detect`
    ttl_seconds: int
    patience_seconds: float  # how long a load waits for a failover to end

    @property
    def current(self) -> str:
        """Where the version that is served is named."""
        return f"{self.prefix}:current"

    @property
    def versions(self) -> str:
        """Where the versions lie that are or were on their way."""
        return f"{self.prefix}:versions"

    def parts(self, version: str) -> str:
        """Where the parts of a load lie that are done."""
        return f"{self.prefix}-parts:{version}"

    def key(self, version: str, user: object) -> str:
        """Where the list of a user lies."""
        return f"{self.prefix}:{version}:{user}"

    def read_key(self, key: str) -> tuple[str, str] | None:
        """Version and user of a list's key; None for any other key, a neighbour's among them."""
        if not key.startswith(f"{self.prefix}:"):
            return None
        found = re.fullmatch(rf"({VERSION}):(.+)", key[len(self.prefix) + 1 :], re.DOTALL)
        return (found[1], found[2]) if found else None

    def connect(self) -> Client:
        """A client; it retries what a short break of the network cut off.

        What it and its commands raise is redis-py's; see `store_errors`.
        """
        options: dict[str, Any] = {
            # Bytes of a neighbour's key that are no UTF-8 come back and go out as they are.
            "decode_responses": True, "encoding_errors": "surrogateescape",
            "password": self.password, "socket_timeout": 30, "socket_connect_timeout": 5,
        }  # fmt: skip
        retry = Retry(ExponentialBackoff(cap=2, base=0.1), retries=3)
        if self.cluster:
            return redis.RedisCluster.from_url(self.url, retry=retry, **options)
        return redis.Redis.from_url(self.url, retry=retry, **options)

    def detect(self) -> Store:
        """The same store that knows whether it is a cluster.

        Raises:
            StoreProblem: the server does not answer.
        """
        if self.cluster is not None:
            return self
        with store_errors(self):
            info: Any = replace(self, cluster=False).connect().info("cluster")
        return replace(self, cluster=bool(info.get("cluster_enabled", 0)))


def scan_lists(client: Client, store: Store, version: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Key, version and user of the lists that any server holds, of one version or all; one may come twice."""
    pattern = f"{escape_glob(store.prefix)}:{escape_glob(version) if version else ''}*"
    for node in _servers(client):
        for key in node.scan_iter(match=pattern, count=SCANNED):
            parsed = store.read_key(str(key))
            if parsed and version in (None, parsed[0]):
                yield str(key), *parsed


def _servers(client: Client) -> list[redis.Redis]:
    """A connection to each server that has keys of its own."""
    if isinstance(client, redis.RedisCluster):
        primaries: list[ClusterNode] = client.get_primaries()  # type: ignore[no-untyped-call]
        return [client.get_redis_connection(node) for node in primaries]
    return [client]


def escape_glob(text: str) -> str:
    """A pattern that matches this text alone."""
    return GLOB.sub(r"\\\g<0>", text)


def send(client: Client, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
    """Send a command for each key, all at once; the answers in their order."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        command(pipeline, key)
    return list(pipeline.execute())


def unlink(client: Client, keys: Sequence[str]) -> int:
    """Remove keys, wherever in a cluster they lie; how many there were."""
    return sum(send(client, keys, lambda pipeline, key: pipeline.unlink(key))) if keys else 0
