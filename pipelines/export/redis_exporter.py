"""Export published lists to Redis or Valkey, a single server or a cluster.

A night is loaded next to the one that is served, under keys that contain its version (the run that published
it). Its lists are counted, and then one command sets `{prefix}:current` to its version. A reader reads the
version and then the list, so it never gets a mixture of two nights. The previous version is kept for a grace
period that is longer than the time between these two reads.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors.explain import explained
from pipelines.export.exporter import ExportDelayed, ExportFailed, ExportFault, Lists, Report, night_of
from pipelines.schemas import USER_ID
from pipelines.settings.export import RedisExport
from pipelines.udfs.list_store import PIPELINE, Store, scan_lists, unlink
from pipelines.udfs.load_lists import SCHEMA, Load, count_lists, load_lists
from pipelines.udfs.person import Person
from pipelines.udfs.store_errors import StoreProblem, show_url, store_errors

log = logging.getLogger(__name__)

PARTS = 64  # the number of parts of a load; a load that was killed and runs again skips those that are done
BY_REMEDY = {"retry": ExportDelayed, "person": ExportFailed, "bug": ExportFault}

# This sets `current` only if it has not changed since the load began, so one of two concurrent exports fails.
FLIP = """
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] and now ~= ARGV[2] then return now end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""


class RedisExporter:
    """An `Exporter` that loads lists into Redis or Valkey."""

    name = "redis"

    def __init__(self, settings: RedisExport) -> None:
        self.settings = settings
        self.served: str | None = None  # the version that readers get, as far as it is known
        self.started = time.monotonic()

    @cached_property
    def store(self) -> Store:
        """The store that gets the lists."""
        to = self.settings
        return Store(
            to.url, store_password(to), to.prefix, to.cluster, to.ttl_days * 86_400, to.patience_seconds
        ).detect()

    @cached_property
    def client(self) -> Any:  # redis-py's types do not distinguish synchronous from asynchronous answers
        """The driver's client of the store."""
        return self.store.connect()

    def find_newer(self, lists: Lists) -> str | None:
        """Find a run of a later night that is served.

        A later night that the warehouse has not published is a mistake: it is logged and does not count.
        """
        before = self._begin()
        if night_of(before) <= lists.night:
            return None
        if lists.holds(before):
            return before
        log.warning(
            "%s serves %s, a night that the warehouse has not published, or not in its time; %s replaces it",
            self.settings.prefix, before, lists.run_id,
        )  # fmt: skip
        return None

    def load(self, lists: Lists) -> Report:
        """Write the lists under keys of their own version, without the parts that are done.

        Raises:
            ExportFailed: the store refuses the lists or can't be reached.
        """
        before = self._begin()
        with self._explained():
            self.client.sadd(self.store.versions, lists.run_id)
            done = sorted(int(part) for part in self.client.hkeys(self.store.parts(lists.run_id)))
            listed = _as_json(lists.rows)
            missing = listed.where(~F.col("part").isin(done)) if done else listed
            _run(missing, self._load(lists), load_lists)
        return {"lists": lists.count, "parts_reused": len(done), "instead_of": before or None}

    def verify(self, lists: Lists) -> None:
        """Count the lists that the store holds.

        Raises:
            ExportDelayed: lists are missing; the next load writes all of them again.
        """
        users = lists.rows.select(_part(), USER_ID)
        with self._explained():
            found = _run(users, self._load(lists), count_lists)
            if found == lists.count:
                return
            self.client.delete(self.store.parts(lists.run_id))
        raise ExportDelayed(
            f"the store at {show_url(self.store.url)}: {found} of {lists.count} lists of {lists.run_id} are "
            "there (does it evict, or did a failover lose them? see maxmemory); run the job again, it loads "
            f"all of them; {self.served or 'nothing'} is served as before"
        )

    def flip(self, lists: Lists) -> Report:
        """Serve the lists, and remove the versions that are no longer served after the grace period.

        Raises:
            ExportFailed: another export changed the served version since this one began.
        """
        before = self._begin()
        with self._explained():
            self.served = f"{before or 'nothing'} or {lists.run_id}"  # in case the answer is lost
            now = self.client.eval(FLIP, 1, self.store.current, before, lists.run_id)
            self.served = str(now)
        if now != lists.run_id:
            raise ExportFailed(
                f"the store at {show_url(self.store.url)}: {now} was put in place by another export "
                "meanwhile; it is served. Export again what should be served"
            )
        with self._explained():
            # Without this key, the next load of this run writes all lists again, with a new time to live.
            self.client.unlink(self.store.parts(lists.run_id))
            dropped = self._drop_others(lists, before)
        return {"versions_dropped": dropped, "seconds": round(time.monotonic() - self.started, 3)}

    def withdraw(self, night: str) -> None:
        """Do nothing, as the store serves the night until another one is exported."""

    def forget(self, person: Person) -> int:
        """Delete the person's keys in every version that is known or found by a scan; return their number."""
        with self._explained():
            keys = set[str]()
            versions = {str(version) for version in self.client.smembers(self.store.versions)}
            versions.add(str(self.client.get(self.store.current) or ""))
            for key, version, user in scan_lists(self.store.connect(), self.store):
                versions.add(version)
                if person.matches(user):
                    keys.add(key)
            keys |= {self.store.key(version, person.id) for version in versions - {""}}
            return sum(unlink(self.client, cut) for cut in _cuts(sorted(keys)))

    def count(self, person: Person) -> int:
        """Count the person's keys by a scan of all keys on every primary server."""
        with self._explained():
            found = scan_lists(self.store.connect(), self.store)
            return len({key for key, _, user in found if person.matches(user)})

    def _begin(self) -> str:
        """Return the version that is served when the export begins; it is read only once."""
        if self.served is None:
            with self._explained():
                self.served = str(self.client.get(self.store.current) or "")
        return self.served

    def _load(self, lists: Lists) -> Load:
        return Load(self.store, lists.run_id, self.settings.keys_per_second / _tasks(lists.rows))

    def _drop_others(self, lists: Lists, before: str) -> list[str]:
        """Remove the other versions after the grace period; return them.

        A version of a later night that was published may still be loading. It is kept until it is served, or
        until its keys expire.
        """
        known = {str(version) for version in self.client.smembers(self.store.versions)}
        others = sorted(
            version
            for version in (known | {before}) - {lists.run_id, ""}
            if version == before or night_of(version) <= lists.night or not lists.holds(version)
        )
        if others:
            time.sleep(self.settings.grace_seconds)
        for version in others:
            for keys in _cuts(key for key, _, _ in scan_lists(self.store.connect(), self.store, version)):
                unlink(self.client, keys)
                time.sleep(len(keys) / self.settings.keys_per_second)
            self.client.unlink(self.store.parts(version))
            self.client.srem(self.store.versions, version)
        return others

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of the block, which uses the store here or in tasks, into `ExportFailed`.

        Raises:
            ExportFailed: the store failed; the message names the cause, the remedy, and what is served now.
        """
        try:
            with explained(), store_errors(self.store):
                yield
        except StoreProblem as problem:
            failed = BY_REMEDY[problem.remedy](f"{problem}; {self._meanwhile()}")
        else:
            return
        raise failed from None

    def _meanwhile(self) -> str:
        if self.served is None:
            return "what it serves is as it was"
        return f"{self.served or 'nothing'} is served meanwhile"


def _part() -> Any:
    return F.pmod(F.xxhash64(USER_ID), F.lit(PARTS)).cast("int").alias("part")


def _as_json(rows: DataFrame) -> DataFrame:
    """Select `part, user_id, list`.

    The JVM writes the JSON, as Python would take longer to write the numbers than the network takes for the
    lists.
    """
    columns = F.col("candidates.item_id").alias("items"), F.col("candidates.score").alias("scores")
    return rows.select(_part(), USER_ID, F.to_json(F.struct(*columns)).alias("list"))


def _tasks(rows: DataFrame) -> int:
    return min(PARTS, rows.sparkSession.sparkContext.defaultParallelism)


def _run(lists: DataFrame, load: Load, work: Any) -> int:
    """Run a load or a count; return the number of keys of all parts."""
    sorted_lists = lists.repartition(_tasks(lists), "part").sortWithinPartitions("part")
    done = sorted_lists.mapInArrow(lambda batches: work(batches, load), SCHEMA)
    return int(done.agg(F.sum("keys")).collect()[0][0] or 0)


def _cuts(keys: Iterable[str]) -> Iterator[list[str]]:
    cut: list[str] = []
    for key in keys:
        cut.append(key)
        if len(cut) == PIPELINE:
            yield cut
            cut = []
    if cut:
        yield cut


def store_password(settings: RedisExport) -> str | None:
    """Read the password from the environment variable that the settings name; return None if they name none.

    Raises:
        ExportFailed: the variable is not set.
    """
    name = settings.password_env
    if name and name not in os.environ:
        raise ExportFailed(
            # The name is not in the message: an operator may have put the password itself there.
            "the environment variable that export.redis.password_env names is not set; set it, or leave the "
            "key out for a store without a password"
        )
    return os.environ[name] if name else None
