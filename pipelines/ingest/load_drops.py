"""What loading events and loading items or users have in common: read, count, quarantine, refuse."""

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

DUPLICATE = "_duplicate"  # whether a row repeats another one of its drop, which is loaded


class Loaded(NamedTuple):
    """Checked rows of some days' drops; `rows` is persisted.

    `days` are those whose content the rows replace, `noted` those that count as loaded from now on.
    """

    rows: DataFrame
    days: list[str]
    noted: list[str]
    report: SourceReport

    @property
    def good(self) -> DataFrame:
        """Rows to load."""
        return self.rows.where(F.col(KEPT) & ~F.col(DUPLICATE) & F.col(REASON).isNull())


def load_drops(
    warehouse: Warehouse, wanted: Wanted, days: Sequence[str], check: Callable[[DataFrame], DataFrame]
) -> Loaded:
    """Read the drops of `days`, check their rows, and put the bad ones into quarantine.

    Args:
        check: adds `DUPLICATE` and the reasons that need more than one value.

    Raises:
        DropError: naming every fault of every drop; no good row was committed.
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
    """Days that were never delivered, where the settings want every day."""
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
    """Delivered rows, and what becomes of them; the other counts add up to the first."""
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
    """Put the bad rows into quarantine; returns their faults by reason."""
    bad = rows.where(F.col(KEPT) & F.col(REASON).isNotNull())
    whole = with_raw_rows(warehouse.spark, warehouse.settings, drop, bad)
    quarantine(warehouse, source, drop.days, whole, loaded=loads)
    whole.unpersist()
    return {fault.reason: fault for fault in describe_bad(bad)}


def _share(counts: dict[str, int], limit: float) -> str:
    """Why the share of bad rows stops the load; empty if it does not."""
    total = counts["delivered"] - counts["filtered"]
    share = counts["quarantined"] / total if total else 0.0
    if share <= limit:
        return ""
    return f"{share:.2%} of {total} rows are bad, ingest.max_rejected_share is {limit:.2%}"
