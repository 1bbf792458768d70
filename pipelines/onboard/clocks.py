"""Join a column of dates and one of times of day, which some logs write apart, into one column of times."""

from __future__ import annotations

from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.onboard.facts import Column, describe
from pipelines.onboard.looked import Looked, find_times

CLOCKS: Final = 0.98  # the share of times of day among the values of a column that holds them
LONGEST_DATE: Final = 12  # characters of a date alone, such as `01 Mar, 2024`


def join_clock(con: duckdb.DuckDBPyConnection, table: Looked) -> None:
    """Add a column of times to a table that has one column of dates and one of times of day.

    Args:
        con: the connection with the table.
        table: the table; its staged files get the column.
    """
    dates = [table.column(name) for name in table.times]
    clocks = [column for column in table.columns if column.filled and column.share("clocks") >= CLOCKS]
    if len(dates) != 1 or len(clocks) != 1 or not _is_date(dates[0]) or clocks[0].type != "VARCHAR":
        return
    name = f"{dates[0].name}_{clocks[0].name}"
    for path in sorted(table.staged.folder.glob("*.parquet")):
        frame = pq.read_table(path)
        if {dates[0].name, clocks[0].name} <= set(frame.column_names):
            parts = [pc.utf8_trim_whitespace(frame.column(each.name)) for each in (dates[0], clocks[0])]
            frame = frame.append_column(name, pc.binary_join_element_wise(*parts, pa.scalar(" ")))
            pq.write_table(frame, path)
    table.staged = table.staged._replace(inner=table.staged.inner | {name})
    table.columns, table.joined = describe(con, table.staged, table.view), name
    find_times(con, table)
    if name not in table.times:  # together they are no time
        table.joined = ""


def _is_date(column: Column) -> bool:
    return column.type == "VARCHAR" and all(len(value) <= LONGEST_DATE for value, _ in column.top)
