"""Read the drops of some days: the rows of every format in one plan, and all faults of the drops.

Every row has our columns, the reason why it is bad (null for a good row), and the file and the place in it
that it came from. Rows that the filter of the settings leaves out are marked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.ingest.drop_faults import Fault, RowFault
from pipelines.ingest.listing import DropFile, Listing, list_drops
from pipelines.ingest.read_errors import find_broken_file
from pipelines.ingest.read_parquet import plain_path, read_parquet, read_raw_rows, spark_path
from pipelines.ingest.read_text import read_text
from pipelines.ingest.wanted_columns import Wanted, show_columns
from pipelines.settings.base import SettingsError
from pipelines.settings.settings import Settings
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.session import arrow_batches_of

log = logging.getLogger(__name__)

REASON, VALUE, FILE, LOCATION, RAW = "_reason", "_value", "_file", "_location", "_raw"
STATUS, KEPT, DROP_DAY = "_status", "_kept", "_drop_ds"
ROWS_PER_BATCH = 8192  # rows of an Arrow batch that Python reads
MOST_BROKEN = 10  # files found broken while their rows are read, before the load gives up
WHOLE_FILES = {  # a quoted line break makes the lines of a CSV file depend on each other
    "spark.sql.files.maxPartitionBytes": str(1 << 50),
    "spark.sql.files.openCostInBytes": str(1 << 50),
}
READING = {
    "spark.sql.caseSensitive": "true",  # `Price` and `price` are two columns of a source
    "spark.sql.ansi.enabled": "false",  # in a filter, text that is not a number is null
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
}


@dataclass(frozen=True)
class Drop:
    """The rows and the faults of some days' drops; `release` frees the persisted rows."""

    rows: DataFrame  # the wanted columns and REASON, VALUE, FILE, LOCATION, RAW, KEPT and DROP_DAY
    stored: DataFrame  # the persisted frame that `rows` is a part of
    listing: Listing
    names: frozenset[str]  # the names of all columns that any file has
    extra: list[str]  # columns that nothing reads
    missing: list[str]  # columns that the settings name and no file has
    faults: list[Fault]
    headed: bool  # whether each file must have a header line
    raw_from: list[DropFile]  # Parquet files whose original rows are read again where they are needed

    @property
    def days(self) -> list[str]:
        """The days that have a file; their rows replace those that the days' drops had before."""
        return self.listing.days

    def release(self) -> None:
        """Free the persisted rows; otherwise Spark would answer the next read of these files from memory."""
        self.stored.unpersist()


@contextmanager
def reading(spark: SparkSession, settings: Settings) -> Iterator[None]:
    """Set Spark's configuration for reading drops; frames that are read inside must be persisted inside."""
    wanted = READING | (WHOLE_FILES if settings.ingest.format == "csv" else {})
    before = {key: spark.conf.get(key, None) for key in wanted}
    with ExitStack() as stack:
        stack.enter_context(arrow_batches_of(spark, ROWS_PER_BATCH))
        for key, old in before.items():
            stack.callback(spark.conf.unset, key) if old is None else stack.callback(spark.conf.set, key, old)
            spark.conf.set(key, wanted[key])
        yield


def read_drops(spark: SparkSession, settings: Settings, wanted: Wanted, days: Sequence[str]) -> Drop:
    """Read the drops of `days`; their faults are in the result and not raised.

    Args:
        spark: the session that reads.
        settings: how drops are read.
        wanted: the source and its columns.
        days: the days to read as `YYYY-MM-DD`, ascending.

    Raises:
        SettingsError: the filter does not fit the source's columns.
    """
    listing = list_drops(spark, settings, wanted.source, days)
    size = sum(file.size for file in listing.files)
    log.info(
        "%s: reading %d files of %d days, %s bytes",
        wanted.source,
        len(listing.files),
        len(listing.days),
        f"{size:,}",
    )
    broken: list[Fault] = []
    while True:
        drop = _read_once(spark, settings, wanted, listing, broken)
        try:
            # This reads all rows, and Spark persists them.
            with reading(spark, settings):
                notes = drop.rows.where(F.col(STATUS) != "row").select(STATUS, VALUE, FILE).collect()
            return _without_notes(drop, wanted, notes)
        except (Py4JJavaError, PySparkException) as error:
            drop.release()
            fault = find_broken_file(error, [file.uri for file in listing.files])
            if fault is None or len(broken) == MOST_BROKEN:
                raise
            broken.append(fault)
            listing = listing._replace(files=[file for file in listing.files if file.uri != fault.where])


def _read_once(
    spark: SparkSession, settings: Settings, wanted: Wanted, listing: Listing, broken: Sequence[Fault]
) -> Drop:
    with reading(spark, settings):
        if settings.ingest.format == "parquet":
            frames, names, faults, files = read_parquet(spark, settings, wanted, listing.files)
        else:
            text = read_text(spark, settings, wanted, listing.files)
            frames, faults, names, files = text.frames, text.faults, set(), []
        kept = [_keep(frame, wanted) for frame in frames] or [_no_rows(spark, wanted)]
        day = F.regexp_extract(FILE, rf"/{wanted.source}/ds=(\d{{4}}-\d{{2}}-\d{{2}})/", 1).cast("date")
        rows = reduce(DataFrame.unionByName, kept).withColumn(DROP_DAY, day)
        rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    headed = settings.ingest.format == "csv" and settings.ingest.csv.header is True
    whole = [*listing.faults, *faults, *broken]
    wrong = {fault.where for fault in faults}
    listing = listing._replace(files=[file for file in listing.files if file.uri not in wrong])
    return Drop(rows, rows, listing, frozenset(names), [], [], whole, headed, files)


def _no_rows(spark: SparkSession, wanted: Wanted) -> DataFrame:
    fields = [f"{column.name} {column.type}" for column in wanted.columns]
    fields += [f"{name} string" for name in (REASON, VALUE, FILE, LOCATION, RAW, STATUS)]
    return local_rows(spark, [], parse_schema(", ".join([*fields, f"{KEPT} boolean"])))


def _keep(frame: DataFrame, wanted: Wanted) -> DataFrame:
    """Add whether the filter keeps a row; as in SQL, null means that it does not."""
    row = f"{wanted.row_name}.*"
    if wanted.where is None:
        return frame.select(row, F.lit(True).alias(KEPT))
    try:
        plan = frame.where(F.expr(wanted.where))  # raises for anything but a condition on one row
        rows = frame.select(row, F.expr(wanted.where).alias(KEPT))
    except AnalysisException as error:
        raise _unfit(wanted, str(error).strip().splitlines()[0]) from error
    if not plan._jdf.queryExecution().analyzed().deterministic():
        raise _unfit(wanted, "its result would differ each time it is evaluated")
    # A filter can't judge a line that could not be split into fields: the line is bad, and not left out.
    malformed = F.col(REASON).eqNullSafe("malformed_row")
    return rows.withColumn(KEPT, malformed | F.coalesce(KEPT, F.lit(False)))


def _unfit(wanted: Wanted, why: str) -> SettingsError:
    return SettingsError(
        f"ingest.{wanted.source}.where does not fit the columns of the drops: {wanted.where!r} ({why})"
    )


def _without_notes(drop: Drop, wanted: Wanted, notes: Sequence[Row]) -> Drop:
    """Turn the notes of files about themselves into names and faults, so that only rows remain."""
    names: set[str] = {name for row in notes if row[STATUS] == "header" for name in json.loads(row[VALUE])}
    faults = [Fault(row[FILE], row[VALUE]) for row in sorted(notes) if row[STATUS] == "fault"]
    if drop.headed:
        headed = {spark_path(row[FILE]) for row in notes}
        faults += [
            Fault(file.uri, "this file does not even have a header line; deliver it again, or remove it")
            for file in drop.listing.files
            if plain_path(file.uri) not in headed
        ]
    names |= drop.names
    rows = drop.rows.where(F.col(STATUS) == "row")
    # The columns of events count as named only where the settings give them another name than ours.
    named = [c for c in wanted.columns if wanted.source != "events" or c.source != c.name]
    missing = [column.source for column in named if column.source not in names] if names else []
    for name in missing:
        log.warning("%s: no file has the column %r, which the settings name; it is null", wanted.source, name)
    extra = show_columns(names - set(wanted.sources))
    return replace(drop, rows=rows, extra=extra, missing=missing, faults=[*drop.faults, *faults])


def describe_bad(bad: DataFrame) -> list[RowFault]:
    """Count the bad rows by reason, the most frequent first, each with an example."""
    example = F.min_by(F.struct(VALUE, FILE, LOCATION), F.struct(FILE, LOCATION))
    found = bad.groupBy(REASON).agg(F.count("*").alias("rows"), example.alias("example")).collect()
    faults = [RowFault(row[REASON], row["rows"], *row["example"]) for row in found]
    return sorted(faults, key=lambda fault: (-fault.rows, fault.reason))


def with_raw_rows(spark: SparkSession, settings: Settings, drop: Drop, bad: DataFrame) -> DataFrame:
    """Add `RAW` to bad rows: the row as it was delivered, with all of its columns.

    Args:
        spark: the session that reads.
        settings: how drops are read.
        drop: the drop that the rows are from.
        bad: some of its rows.
    """
    if not drop.raw_from:
        return bad
    with reading(spark, settings):
        found = {row[FILE] for row in bad.select(FILE).distinct().collect()}
        raw = read_raw_rows(spark, drop.raw_from, found)
        rows = bad.drop(RAW).join(raw, [FILE, LOCATION], "left").persist(StorageLevel.MEMORY_AND_DISK)
        rows.count()
    return rows
