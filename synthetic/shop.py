"""A small synthetic shop, written as drops, with settings to match; the tests know its log.

There are 40 users and 120 items of 6 kinds. User u likes kind u % 6 and repeats one favourite item. Three
users have no events, one item has null features, and one item appears only in events.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

USERS, ITEMS, KINDS = 40, 120, 6
COLD = (37, 38, 39)  # users that are listed in `users` and never appear in the log
FEATURELESS = 119  # an item that is listed, with all features null
UNLISTED = 777  # an item that appears only in the log
FIRST, NIGHT, LAST = "2024-03-01", "2024-05-01", "2024-05-10"

SCHEMAS = {
    "events": pa.schema(
        {
            "user_id": pa.int64(),
            "item_id": pa.int64(),
            "event_ts": pa.timestamp("us"),
            "session_id": pa.string(),
        }
    )
}


def events(seed: int = 5) -> pd.DataFrame:
    """Return the log: every user buys a basket every few days, and a basket has one timestamp."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp(FIRST)
    days = (pd.Timestamp(LAST) - start).days
    rows: list[tuple[int, int, pd.Timestamp, str]] = []
    for user in sorted(set(range(USERS)) - set(COLD)):
        favourite = user % KINDS + KINDS * int(rng.integers(0, ITEMS // KINDS - 1))
        for basket, day in enumerate(np.cumsum(rng.integers(1, 6, size=days))):
            if day >= days:
                break
            when = start + pd.Timedelta(days=int(day), seconds=int(rng.integers(1, 86_000)))
            liked = user % KINDS + KINDS * rng.integers(0, ITEMS // KINDS - 1, size=3)
            for item in {favourite, *liked.tolist()}:
                rows.append((user, int(item), when, f"{user}-{basket}"))
    rows.append((0, UNLISTED, start + pd.Timedelta(days=3), "0-unlisted"))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "event_ts", "session_id"])


def items() -> pd.DataFrame:
    """Return the items with kind and price class; `FEATURELESS` has neither."""
    frame = pd.DataFrame({"item_id": range(ITEMS)})
    frame["kind"] = [f"kind-{i % KINDS}" for i in range(ITEMS)]
    frame["price"] = [f"price-{i % 4}" for i in range(ITEMS)]
    frame.loc[frame["item_id"] == FEATURELESS, ["kind", "price"]] = None
    return frame


def users() -> pd.DataFrame:
    """Return the users with their region, which is null for every third user."""
    regions = [None if u % 3 == 0 else f"region-{u % 2}" for u in range(USERS)]
    return pd.DataFrame({"user_id": range(USERS), "region": regions})


def write_drop(root: Path, source: str, day: str, frame: pd.DataFrame, suffix: str = "parquet") -> Path:
    """Write one day's folder of one source; return the file.

    Args:
        root: the folder of the drops.
        source: `events`, `items` or `users`.
        day: the day, as an ISO date.
        frame: the rows.
        suffix: the format: `parquet`, `csv` or `json`.
    """
    path = root / source / f"ds={day}" / f"part.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == "parquet":
        # The schema of the whole log keeps the types of a day without rows.
        pq.write_table(pa.Table.from_pandas(frame, SCHEMAS.get(source), preserve_index=False), path)
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    return path


def write_shop(root: Path, log: pd.DataFrame | None = None) -> None:
    """Write all drops of the shop, with one folder of events for each day."""
    log = events() if log is None else log
    stamps = log["event_ts"].astype("datetime64[us]")
    log = log.assign(event_ts=stamps)
    day = pd.Timestamp(FIRST)
    while day <= pd.Timestamp(LAST):
        write_drop(root, "events", str(day.date()), log[stamps.dt.date == day.date()])
        day += pd.Timedelta(days=1)
    write_drop(root, "items", FIRST, items())
    write_drop(root, "users", FIRST, users())


def settings(root: Path, **night: Any) -> dict[str, Any]:
    """Return the settings of the shop with two small models; `night` overrides settings of the night."""
    return {
        "warehouse": str(root / "warehouse"),
        "drops": str(root / "raw"),
        "bundles": str(root / "bundles"),
        "ids": {"user_id": "long", "item_id": "long"},
        "ingest": {
            "default_event_type": "purchase",
            "items": {"columns": {"kind": "string", "price": "string"}},
            "users": {"columns": {"region": "string"}},
        },
        "models": [_model("mha", "lime-mha"), _model("xor", "lime-xor")],
        "night": {
            "model": "mha", "k": 10, "buckets": 4, "units_per_commit": 4, "device": "cpu",
            "certificate_users": 24,
            **night,
        },
        "evaluate_policies": [{"name": "all"}, {"name": "new", "exclude_seen": "all"}],
        "spark": {"master": "local[2]", "conf": _spark_conf()},
    }  # fmt: skip


def _model(name: str, variant: str) -> dict[str, Any]:
    """Return the settings of a small model."""
    sizes = {
        "links": 4, "width": 8, "hidden": 8, "dot": 6, "heads": 2, "max_events": 16, "user_width": 4,
        "event_types": ["purchase"], "item_columns": ["kind", "price"], "user_columns": ["region"],
    }  # fmt: skip
    train = {
        "steps": 30, "batch": 8, "candidates": 64, "horizon_days": 7, "first_cut_days": 35, "min_events": 5,
    }  # fmt: skip
    return {"name": name, "min_buyers": 2, "config": {"variant": variant, **sizes}, "train": train}


def _spark_conf() -> dict[str, str]:
    """Return the Spark options that keep small queries fast and small."""
    return {
        "spark.python.daemon.module": "pipelines.worker_daemon",
        "spark.ui.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "3g",
        # Each sort, hash map and broadcast relation takes at least one page: 1 MB is enough here, and the
        # default is 64 MB.
        "spark.buffer.pageSize": "1m",
        # For so few rows a task is all overhead; a cluster's nights have two partitions (tests/cluster).
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
    }


def write_settings(root: Path, **night: Any) -> Path:
    """Write `settings` as a YAML file; return the file."""
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(root, **night)))
    return path


def days_between(first: str, last: str) -> list[str]:
    """List the ISO dates from `first` to `last`, including both."""
    span = (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days
    return [str(dt.date.fromisoformat(first) + dt.timedelta(days=i)) for i in range(span + 1)]
