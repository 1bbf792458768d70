"""One user with two million events and twenty thousand users with few, in executors of 1 GB."""

from __future__ import annotations

import time

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from pyspark.sql import functions as F

from pipelines.score.forecast import WORKER_BYTES
from pipelines.settings.settings import load_settings
from pipelines.store.event_log import with_new_columns
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import ROOT, Cluster

pytestmark = pytest.mark.cluster
HEAVY, SMALL, EACH = (
    2_000_000,
    20_000,
    3,
)  # events of the heavy user; number of small users, and events of each


def test_a_user_with_two_million_events_is_reduced_in_pieces_and_scored(
    cluster: Cluster, fresh: Warehouse
) -> None:
    config = fresh.settings.warehouse.replace("warehouse", "settings.yaml")
    warehouse = Warehouse(fresh.spark, load_settings(config))
    heavy = fresh.spark.range(HEAVY).select(
        F.lit(1_000_000).alias("user_id"), (F.col("id") % 120).alias("item_id"), "id"
    )
    small = fresh.spark.range(SMALL * EACH).select(
        (2_000_000 + F.floor(F.col("id") / EACH)).alias("user_id"), (F.col("id") % 120).alias("item_id"), "id"
    )
    seconds = F.unix_timestamp(F.lit(shop.NIGHT).cast("timestamp")) - 1 - F.col("id") % 2_000_000
    events = heavy.unionByName(small).select(
        F.col("user_id").cast("long"), "item_id", F.timestamp_seconds(seconds).alias("event_ts"),
        F.lit("purchase").alias("event_type"), F.col("id").cast("string").alias("session_id"),
    )  # fmt: skip
    day = F.to_date("event_ts")
    label = F.lit(None).cast("double")
    log = events.withColumns({"label": label, "drop_ds": day, "ds": day})
    warehouse.append("events", with_new_columns(log))
    job = cluster.submit(
        str(ROOT / "jobs" / "run_steps.py"), "--config", config, "--ds", shop.NIGHT, "--run-key", "skew",
        "--steps", "build_candidate_bank", "build_link_states", "score_candidates", "verify_night",
        conf={"spark.executor.memory": "1g"},
    )  # fmt: skip
    largest = 0
    while job.poll() is None:
        for daemon in cluster.python_daemons():
            for worker in daemon.children():
                try:
                    largest = max(largest, worker.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.2)
    job.finish()
    states = QueryBuilder().register("states", DeltaTable(warehouse.path("user_link_states")))
    table = pa.table(states.execute("SELECT user_id, event_count FROM states").read_all())
    counts = dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    assert counts[1_000_000] == HEAVY
    assert sum(user >= 2_000_000 and count == EACH for user, count in counts.items()) == SMALL
    staged = DeltaTable(warehouse.path("staging")).to_pyarrow_table(columns=["user_id", "candidates"])
    lists = dict(zip(*(staged[name].to_pylist() for name in staged.column_names), strict=True))
    assert len(lists) == len(counts)
    assert all(len(items) == warehouse.settings.night.k for items in lists.values())
    assert 0 < largest < WORKER_BYTES
