"""The common steps of loading events, items and users: read, check, count, quarantine or refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.ingest.drop_faults import Fault, RowFault, refuse
from pipelines.ingest.ledger import loaded_days
from pipelines.ingest.listing import drop_path
from pipelines.ingest.quarantine import quarantine
from pipelines.ingest.read_drops import KEPT, REASON, Drop, describe_bad, read_drops, with_raw_rows
from pipelines.ingest.wanted_columns import Wanted
from pipelines.store.frames import count_cases
from pipelines.store.manifests import RowCounts, SourceReport
from pipelines.store.tables import Warehouse

DUPLICATE = "_duplicate"  # whether a row repeats another row of its drop; the other one is loaded


class Loaded(NamedTuple):
    """The checked rows of some days' drops."""

    rows: DataFrame  # persisted; the caller unpersists it
    days: list[str]  # days whose content the rows replace
    noted: list[str]  # days that count as loaded from now on
    report: SourceReport

    @property
    def good(self) -> DataFrame:
        """The rows to load."""
        return self.rows.where(F.col(KEPT) & ~F.col(DUPLICATE) & F.col(REASON).isNull())


def load_drops(
    warehouse: Warehouse, wanted: Wanted, days: Sequence[str], check: Callable[[DataFrame], DataFrame]
) -> Loaded:
    """Read the drops of `days`, check their rows, and put the bad ones into quarantine.

    Args:
        warehouse: where the tables are.
        wanted: the source and its columns.
        days: the days to load as `YYYY-MM-DD`, ascending.
        check: a function that adds the column `DUPLICATE` and the reasons that need more than one value.

    Raises:
        DropError: the drops have faults; the message names all of them, and no good row was committed.
    """
    settings, source = warehouse.settings, wanted.source
    drop = read_drops(warehouse.spark, settings, wanted, days)
    absent = [day for day in drop.listing.absent if day not in loaded_days(warehouse, source)]
    faults = [*drop.faults, *_missing(warehouse, source, absent)]
    rows = check(drop.rows).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = _count(rows)
        share = _share(counts, settings.ingest.max_rejected_share)
        loads = not faults and not share
        rejected = _set_aside(warehouse, drop, rows, source, loads=loads) if counts["quarantined"] else {}
        if not counts["quarantined"] and loads:
            quarantine(warehouse, source, drop.days, None, loaded=True)
        if not loads:
            raise refuse(source, faults, rejected.values(), share)
    except BaseException:
        rows.unpersist()
        raise
    finally:
        drop.release()
    report = SourceReport(
        days=(days[0], days[-1]),
        rows=RowCounts(**counts),
        rejected={reason: fault.rows for reason, fault in rejected.items()},
        extra_columns=drop.extra,
        missing_columns=drop.missing,
        ignored_files=drop.listing.ignored,
    )
    gone = set(drop.listing.absent) - set(absent)
    return Loaded(rows, drop.days, [day for day in days if day not in gone], report)


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


def _set_aside(
    warehouse: Warehouse, drop: Drop, rows: DataFrame, source: str, *, loads: bool
) -> dict[str, RowFault]:
    """Put the bad rows into quarantine; return their faults by reason."""
    bad = rows.where(F.col(KEPT) & F.col(REASON).isNotNull())
    whole = with_raw_rows(warehouse.spark, warehouse.settings, drop, bad)
    quarantine(warehouse, source, drop.days, whole, loaded=loads)
    whole.unpersist()
    return {fault.reason: fault for fault in describe_bad(bad)}


def _share(counts: dict[str, int], limit: float) -> str:
    """Say why the share of bad rows stops the load; empty if it does not."""
    total = counts["delivered"] - counts["filtered"]
    share = counts["quarantined"] / total if total else 0.0
    if share <= limit:
        return ""
    return f"{share:.2%} of {total} rows are bad, ingest.max_rejected_share is {limit:.2%}"
