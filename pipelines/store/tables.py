"""Delta tables under one warehouse root: read at a version, replace a slice, append once."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.schemas import SQL_TYPES, TABLES
from pipelines.settings.settings import Settings
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.predicates import Predicate
from pipelines.store.storage import list_names, read_text
from pipelines.store.write_errors import MissingTable, WriteConflict, writing

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"  # of a merge, which has no option for it
COMMIT = re.compile(r"(\d{20})\.json")


class CachedRow(NamedTuple):
    """A row of `runs`: its night, and its manifest as JSON."""

    ds: str
    manifest: str


@dataclass
class CachedRuns:
    """`runs` by run and job, as of a version; see `runs.py`."""

    version: int = -1
    rows: dict[tuple[str, str], CachedRow] = field(default_factory=dict)


@dataclass(frozen=True)
class Warehouse:
    """All tables of one warehouse.

    Every write returns the Delta version that holds it; manifests carry those versions and
    later jobs read exactly them, never "latest".
    """

    spark: SparkSession
    settings: Settings
    moved: Mapping[str, str] = field(default_factory=dict)  # tables in a folder of their own; see `apart.py`
    # What this process has read of small bookkeeping tables; see `read_cached` and `runs.py`.
    _small: dict[str, tuple[int, list[Row]]] = field(default_factory=dict, init=False, repr=False)
    known: CachedRuns = field(default_factory=CachedRuns, init=False, repr=False)

    def path(self, name: str) -> str:
        """Where a table lives: in the warehouse, but which bundle is whose champion beside the bundles."""
        root = self.settings.bundles if name == "champions" else self.settings.warehouse
        return "/".join([root.rstrip("/"), *([self.moved[name]] if name in self.moved else []), name])

    def schema(self, name: str) -> StructType:
        """The table's schema with the declared id types."""
        ids = self.settings.ids
        ddl = TABLES[name].ddl().format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])
        return parse_schema(ddl)

    def exists(self, name: str) -> bool:
        """Whether the table has been written."""
        return self.newest(name) >= 0

    def version(self, name: str) -> int:
        """Newest version now; only for pinning it in a manifest.

        Raises:
            MissingTable: nothing was written yet.
        """
        newest = self.newest(name)
        if newest < 0:
            raise MissingTable(f"no table {name} at {self.path(name)}; run the job that builds it first")
        return newest

    def newest(self, name: str) -> int:
        """Newest version now, -1 when nothing was written yet."""
        return max(self._commits(name), default=-1)

    def fingerprint(self, name: str, version: int | None = None) -> str:
        """Names the rows of a version (the newest): the digest of its commit, which holds a random id.

        Unlike the version number, it tells a table that was deleted and written again. Commits that are not
        there, or that Delta has cleaned up, all have the same one.
        """
        commits = self._commits(name)
        version = max(commits, default=-1) if version is None else version
        text = self._commit(name, version) if version in commits else ""
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def delta(self, name: str) -> DeltaTable:
        """The Delta handle."""
        return DeltaTable.forPath(self.spark, self.path(name))

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """The rows at `version` (-1: of a table that was not there yet, so none); without one, the newest."""
        if version == -1 or (version is None and not self.exists(name)):
            return local_rows(self.spark, [], self.schema(name))
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(self.path(name))

    def read_cached(self, name: str) -> list[Row]:
        """All rows of a small table as of now, read again only when it has a new version."""
        newest = self.newest(name)
        if newest < 0:
            return []
        if self._small.get(name, (-1, []))[0] != newest:
            self._small[name] = (newest, self.read(name, newest).collect())
        return self._small[name][1]

    def replace(
        self,
        name: str,
        rows: DataFrame,
        where: Predicate,
        *,
        metadata: str = "",
        txn: tuple[str, int] | None = None,
    ) -> int:
        """Replace the slice `where` by `rows` in one commit; returns its version.

        A row outside the slice fails the write: Delta checks `replaceWhere`. With `txn` =
        (application, number) a repeated or older number is skipped silently: read again to know.

        Raises:
            WriteConflict: another writer changed the slice meanwhile.
        """
        tag = metadata or uuid.uuid4().hex
        writer = self._writer(name, rows, tag, txn).mode("overwrite")
        if self.exists(name):
            writer = writer.option("replaceWhere", where)
        self._save(name, writer)
        found = self.find_commit(name, tag)
        return self.version(name) if found is None else found  # none: Delta saw nothing to commit

    def append(
        self, name: str, rows: DataFrame, *, metadata: str = "", txn: tuple[str, int] | None = None
    ) -> None:
        """Append in one commit. With `txn` = (application, number) Delta lets each number in once,
        silently skipping a repeated or older one: read again to know.

        Raises:
            WriteConflict: another writer committed under the same application meanwhile.
        """
        self._save(name, self._writer(name, rows, metadata, txn).mode("append"))

    def upsert(self, name: str, rows: DataFrame, key: str, where: Column, gone: Column, base: int) -> int:
        """Bring the slice `where` of version `base` to `rows` by `key` in one commit; returns its version.

        Args:
            rows: the new rows of keys that came or changed; other keys stand.
            key: of at most one row of the slice and of `rows`.
            where: condition of the slice on a row of the table, named `t`.
            gone: condition on a row of `rows`, named `s`: its key is removed.

        Raises:
            WriteConflict: another writer changed the slice meanwhile, or wrote the table before it; then the
                commit stands, and a later run does not build on it.
        """
        merge = (
            self.delta(name)
            .alias("t")
            .merge(self._shaped(name, rows).alias("s"), (F.col(f"t.{key}") == F.col(f"s.{key}")) & where)
            .whenMatchedDelete(gone)
            .whenMatchedUpdateAll()
            .whenNotMatchedInsertAll(~gone)
        )
        conf, tag = self.spark.conf, uuid.uuid4().hex
        conf.set(USER_METADATA, tag)
        try:
            with writing(name):
                merge.execute()
        finally:
            conf.unset(USER_METADATA)
        found = self.find_commit(name, tag)
        version = self.version(name) if found is None else found
        if version != base + 1:
            raise WriteConflict(
                f"table {name}: version {version} was written over another writer's rows; this job had read "
                f"version {base}. Run the job again: it starts from what stands"
            )
        return version

    def overwrite(self, name: str, rows: DataFrame) -> None:
        """Replace the whole table, schema included (tables whose columns the settings declare)."""
        writer = rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
        with writing(name):
            writer.save(self.path(name))

    def _writer(
        self, name: str, rows: DataFrame, metadata: str, txn: tuple[str, int] | None
    ) -> DataFrameWriter:
        writer = self._shaped(name, rows).write.format("delta").option("mergeSchema", "true")
        if metadata:
            writer = writer.option("userMetadata", metadata)
        if txn:
            writer = writer.option("txnAppId", txn[0]).option("txnVersion", txn[1])
        table = TABLES[name]
        rules = {f"delta.constraints.{rule}": sql for rule, sql in table.constraints.items()}
        return writer.options(**table.properties, **rules)  # the write that makes the table heeds them

    def _save(self, name: str, writer: DataFrameWriter) -> None:
        with writing(name):
            writer.partitionBy(*TABLES[name].partitions).save(self.path(name))

    def _shaped(self, name: str, rows: DataFrame) -> DataFrame:
        """Columns in schema order with schema types: the contract of every table."""
        return rows.select(*(F.col(f.name).cast(f.dataType).alias(f.name) for f in self.schema(name)))

    def _commits(self, name: str) -> list[int]:
        """Versions whose commit file is there, ascending.

        Read off the names in `_delta_log` (Delta protocol, "Delta Log Entries"): a listing, where
        `DESCRIBE HISTORY` is a Spark job.
        """
        names = list_names(self.spark, f"{self.path(name)}/_delta_log")
        return [int(found[1]) for found in map(COMMIT.fullmatch, names) if found]

    def _commit(self, name: str, version: int) -> str:
        """The commit file of a version."""
        return read_text(self.spark, f"{self.path(name)}/_delta_log/{version:020d}.json")

    def commit_tags(self, name: str) -> list[tuple[int, str]]:
        """Versions whose commit carries metadata, with it, the oldest first, as far as the log reaches."""
        if not self.exists(name):
            return []
        history = self.delta(name).history().select("version", "userMetadata")
        return sorted((row[0], row[1]) for row in history.collect() if row[1])

    def find_commit(self, name: str, tag: str) -> int | None:
        """Version of the commit (of the last 50) that carries `tag`, None when there is none."""
        for version in reversed(self._commits(name)[-50:]):
            lines = self._commit(name, version).splitlines()
            actions = [json.loads(line) for line in lines if '"commitInfo"' in line]
            if any(action.get("commitInfo", {}).get("userMetadata") == tag for action in actions):
                return version
        return None
