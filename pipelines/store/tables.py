"""Read and write the Delta tables of a warehouse: read a version, replace a slice, append once."""

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

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"  # for a merge, which has no such option
COMMIT = re.compile(r"(\d{20})\.json")


class CachedRow(NamedTuple):
    """A row of `runs`, with its night and its manifest as JSON."""

    ds: str
    manifest: str


@dataclass
class CachedRuns:
    """The rows of `runs` at one version of the table, by run id and job; see `runs.py`."""

    version: int = -1
    rows: dict[tuple[str, str], CachedRow] = field(default_factory=dict)


@dataclass(frozen=True)
class Warehouse:
    """All tables of one warehouse.

    A write returns the Delta version that holds it. Manifests record these versions, and later jobs read
    exactly these, never the newest.
    """

    spark: SparkSession
    settings: Settings
    moved: Mapping[str, str] = field(default_factory=dict)  # separate folder by table; see `apart.py`
    # The rows of small tables that this process has read, with their version; see `read_cached`.
    _small: dict[str, tuple[int, list[Row]]] = field(default_factory=dict, init=False, repr=False)
    known: CachedRuns = field(default_factory=CachedRuns, init=False, repr=False)

    def path(self, name: str) -> str:
        """Return the path of a table: `champions` is next to the bundles, all others are in the warehouse."""
        root = self.settings.bundles if name == "champions" else self.settings.warehouse
        return "/".join([root.rstrip("/"), *([self.moved[name]] if name in self.moved else []), name])

    def schema(self, name: str) -> StructType:
        """Return the table's schema with the id types that the settings declare."""
        ids = self.settings.ids
        ddl = TABLES[name].ddl().format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])
        return parse_schema(ddl)

    def exists(self, name: str) -> bool:
        """Return whether the table has been written."""
        return self.newest(name) >= 0

    def version(self, name: str) -> int:
        """Return the newest version of a table; use it only to record it in a manifest.

        Raises:
            MissingTable: the table has not been written.
        """
        newest = self.newest(name)
        if newest < 0:
            raise MissingTable(f"no table {name} at {self.path(name)}; run the job that builds it first")
        return newest

    def newest(self, name: str) -> int:
        """Return the newest version of a table, or -1 if it has not been written."""
        return max(self._commits(name), default=-1)

    def fingerprint(self, name: str, version: int | None = None) -> str:
        """Return a digest of the commit of a version (by default the newest), which contains a random id.

        Unlike the version number, it also changes when a table is deleted and written again. All commits that
        are missing, or that Delta has cleaned up, have the same digest.
        """
        commits = self._commits(name)
        version = max(commits, default=-1) if version is None else version
        text = self._commit(name, version) if version in commits else ""
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def delta(self, name: str) -> DeltaTable:
        """Return the table as an object of Delta's API."""
        return DeltaTable.forPath(self.spark, self.path(name))

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Read the rows at `version`, by default the newest; -1 means no table, so there are no rows."""
        if version == -1 or (version is None and not self.exists(name)):
            return local_rows(self.spark, [], self.schema(name))
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(self.path(name))

    def read_cached(self, name: str) -> list[Row]:
        """Read all rows of a small table; they are cached until the table has a new version."""
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
        """Replace a slice of a table in one commit.

        Args:
            name: the table.
            rows: the new rows; a row outside the slice fails the write, as Delta checks `replaceWhere`.
            where: the condition that selects the slice.
            metadata: a text that the commit holds; by default a random one.
            txn: an application and a number; Delta silently skips a write whose number is not greater than
                the last one of the application, so the caller must look for its commit.

        Returns:
            The version of the commit; the newest version if Delta committed nothing.

        Raises:
            RowRefused: a row breaks a constraint of the table.
            WriteConflict: another writer changed the slice meanwhile.
        """
        tag = metadata or uuid.uuid4().hex
        writer = self._writer(name, rows, tag, txn).mode("overwrite")
        if self.exists(name):
            writer = writer.option("replaceWhere", where)
        self._save(name, writer)
        found = self.find_commit(name, tag)
        return self.version(name) if found is None else found  # None: Delta committed nothing

    def append(
        self, name: str, rows: DataFrame, *, metadata: str = "", txn: tuple[str, int] | None = None
    ) -> None:
        """Append rows to a table in one commit.

        Args:
            name: the table.
            rows: the new rows.
            metadata: a text that the commit holds, if any.
            txn: an application and a number, which allow only one such write; see `replace`.

        Raises:
            RowRefused: a row breaks a constraint of the table.
            WriteConflict: another writer committed under the same application meanwhile.
        """
        self._save(name, self._writer(name, rows, metadata, txn).mode("append"))

    def upsert(self, name: str, rows: DataFrame, key: str, where: Column, gone: Column, base: int) -> int:
        """Insert, update and delete rows of a slice by key, in one commit.

        Args:
            name: the table.
            rows: the rows of new, changed and removed keys; the rows of other keys are not changed.
            key: the column that names a row; a key has at most one row in the slice and one in `rows`.
            where: the condition that selects the slice, on a row of the table, named `t`.
            gone: the condition, on a row of `rows`, named `s`, by which its key is removed.
            base: the version of the table that `rows` were computed from.

        Returns:
            The version of the commit.

        Raises:
            RowRefused: a row breaks a constraint of the table.
            WriteConflict: another writer changed the slice meanwhile, or committed after `base`; in the
                second case this commit remains in the table, but a later run does not build on it.
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
                f"version {base}. Run the job again: it starts from what is committed"
            )
        return version

    def overwrite(self, name: str, rows: DataFrame) -> None:
        """Replace a complete table and its schema, for tables whose columns the settings declare."""
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
        return writer.options(**table.properties, **rules)  # only the write that creates the table uses them

    def _save(self, name: str, writer: DataFrameWriter) -> None:
        with writing(name):
            writer.partitionBy(*TABLES[name].partitions).save(self.path(name))

    def _shaped(self, name: str, rows: DataFrame) -> DataFrame:
        """Select the columns of the table's schema, in its order and with its types."""
        return rows.select(*(F.col(f.name).cast(f.dataType).alias(f.name) for f in self.schema(name)))

    def _commits(self, name: str) -> list[int]:
        """List the versions whose commit file exists, ascending.

        They are read from the names in `_delta_log` (Delta protocol, "Delta Log Entries"), as listing a
        folder is faster than `DESCRIBE HISTORY`, which is a Spark job.
        """
        names = list_names(self.spark, f"{self.path(name)}/_delta_log")
        return [int(found[1]) for found in map(COMMIT.fullmatch, names) if found]

    def _commit(self, name: str, version: int) -> str:
        """Read the commit file of a version."""
        return read_text(self.spark, f"{self.path(name)}/_delta_log/{version:020d}.json")

    def commit_tags(self, name: str) -> list[tuple[int, str]]:
        """List the commits with metadata that the log still holds, as (version, metadata), oldest first."""
        if not self.exists(name):
            return []
        history = self.delta(name).history().select("version", "userMetadata")
        return sorted((row[0], row[1]) for row in history.collect() if row[1])

    def find_commit(self, name: str, tag: str) -> int | None:
        """Find the version of the commit whose metadata is `tag`, or None if none of the last 50 has it."""
        for version in reversed(self._commits(name)[-50:]):
            lines = self._commit(name, version).splitlines()
            actions = [json.loads(line) for line in lines if '"commitInfo"' in line]
            if any(action.get("commitInfo", {}).get("userMetadata") == tag for action in actions):
                return version
        return None
