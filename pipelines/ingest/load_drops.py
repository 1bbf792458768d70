"""The common steps of loading events, items and users: read, check, count, quarantine or refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.ingest.drop_faults import DropError, Fault, refuse
from pipelines.ingest.ledger import loaded_days
from pipelines.ingest.listing import drop_path
from pipelines.ingest.quarantine import quarantine
from pipelines.ingest.read_drops import KEPT, REASON, Drop, describe_bad, read_drops, with_raw_rows
from pipelines.ingest.wanted_columns import Wanted
from pipelines.store.frames import count_cases
from pipelines.store.manifests import RowCounts, SourceReport
from pipelines.store.tables import Warehouse

DUPLICATE = "_duplicate"  # whether a row repeats another row of its drop; the other one is loaded


@dataclass
class CheckedDrops:
    """The checked rows of some days' drops of one source, of which nothing is committed yet.

    Args:
        warehouse: where the tables are.
        source: `events`, `items` or `users`.
        drop: the drops as they were read.
        rows: the checked rows, which are kept until `release`.
        noted: the days that count as loaded once the rows are committed.
        report: the counts for the manifest.
        error: the faults of the drops, if they have any.
    """

    warehouse: Warehouse
    source: str
    drop: Drop
    rows: DataFrame
    noted: list[str]
    report: SourceReport
    error: DropError | None

    @property
    def days(self) -> list[str]:
        """The days whose content the rows replace."""
        return self.drop.days

    @property
    def good(self) -> DataFrame:
        """The rows to load."""
        return self.rows.where(F.col(KEPT) & ~F.col(DUPLICATE) & F.col(REASON).isNull())

    def set_aside(self, *, loads: bool) -> None:
        """Put the bad rows into quarantine.

        Args:
            loads: whether the good rows will be committed.
        """
        if self.report.rejected:
            bad = _bad(self.rows)
            whole = with_raw_rows(self.warehouse.spark, self.warehouse.settings, self.drop, bad)
            quarantine(self.warehouse, self.source, self.days, whole, loaded=loads)
            whole.unpersist()
        elif loads:
            quarantine(self.warehouse, self.source, self.days, None, loaded=True)

    def release(self) -> None:
        """Free the rows."""
        self.drop.release()
        self.rows.unpersist()


class Load(NamedTuple):
    """Checked drops, and the function that commits them."""

    drops: CheckedDrops
    commit: Callable[[], SourceReport]


def _bad(rows: DataFrame) -> DataFrame:
    return rows.where(F.col(KEPT) & F.col(REASON).isNotNull())


def load_sources(sources: Mapping[str, Callable[[], Load | None]]) -> dict[str, SourceReport]:
    """Check the drops of all sources, and commit them only if none has a fault.

    Args:
        sources: for each source a function that checks its drops; None if it has none to load.

    Returns:
        The report of each source that was loaded.

    Raises:
        DropError: drops have faults; the message names all of them, and no good row was committed.
    """
    loads: dict[str, Load] = {}
    faults: list[DropError] = []
    try:
        for source, check in sources.items():
            try:
                if load := check():
                    loads[source] = load
                    faults += [load.drops.error] if load.drops.error else []
            except DropError as error:
                faults.append(error)
        for load in loads.values():
            load.drops.set_aside(loads=not faults)
        if faults:
            raise faults[0] if len(faults) == 1 else DropError("\n".join(map(str, faults)))
        return {source: load.commit() for source, load in loads.items()}
    finally:
        for load in loads.values():
            load.drops.release()


def check_drops(
    warehouse: Warehouse, wanted: Wanted, days: Sequence[str], check: Callable[[DataFrame], DataFrame]
) -> CheckedDrops:
    """Read the drops of `days` and check their rows.

    Args:
        warehouse: where the tables are.
        wanted: the source and its columns.
        days: the days to load as `YYYY-MM-DD`, ascending.
        check: a function that adds the column `DUPLICATE` and the reasons that need more than one value.
    """
    settings, source = warehouse.settings, wanted.source
    drop = read_drops(warehouse.spark, settings, wanted, days)
    loaded = loaded_days(warehouse, source)
    absent = [day for day in drop.listing.absent if day not in loaded]
    faults = [*drop.faults, *_missing(warehouse, source, absent)]
    rows = check(drop.rows).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = _count(rows)
        rejected = describe_bad(_bad(rows)) if counts["quarantined"] else []
    except BaseException:
        drop.release()
        rows.unpersist()
        raise
    share = _share(counts, settings.ingest.max_rejected_share)
    report = SourceReport(
        days=(days[0], days[-1]),
        rows=RowCounts(**counts),
        rejected={fault.reason: fault.rows for fault in rejected},
        extra_columns=drop.extra,
        missing_columns=drop.missing,
        ignored_files=drop.listing.ignored,
    )
    gone = set(drop.listing.absent) - set(absent)
    noted = [day for day in days if day not in gone]
    error = refuse(source, faults, rejected, share) if faults or share else None
    return CheckedDrops(warehouse, source, drop, rows, noted, report, error)


def _missing(warehouse: Warehouse, source: str, absent: Sequence[str]) -> list[Fault]:
    """Report the days that were never delivered, where the settings require every day."""
    if not absent or warehouse.settings.ingest.missing_drop == "empty":
        return []
    more = f" (and {len(absent) - 1} more days)" if len(absent) > 1 else ""
    return [
        Fault(
            f"no drop folder {drop_path(warehouse.settings, source, absent[0])}{more}",
            "deliver it, leave an empty folder for a day without rows, or set ingest.missing_drop: empty",
        )
    ]


def _count(rows: DataFrame) -> dict[str, int]:
    """Count the delivered rows and what becomes of them; the other counts add up to `delivered`."""
    kept, good = F.col(KEPT), F.col(REASON).isNull()
    cases = {
        "delivered": F.lit(1),
        "loaded": kept & good & ~F.col(DUPLICATE),
        "duplicates": kept & good & F.col(DUPLICATE),
        "quarantined": kept & ~good,
        "filtered": ~kept,
    }
    return count_cases(rows, cases)


def _share(counts: dict[str, int], limit: float) -> str:
    """Say why the share of bad rows stops the load; empty if it does not."""
    total = counts["delivered"] - counts["filtered"]
    share = counts["quarantined"] / total if total else 0.0
    if share <= limit:
        return ""
    return f"{share:.2%} of {total} rows are bad, ingest.max_rejected_share is {limit:.2%}"
