"""What a night's events cost, beside computing everything again: `make bench-nights`.

1. LIME-MHA, 16 new events merged into a stored state / a history of 1,024 read again: compute only, for a
   batch of users, and one user as the job reads it, whose small products wait for Python. And how far a state
   is from a float64 reading of the whole history after 64 merges, each of which stores it in fp32.
2. Spark's whole state job on 50,000 users with 256 past events each, a tenth of them with 16 new ones:
   the job that starts from last night's states / the one that finds none.
3. LIME-XOR, which reads a changed history again, beside HSTU at growing lengths: see growth.py.
4. Chains of nights, each beside a full one: see chain.py.

Ratios within a round, median of 5 rounds; each round of the second works on copies of one warehouse. A part
has a file of its own, written as soon as it is measured; `--parts` measures some of them.
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
import torch
import yaml
from numpy.typing import NDArray
from pyspark.sql import functions as F

from benchmarks.chain import journey, synthetic
from benchmarks.growth import compare_growth
from benchmarks.night import write_settings
from benchmarks.problem import CONFIG, make_model
from benchmarks.report import Row, interleave, median_ratio, publish, row
from lime_model.bundle import Bundle
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue
from lime_model.model.links import LinkAttention, SoftmaxSum, finish_softmax, merge_softmax, reduce_pools
from lime_model.rows.link_states import LinkState, StateBuilder, decode_state, decode_sums, encode_state
from pipelines.build.link_states import PAYLOAD, build_link_states
from pipelines.learn.train import train_models
from pipelines.night import ingest_days
from pipelines.settings.settings import load_settings
from pipelines.store.event_log import with_new_columns
from pipelines.store.leases import Run
from pipelines.store.session import open_session
from pipelines.store.tables import Warehouse
from synthetic import shop

PAST, NEW, LONG = 256, 16, 1024
SHARE = 10  # one user in so many is active
ROUNDS = 5
NEXT = "2024-05-02"  # the night after `shop.NIGHT`


def compare_merge(users: int = 64) -> list[Row]:
    """A batch of users through the model's own functions, and one after the other as the job reads them."""
    torch.set_num_threads(1)
    nothing = Catalogue.build((), {}, {}, np.zeros(0, np.bool_))
    builder = StateBuilder(Bundle(make_model(CONFIG), nothing, {}, {}, {}, ""))
    nobody = Entries(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    days = np.sort(np.random.default_rng(0).random(LONG + NEW) * -300)

    def read(days: NDArray[np.float64], before: bytes = b"") -> bytes:
        reader = builder.open(nobody, before)
        rows = np.zeros(len(days), np.int64)
        reader.read(rows, rows, days)
        return encode_state(reader.finish())

    attention = builder.model.reader
    assert isinstance(attention, LinkAttention)
    events = torch.randn(users, LONG + NEW, CONFIG.width, dtype=torch.float64)
    queries = torch.randn(users, CONFIG.links, CONFIG.width, dtype=torch.float64)
    when, keep = torch.from_numpy(days).expand(users, -1), torch.ones(users, LONG + NEW, dtype=torch.bool)

    def reduce(start: int, stop: int | None = None) -> list[SoftmaxSum]:
        history = events[:, start:stop], when[:, start:stop], keep[:, start:stop]
        return [attention.reduce(queries, *history), reduce_pools(*history, CONFIG.pool_days)]

    def drift() -> float:
        """Of the first user, relative, the larger of links and pools."""
        raw = b""
        for start in range(0, LONG + NEW, NEW):
            links, pools = (SoftmaxSum(*(part[0] for part in side)) for side in reduce(start, start + NEW))
            if raw:
                before = decode_sums(raw, CONFIG)
                assert isinstance(before.links, SoftmaxSum)
                links, pools = merge_softmax(before.links, links), merge_softmax(before.pools, pools)
            raw = encode_state(LinkState(links, pools))
        whole = [finish_softmax(side)[0] for side in reduce(0)]
        whole[0] = whole[0].transpose(0, 1).flatten(1)  # the heads side by side
        pairs = zip(decode_state(raw, CONFIG), (part.numpy() for part in whole), strict=True)
        return max(float(np.linalg.norm(mine - exact) / np.linalg.norm(exact)) for mine, exact in pairs)

    stored, sums = read(days[:LONG]), reduce(0)
    runs = {
        "again": lambda: [read(days) for _ in range(users)],
        "merge": lambda: [read(days[LONG:], stored) for _ in range(users)],
        "batch again": lambda: reduce(0),
        "batch merge": lambda: [merge_softmax(*pair) for pair in zip(sums, reduce(LONG), strict=True)],
    }
    with torch.inference_mode():
        error = drift()
        seconds = interleave(runs, ROUNDS)
    letters = f"L = {CONFIG.links}, D = {CONFIG.width}, H = {CONFIG.heads}"
    every = f"{LONG + NEW:,} events"
    return [
        row(
            f"compute of {users} users ({letters}): {NEW} new events merged / {every} read again",
            median_ratio(seconds["batch merge"], seconds["batch again"]), "x", "<= 0.025",
        ),
        row(f"a user in the job: {every} read again", 1e3 * float(np.median(seconds["again"])) / users, "ms"),
        row(
            f"a user in the job: {NEW} new events merged / {every} read again",
            median_ratio(seconds["merge"], seconds["again"]), "x",
        ),
        row(
            f"after {LONG // NEW} merges / float64 over {every}, relative difference",
            1e6 * error, "millionths", "<= 10",
        ),
    ]  # fmt: skip


def compare_jobs(users: int) -> list[Row]:
    """The state job of a night from the last night's states / from none."""
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
                    for table in (*PAYLOAD, "runs"):
                        shutil.rmtree(copy / table)
                (root / "copy.yaml").write_text(yaml.safe_dump(raw | {"warehouse": str(copy)}))
                warehouse = Warehouse(spark, load_settings(str(root / "copy.yaml")))
                started = time.perf_counter()
                manifest = build_link_states(warehouse, Run(NEXT, kind), "mha")
                rounds[kind].append(time.perf_counter() - started)
                assert bool(manifest["merged"]) == (kind == "advance"), manifest
                shutil.rmtree(copy)
        spark.stop()
    ratio = median_ratio(rounds["advance"], rounds["full"])
    about = f"{users:,} users with {PAST} events, one in {SHARE} with {NEW} new ones"
    return [
        row(f"state job of {about}, every history read", float(np.median(rounds["full"])), "s"),
        row("state job from last night's states / every history read", ratio, "x", "<= 0.2"),
    ]


def fill(warehouse: Warehouse, root: Path, users: int) -> None:
    """The shop and its model, many users with `PAST` events each and their states; then the new events."""
    shop.write_shop(root / "raw")
    ingest_days(warehouse, shop.FIRST, shop.LAST)
    train_models(warehouse, shop.NIGHT, ["mha"])
    append_events(warehouse, users, PAST, 1, shop.NIGHT)
    build_link_states(warehouse, Run(shop.NIGHT, "first"), "mha")
    append_events(warehouse, users // SHARE, NEW, SHARE, NEXT)


def append_events(warehouse: Warehouse, users: int, each: int, apart: int, night: str) -> None:
    """`each` events of so many users, `apart` in id: four a day, the last day being that before the night."""
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
    """Measure and publish, part by part."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=50_000, help="of the state job")
    options.add_argument("--nights", type=int, default=10, help="of the synthetic chain, after the first")
    options.add_argument("--journey-nights", type=int, default=28)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of the five")
    args = options.parse_args()
    # Each in a process of its own: Spark's JVM lives as long as the process, with the memory it began with.
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
