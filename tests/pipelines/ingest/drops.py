"""Write drops as a source would, and read what ingest made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyspark.sql import SparkSession

from pipelines.settings.settings import load_settings
from pipelines.store.event_log import read_log
from pipelines.store.tables import Warehouse
from synthetic import shop

DAY, NEXT = "2024-03-05", "2024-03-06"


def make_shop(spark: SparkSession, root: Path, ids: str = "string", **ingest: Any) -> Warehouse:
    """Make a shop without models, whose section `ingest` has the given settings."""
    raw = shop.settings(root)
    raw["ingest"] = {"default_event_type": "purchase", **ingest}
    raw |= {"models": [], "ids": {"user_id": ids, "item_id": ids}}
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    return Warehouse(spark, load_settings(path))


def lenient_shop(spark: SparkSession, root: Path, **ingest: Any) -> Warehouse:
    """Make a shop that tolerates any share of bad rows."""
    raw = shop.settings(root)
    raw["ingest"] |= {"max_rejected_share": 1.0, **ingest}
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    return Warehouse(spark, load_settings(path))


def put_file(warehouse: Warehouse, name: str, data: str | bytes | pa.Table, source: str = "events") -> Path:
    """Write a file under `raw/<source>`."""
    path = Path(warehouse.settings.drops) / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, pa.Table):
        pq.write_table(data, path)
    else:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_events(
    warehouse: Warehouse, rows: list[tuple[Any, ...]], day: str = DAY, suffix: str = "parquet"
) -> Path:
    """Write the events of one day."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_ts", "session_id"])
    if suffix == "parquet":
        frame["event_ts"] = pd.to_datetime(frame["event_ts"])
        frame = frame.astype({"user_id": "Int64", "item_id": "Int64"})
    return shop.write_drop(Path(warehouse.settings.drops), "events", day, frame, suffix)


def log_of(warehouse: Warehouse, *columns: str) -> list[tuple[Any, ...]]:
    """Read the event log, sorted: by default user, item and time."""
    rows = read_log(warehouse).selectExpr(*(columns or ("user_id", "item_id", "string(event_ts)")))
    return sorted(map(tuple, rows.collect()))


def reasons(warehouse: Warehouse) -> dict[str, int]:
    """Count the rows in quarantine by reason."""
    rows = warehouse.read("events_quarantine").groupBy("reason").count().collect()
    return {row["reason"]: row["count"] for row in rows}
