"""Find a person's rows in the files of a table, without Delta and its log.

Spark's plain reader reads every Parquet file under a folder, of all versions, including hidden folders such
as `_change_data` and files that a killed job left. Ids are compared in Python, value by value, so the result
does not depend on statistics or on the predicate of a delete.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.schemas import USER_ID
from pipelines.store.frames import parse_schema
from pipelines.store.storage import list_files
from pipelines.udfs.list_store import escape_glob
from pipelines.udfs.person import Person, names_person
from pipelines.udfs.value_columns import read_column
from pipelines.udfs.values import ValueRules, WantedColumn

LOG = "/_delta_log/"
AT_ONCE = 2000  # files that one Spark job reads
REJECTED = "source string, row string"  # columns that a quarantine has in addition to the user


class Unproven(LimeError):
    """A file can't be read, so it is unknown whether it holds the person."""


def list_parquet(spark: SparkSession, folder: str) -> list[str]:
    """List the data files under a folder, at any depth, without those of Delta's log."""
    return [path for path in list_files(spark, folder) if path.endswith(".parquet") and LOG not in path]


def count_rows(
    spark: SparkSession, files: Sequence[str], type_: str, person: Person, *, rejected: bool = False
) -> dict[str, int]:
    """Count the rows of a person by file; files without such rows are left out.

    Args:
        spark: the session that reads.
        files: the paths of Parquet files.
        type_: the SQL type of the column `user_id` in these files; a file without the column holds no user.
        person: the person whose rows are counted.
        rejected: whether the files are a quarantine's, whose rows name a person in a text.

    Raises:
        Unproven: a file can't be read; the message names it.
    """
    wanted = parse_schema(f"user_id {type_}" + (f", {REJECTED}" if rejected else ""))
    found: Counter[str] = Counter()
    for start in range(0, len(files), AT_ONCE):
        paths = [escape_glob(path) for path in files[start : start + AT_ONCE]]
        reader = spark.read.option("recursiveFileLookup", "true").schema(wanted)
        reader = reader.option("ignoreCorruptFiles", "false").option("ignoreMissingFiles", "false")
        try:
            rows = reader.parquet(*paths).select("*", F.col("_metadata.file_path").alias("path"))
            held = rows.mapInArrow(lambda batches: _held(batches, person), "path string")
            found.update({row["path"]: row["count"] for row in held.groupBy("path").count().collect()})
        except (PySparkException, Py4JJavaError) as error:
            raise Unproven(
                f"a file under {_folder_of(paths)} can't be read, so nothing is proven of it: "
                f"{_first_line(error)}; remove the file if no version of the table needs it, then run the "
                "job again"
            ) from error
    return dict(found)


def _held(batches: Iterable[pa.RecordBatch], person: Person) -> Iterator[pa.RecordBatch]:
    """Yield the file of each row that is the person's."""
    for batch in batches:
        mine = match_rows(batch, person)
        if any(mine):
            yield pa.RecordBatch.from_pydict({"path": batch.column("path").filter(pa.array(mine))})


def match_rows(batch: pa.RecordBatch, person: Person) -> list[bool]:
    """Return whether each row is the person's, by `user_id`, and in a quarantine also by `row`."""
    users = batch.column(USER_ID)
    if "row" in batch.schema.names:
        texts = (batch.column(name).to_pylist() for name in ("source", "row"))
        return [
            names_person(person, source, row, None if user is None else str(user))
            for user, source, row in zip(users.to_pylist(), *texts, strict=True)
        ]
    wanted = WantedColumn(USER_ID, person.type, USER_ID, is_id=True)
    read = read_column(users, wanted, ValueRules(person.nulls))
    return [each == person.id for each in read.values.to_pylist()]


def find_spellings(rows: DataFrame, person: Person) -> list[object]:
    """Find the spellings of a person's id in a table; earlier versions may have stored `42.0` as text."""
    if dict(rows.dtypes)[USER_ID] != "string":
        return [int(person.id)] if re.fullmatch(r"-?[0-9]+", str(person.id)) else []
    ids = rows.select(USER_ID).distinct()

    def mine(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pa.array(match_rows(batch, person)))

    return [row[USER_ID] for row in ids.mapInArrow(mine, f"{USER_ID} string").collect()]


def count_log_entries(spark: SparkSession, folder: str, person: Person) -> int:
    """Count the entries of a Delta log whose statistics name a person as a file's smallest or largest id.

    Args:
        spark: the session that reads.
        folder: the folder of the table.
        person: whom to look for.
    """
    logs = [path for path in list_files(spark, folder) if LOG in path]
    commits = [escape_glob(path) for path in logs if path.endswith(".json")]
    checkpoints = [escape_glob(path) for path in logs if path.endswith(".parquet")]
    count = 0
    if commits:
        lines = spark.read.text(commits).where(F.col("value").contains(USER_ID))
        count += _count_entries(lines.select("value"), person)
    if checkpoints:
        entries = spark.read.schema("add struct<stats string>").parquet(*checkpoints)
        stats = entries.select(F.col("add.stats").alias("value")).where(F.col("value").contains(USER_ID))
        count += _count_entries(stats, person)
    return count


def _count_entries(lines: DataFrame, person: Person) -> int:
    def mine(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [True for text in batch.column("value").to_pylist() if entry_names(text, person)]
            yield pa.RecordBatch.from_pydict({"found": pa.array(found, pa.bool_())})

    return lines.mapInArrow(mine, "found boolean").count()


def entry_names(text: str, person: Person) -> bool:
    """Return whether a line of a Delta log, or the statistics of one file, names the person."""
    entry = json.loads(text)
    texts = [action.get("stats") for action in entry.values() if isinstance(action, dict)]
    bounds = [json.loads(stats) for stats in texts if isinstance(stats, str)] + [entry]
    ids = (each.get(bound, {}).get(USER_ID) for each in bounds for bound in ("minValues", "maxValues"))
    return any(person.matches(id_) for id_ in ids)


def _folder_of(paths: Sequence[str]) -> str:
    return paths[0].rsplit("/", 1)[0]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
