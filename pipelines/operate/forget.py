"""Forget a person: remove their rows from every table and export, and the files that contained these rows.

The id is read once, as ingest reads it, both for the removal and for its verification. Rows are removed by a
merge with a table of ids, as a delete would write the id into Delta's log. Then files with deletion vectors,
which only mark rows as deleted, are rewritten, and a vacuum without retention removes older versions. So no
older version can be read, pinned or restored afterwards. Finally, the person's rows are counted in the files
themselves (`person_files.py`) and by every export. Run this while no night runs, as a night that reads an
older version would lose its files.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.export.export_lists import find_exporters
from pipelines.learn.training_log import drop_fetched
from pipelines.operate.find_person import find_person
from pipelines.operate.pins import find_pins, release
from pipelines.operate.upkeep import vacuum
from pipelines.schemas import REPORTS, USER_ID
from pipelines.store.apart import drop_all
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.manifests import ForgetManifest
from pipelines.store.person_files import (
    count_log_entries,
    count_rows,
    find_spellings,
    list_parquet,
    match_rows,
)
from pipelines.store.predicates import table_name
from pipelines.store.runs import record
from pipelines.store.storage import drop_folder, hadoop_path, list_folders, path_exists
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import writing
from pipelines.udfs.person import Person


class NotForgotten(LimeError):
    """A file or an export still holds rows of the person."""


class PersonTable(NamedTuple):
    """A table whose rows belong to users."""

    name: str  # the path of its folder below the warehouse
    type: str  # the SQL type of its user ids
    rejected: bool  # whether it is a quarantine, whose rows name a person in a text


def forget_user(warehouse: Warehouse, user: str, night: str, reason: str) -> ForgetManifest:
    """Remove a user from every table and export, and verify that no row of the user is left.

    Args:
        warehouse: the warehouse that contains the tables; its settings name the exports.
        user: the id as text, in any spelling that ingest reads as this id.
        night: the date (YYYY-MM-DD) under which `runs` records this; the id itself is not recorded.
        reason: a text that is recorded.

    Returns:
        The number of rows that were removed, and the oldest version of each table that can still be read.

    Raises:
        NoSuchId: the text is not an id of a user; nothing was changed.
        NotForgotten: rows of the user are left; the message names the tables and exports.
        Unproven: a file can't be read, so it is unknown whether it holds the user.
        ExportFailed: an export can't be reached.
    """
    person = find_person(warehouse.settings, user)
    drop_all(warehouse)  # evaluations and full comparisons can be made again, whichever users they hold
    exporters, tables = find_exporters(warehouse), find_tables(warehouse)
    removed = {table.name: _remove(warehouse, table, person) for table in tables}
    release(warehouse, find_pins(warehouse), "a person was forgotten")
    drop_fetched(warehouse)
    drop_folder(warehouse.spark, warehouse.path(REPORTS))  # pages name users and can be written again
    for table in tables:
        _purge(warehouse, table.name)
    exports = {exporter.name: exporter.forget(person) for exporter in exporters}
    left = _count_files(warehouse, tables, person)
    left |= {f"the export to {each.name}": count for each in exporters if (count := each.count(person))}
    if left:
        raise NotForgotten(
            f"rows of the user are left in {left}; run the job again while no other job runs, and remove "
            "files that no table or export knows by hand"
        )
    manifest = ForgetManifest.model_validate(
        {
            "reason": reason,
            "rows_removed": removed,
            **exports,
            "rows_left_in_files": 0,
            "ids_in_logs": _count_log_entries(warehouse, tables, person),
            "purged": {table.name: warehouse.version(table.name) for table in tables},
        }
    )
    number = warehouse.newest("runs") + 1
    record(warehouse, f"{night}.forget-{number}", night, manifest)
    return manifest


def find_tables(warehouse: Warehouse) -> list[PersonTable]:
    """List the Delta tables under the warehouse, at any depth, whose rows belong to users."""
    found = []
    for name in walk_tables(warehouse):
        columns = dict(warehouse.delta(name).toDF().dtypes)
        rejected = {"source", "row"} <= columns.keys()
        if rejected or USER_ID in columns:
            found.append(PersonTable(name, columns.get(USER_ID, "string"), rejected))
    return found


def walk_tables(warehouse: Warehouse) -> list[str]:
    """List all Delta tables under the warehouse by their paths, such as `events` or `evaluation/staging`."""
    found, folders = [], [""]
    while folders:
        folder = folders.pop()
        for child in list_folders(warehouse.spark, warehouse.path(folder)):
            name = f"{folder}/{child}".lstrip("/")
            if path_exists(warehouse.spark, f"{warehouse.path(name)}/_delta_log"):
                found += [name] if warehouse.exists(name) else []
            else:
                folders.append(name)
    return sorted(found)


def _remove(warehouse: Warehouse, table: PersonTable, person: Person) -> int:
    """Remove the person's rows from the newest version of a table; return their number."""
    stored = warehouse.delta(table.name).toDF()
    if table.rejected:
        return _remove_rejected(warehouse, table.name, stored, person)
    ids = find_spellings(stored, person)
    count = stored.where(F.col(USER_ID).isin(ids)).count() if ids else 0
    if count:
        schema = parse_schema(f"{USER_ID} {table.type}")
        mine = local_rows(warehouse.spark, [{USER_ID: each} for each in ids], schema)
        _merge_out(warehouse, table.name, mine, f"t.{USER_ID} = s.{USER_ID}")
    return count


def _remove_rejected(warehouse: Warehouse, name: str, stored: DataFrame, person: Person) -> int:
    """Remove the rows of a quarantine whose text names the person; return their number."""
    keys = [column for column in ("source", "row", USER_ID) if column in stored.columns]
    user = F.col(USER_ID) if USER_ID in keys else F.lit(None).cast("string").alias(USER_ID)

    def mine(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pa.array(match_rows(batch, person), pa.bool_()))

    texts = stored.select("source", "row", user)
    held = texts.mapInArrow(mine, f"source string, row string, {USER_ID} string").persist()
    try:
        count = held.count()
        if count:
            same = " AND ".join(f"t.`{key}` <=> s.`{key}`" for key in keys)
            _merge_out(warehouse, name, held.select(*keys).distinct(), same)
    finally:
        held.unpersist()
    return count


def _merge_out(warehouse: Warehouse, name: str, gone: DataFrame, same: str) -> None:
    """Remove the rows that match `gone`; unlike the condition of a delete, `gone` is not in Delta's log."""
    with writing(name):
        warehouse.delta(name).alias("t").merge(gone.alias("s"), same).whenMatchedDelete().execute()


def _purge(warehouse: Warehouse, name: str) -> None:
    """Rewrite files with rows that are only marked as deleted, and remove all files of older versions."""
    warehouse.spark.sql(f"REORG TABLE {table_name(warehouse.path(name))} APPLY (PURGE)")
    vacuum(warehouse, name, 0)


def _count_files(warehouse: Warehouse, tables: Iterable[PersonTable], person: Person) -> dict[str, int]:
    """Count the person's rows in Parquet files under the warehouse, by table or, outside tables, by file."""
    spark, known = warehouse.spark, {table.name: table for table in tables}
    path, fs = hadoop_path(spark, warehouse.path(""))
    root = _bare(str(fs.makeQualified(path).toString())).rstrip("/")
    others = set(walk_tables(warehouse)) - known.keys()
    groups: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for file in list_parquet(spark, warehouse.path("")):
        name = _table_of(_bare(file).removeprefix(f"{root}/"), known)
        if name:
            groups[known[name].type, known[name].rejected].append(file)
        elif not _table_of(_bare(file).removeprefix(f"{root}/"), others):
            groups[person.type, False].append(file)
    left: Counter[str] = Counter()
    for (type_, rejected), files in groups.items():
        for uri, count in count_rows(spark, files, type_, person, rejected=rejected).items():
            inside = _bare(unquote(uri)).removeprefix(f"{root}/")
            left[_table_of(inside, known) or inside] += count
    return dict(left)


def _count_log_entries(warehouse: Warehouse, tables: Iterable[PersonTable], person: Person) -> int:
    paths = (warehouse.path(table.name) for table in tables)
    return sum(count_log_entries(warehouse.spark, path, person) for path in paths)


def _table_of(file: str, names: Iterable[str]) -> str | None:
    return next((name for name in names if file.startswith(f"{name}/")), None)


def _bare(uri: str) -> str:
    """Return a URI without its scheme, as Hadoop writes it with one slash and Spark with three."""
    return "/" + re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:", "", uri).lstrip("/")
