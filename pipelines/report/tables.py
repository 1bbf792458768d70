"""Read tables of a warehouse without Spark, with projected columns and filtered partitions.

`deltalake` takes the keys of an object store from its own environment variables (`AWS_ACCESS_KEY_ID` and so
on), not from `spark.secrets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lime_model.errors import LimeError
from pipelines.settings.base import local_path
from pipelines.settings.settings import Settings

Row = dict[str, Any]
Filters = Sequence[tuple[str, str, Any]]  # column, operator and value; a row must satisfy all of them


class ReportError(LimeError):
    """A table can't be read without Spark, or the page of a night can't be written."""


def table_uri(settings: Settings, name: str) -> str:
    """Return where a table lies: `champions` is next to the bundles, all others are in the warehouse."""
    root = settings.bundles if name == "champions" else settings.warehouse
    folder = local_path(root)
    return f"{folder or root.rstrip('/')}/{name}"


def open_table(settings: Settings, name: str) -> DeltaTable | None:
    """Open the newest version of a table; return None if nobody has written the table."""
    uri = table_uri(settings, name)
    with _explained(uri):
        try:
            return DeltaTable(uri)
        except TableNotFoundError:
            return None


def read_rows(settings: Settings, name: str, columns: Sequence[str], filters: Filters = ()) -> list[Row]:
    """Read some columns of the rows that satisfy all filters; a table that nobody has written has none.

    Args:
        settings: the settings, which name the warehouse.
        name: the name of the table.
        columns: the names of the columns.
        filters: the conditions; those on partitions and sorted columns let files be skipped.
    """
    table = open_table(settings, name)
    if table is None:
        return []
    with _explained(table_uri(settings, name)):
        found: pa.Table = table.to_pyarrow_table(columns=list(columns), filters=list(filters) or None)
        rows: list[Row] = found.to_pylist()
        return rows


def read_first_rows(
    settings: Settings, name: str, columns: Sequence[str], keep: ds.Expression, most: int
) -> list[Row]:
    """Read no more than the first rows that satisfy a condition.

    Args:
        settings: the settings, which name the warehouse.
        name: the name of the table.
        columns: the names of the columns.
        keep: the condition, in which partitions decide which files are opened.
        most: the number of rows.
    """
    table = open_table(settings, name)
    if table is None:
        return []
    with _explained(table_uri(settings, name)):
        scanner = table.to_pyarrow_dataset().scanner(
            columns=list(columns), filter=keep, batch_size=most, batch_readahead=0, fragment_readahead=0
        )
        rows: list[Row] = scanner.head(most).to_pylist()
        return rows


def column_names(settings: Settings, name: str) -> dict[str, str]:
    """Return the type of each column of a table, as Delta names it; none if nobody has written the table."""
    table = open_table(settings, name)
    if table is None:
        return {}
    return {field.name: str(getattr(field.type, "type", "nested")) for field in table.schema().fields}


def read_history(settings: Settings, name: str) -> list[Row]:
    """Read the commits that the table's log still holds, the oldest first."""
    table = open_table(settings, name)
    if table is None:
        return []
    with _explained(table_uri(settings, name)):
        return sorted(table.history(), key=lambda commit: int(commit["version"]))


def count_bytes(settings: Settings, name: str) -> tuple[int, int] | None:
    """Return the number and the bytes of a table's live files, or None if nobody has written the table."""
    table = open_table(settings, name)
    if table is None:
        return None
    with _explained(table_uri(settings, name)):
        sizes = [int(size) for size in table.get_add_actions(flatten=True)["size_bytes"].to_pylist()]
    return len(sizes), sum(sizes)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn an error of Delta, Arrow or the storage into one line that names the table."""
    try:
        yield
    except (DeltaError, pa.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReportError(
            f"the table {uri} can't be read without Spark: {first}; check the path, the rights and, for an "
            "object store, the keys in the environment"
        ) from error
