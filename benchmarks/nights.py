"""Compare the cost of a night's new events with computing everything again: `make bench-nights`.

1. LIME-MHA merges 16 new events into a stored state, or reads a history of 1,024 events again. The benchmark
   times only the computation: for a batch of users, and for one user as the job reads it, where Python limits
   the small products. It also measures how far a state is from a float64 reading of the whole history after
   64 merges, each of which stores the state in fp32: see merges.py.
2. Spark's whole state job runs on 50,000 users with 256 past events each; a tenth of them have 16 new events.
   The job starts from last night's states, or finds none.
3. LIME-XOR, which reads a changed history again, is compared with HSTU at growing lengths: see growth.py.
4. Chains of nights are compared with full nights: see chain.py.

Ratios are taken within a round; the result is the median of 5 rounds. Each round of part 2 works on copies of
one warehouse. Each part writes its own file as soon as it is measured; `--parts` chooses the parts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from pyspark.sql import functions as F

from benchmarks.chain import journey, synthetic
from benchmarks.growth import compare_growth
from benchmarks.merges import NEW, compare_merge
from benchmarks.night import write_settings
from benchmarks.report import Row, median_ratio, publish, row
from pipelines.build.link_states import STORED, build_link_states
from pipelines.ingest.load_days import ingest_days
from pipelines.learn.train import train_models
from pipelines.settings.settings import load_settings
from pipelines.store.event_log import with_new_columns
from pipelines.store.leases import Run
from pipelines.store.session import open_session
from pipelines.store.tables import Warehouse
from synthetic import shop

PAST = 256  # events of a user before the new ones
SHARE = 10  # one user in 10 is active
ROUNDS = 5
NEXT = "2024-05-02"  # the night after `shop.NIGHT`


def compare_jobs(users: int) -> list[Row]:
    """Compare the state job that starts from last night's states with the job that finds none."""
    with tempfile.TemporaryDirectory(prefix="lime-bench-") as name:
        root = Path(name)
        config = write_settings(root)
        spark = open_session(load_settings(str(config)), "bench-nights")
        fill(Warehouse(spark, load_settings(str(config))), root, users)
        rounds: dict[str, list[float]] = {"advance": [], "full": []}
        raw = yaml.safe_load(config.read_text())
        for number in range(ROUNDS):
            for kind in rounds:
                copy = root / f"{kind}-{number}"
                shutil.copytree(root / "warehouse", copy)
                if kind == "full":
                    for table in (*STORED, "runs"):
                        shutil.rmtree(copy / table)
                (root / "copy.yaml").write_text(yaml.safe_dump(raw | {"warehouse": str(copy)}))
                warehouse = Warehouse(spark, load_settings(str(root / "copy.yaml")))
                started = time.perf_counter()
                manifest = build_link_states(warehouse, Run(NEXT, kind), "mha")
                rounds[kind].append(time.perf_counter() - started)
                assert bool(manifest.merged) == (kind == "advance"), manifest
                shutil.rmtree(copy)
        spark.stop()
    ratio = median_ratio(rounds["advance"], rounds["full"])
    about = f"{users:,} users with {PAST} events, one in {SHARE} with {NEW} new ones"
    return [
        row(f"state job of {about}, every history read", float(np.median(rounds["full"])), "s"),
        row("state job from last night's states / every history read", ratio, "x", "<= 0.2"),
    ]


def fill(warehouse: Warehouse, root: Path, users: int) -> None:
    """Ingest the shop, train its model, add users with `PAST` events, build their states, and add new events.

    Args:
        warehouse: an empty warehouse.
        root: its folder, where the drops are written.
        users: the number of users to add.
    """
    shop.write_shop(root / "raw")
    ingest_days(warehouse, shop.FIRST, shop.LAST)
    train_models(warehouse, shop.NIGHT, ["mha"])
    append_events(warehouse, users, PAST, 1, shop.NIGHT)
    build_link_states(warehouse, Run(shop.NIGHT, "first"), "mha")
    append_events(warehouse, users // SHARE, NEW, SHARE, NEXT)


def append_events(warehouse: Warehouse, users: int, each: int, apart: int, night: str) -> None:
    """Append events of some users, four a day; the last day is the day before the night.

    Args:
        warehouse: the warehouse of the events.
        users: the number of users.
        each: the number of events of each user.
        apart: the difference between the ids of two neighbouring users.
        night: the night, as an ISO date.
    """
    spark, number = warehouse.spark, F.col("id") % each
    end = F.unix_timestamp(F.lit(night).cast("timestamp"))
    back = F.floor(number / 4) * 86_400 if each > NEW else F.lit(0)
    stamp = F.timestamp_seconds(end - 1 - back - (number % 4 if each > NEW else number) * 3600)
    events = spark.range(users * each).select(
        (1_000_000 + F.floor(F.col("id") / each) * apart).alias("user_id"),
        (F.pmod(F.xxhash64("id"), F.lit(shop.ITEMS))).alias("item_id"),
        stamp.alias("event_ts"), F.lit("purchase").alias("event_type"),
        F.col("id").cast("string").alias("session_id"), F.lit(None).cast("double").alias("label"),
        F.to_date(stamp).alias("drop_ds"), F.to_date(stamp).alias("ds"),
    )  # fmt: skip
    warehouse.append("events", with_new_columns(events).repartition("ds"))


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "merge": lambda args: compare_merge(),
    "growth": lambda args: compare_growth(),
    "jobs": lambda args: compare_jobs(args.users),
    "synthetic": lambda args: _in_folder(synthetic, args.nights),
    "journey": lambda args: _in_folder(journey, args.journey_nights),
}


def _in_folder(chain: Callable[[Path, int], list[Row]], nights: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="lime-bench-") as root:
        return chain(Path(root), nights)


def main() -> int:
    """Measure and publish each part."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=50_000, help="users of the state job")
    options.add_argument(
        "--nights", type=int, default=10, help="nights of the synthetic chain after its first"
    )
    options.add_argument("--journey-nights", type=int, default=28)
    options.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to measure (default: all)"
    )
    args = options.parse_args()
    # Each part has its own process, because Spark's JVM keeps its first memory settings until its end.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for part in args.parts:
            pool.submit(measure, part, args).result()
    return 0


def measure(part: str, args: argparse.Namespace) -> None:
    """Measure a part and publish it."""
    started = time.monotonic()
    publish(f"nights-{part}", PARTS[part](args), "two cores", started)


if __name__ == "__main__":
    sys.exit(main())
