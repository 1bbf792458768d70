"""What a night will take, before it runs: pairs, bytes, memory, tasks, seconds and cost.

The rates are measured, not assumed: every core that the session has reads users for half a second and
scores them for a second with the night's bundle, backend, K and widths, over random numbers, all cores
at once, as they will.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from lime_model.bundle import worker_bundle
from lime_model.config import MEMORY_FEATURES
from lime_model.errors import LimeError
from lime_model.features import encode_columns
from lime_model.scoring.backends import make_backend
from lime_model.scoring.canonical import Rows, Weights
from lime_model.scoring.cells import WIDTH, Cells, Shape
from lime_model.scoring.topk import Backend, Memory, Query, score_memories, score_top_k
from lime_model.states import decode_state, state_bytes
from pipelines.bundles import ship_bundle, shipped_folder
from pipelines.candidates import read_corpus
from pipelines.catalogue import read_entity
from pipelines.champions import need_champion
from pipelines.columns import ELIGIBLE, USER_ID
from pipelines.events import read_events
from pipelines.gpus import Placement, own_device, place
from pipelines.leases import Run
from pipelines.parcels import local_root
from pipelines.runs import Manifest, find_manifest, once
from pipelines.tables import Warehouse
from pipelines.udfs.score_users import StateFolder

WORKER_BYTES = 600 << 20  # a worker's own, above the shared bank: at most (benchmarks/results/scoring.json)
COMMIT_SECONDS = 3.0  # to start a commit's tasks and write it
SAMPLE = 1 << 16  # candidates that the calibration scores at most
USERS = 32  # of a calibration batch


class ImpossibleNight(LimeError):
    """The cluster cannot hold what the night needs."""


def plan_night(warehouse: Warehouse, run: Run, price: float | None = None) -> Manifest:
    """Forecast the scoring of a night; the manifest is kept, and scoring puts its own figures beside it.

    Args:
        price: of a core (or GPU, where one scores) for an hour; None leaves the cost out.

    Raises:
        ImpossibleNight: naming the number that makes it impossible.
    """

    def work() -> Manifest:
        name = warehouse.settings.night.model
        bundle = ship_bundle(warehouse, name, need_champion(warehouse, name, run.ds))
        night, config = warehouse.settings.night, bundle.config
        users, events, candidates = count_sides(warehouse, run, config.bias_days)
        # After the counts: executors are up by now.
        placement = place(warehouse.spark.sparkContext, night.backend, night.device)
        choice, tasks = placement.choice, placement.tasks
        shape = Shape(config.links, config.hidden, config.dot)
        bank = -(-candidates // WIDTH) * 4 * shape.words
        history = -(-events // max(users, 1))
        hosts = calibrate(warehouse, bundle.version, placement, candidates, history)
        rate, readers = (sum(host[name] for host in hosts) for name in Speed._fields)
        commits = -(-night.buckets // night.units_per_commit)
        pairs = users * candidates
        seconds = pairs / rate + users / readers + commits * COMMIT_SECONDS
        check_room(hosts, bank)
        forecast = {
            "users": users,
            "candidates": candidates,
            "pairs": pairs,
            "bank_bytes": bank,
            "state_bytes": users * state_bytes(config),
            "worker_bytes": WORKER_BYTES,
            "tasks": tasks,
            "commits": commits,
            "backend": choice._asdict(),
            "pairs_per_second": round(rate),
            "users_per_second": round(readers),
            "predicted_seconds": round(seconds, 1),
        }
        if price is not None:
            cost = seconds / 3600 * tasks * price
            forecast |= {"price_per_hour": price, "predicted_cost": cost}
        return forecast

    return once(warehouse, plan_of(run), "plan_night", work)


def plan_of(run: Run) -> Run:
    """What a forecast for the run of this key is kept under: it takes no lease, so it knows no epoch."""
    return Run(run.ds, f"plan-{run.key}")


def find_forecast(warehouse: Warehouse, run: Run) -> Manifest | None:
    """What was foretold of the run, None when nobody planned."""
    return find_manifest(warehouse, plan_of(run).run_id, "plan_night")


def compare_forecast(forecast: Manifest | None, staged: Mapping[str, Manifest]) -> Manifest:
    """What was predicted beside what the scored `staged` policies took; nothing when nobody planned."""
    if forecast is None:
        return {}
    first = next(iter(staged.values()))
    actual = first["seconds"]
    # Both of this attempt: what was staged before, an earlier one paid for.
    share = 1 - first["commits_reused"] / first["commits"]
    predicted = round(forecast["predicted_seconds"] * share, 1)
    compared = {"predicted_seconds": predicted, "actual_seconds": actual, "share_of_night": share}
    if "price_per_hour" in forecast:
        cost = actual / 3600 * forecast["tasks"] * forecast["price_per_hour"]
        pairs = first["pairs_per_second"] * actual
        compared |= {"cost": cost, "cost_per_million_pairs": cost / max(pairs, 1) * 1e6}
    return {"forecast": compared}


def count_sides(warehouse: Warehouse, run: Run, bias_days: int) -> tuple[int, int, int]:
    """Users, their events and the eligible candidates: of the night's manifests once built, else counted."""
    policy = warehouse.settings.night.policy
    states, bank = (
        find_manifest(warehouse, run.run_id, f"build_{job}") for job in ("link_states", "candidate_bank")
    )
    if states and bank:
        return states["users"], states["events"], bank["eligible"][policy.name]
    known = read_entity(warehouse, "users", run.ds, warehouse.newest("users")).select(USER_ID)
    seen = read_events(warehouse, run.ds).select(USER_ID)
    versions = (warehouse.version("events"), warehouse.newest("items"))
    corpus = read_corpus(warehouse, run.ds, versions, [policy], bias_days)
    users = known.union(seen).distinct().count()
    return users, seen.count(), corpus.where(F.col(ELIGIBLE) == 1).count()


def calibrate(
    warehouse: Warehouse, version: str, placement: Placement, candidates: int, history: int
) -> list[dict[str, Any]]:
    """By core or GPU: its `Speed`, and of its host what `check_room` wants to know."""
    k, choice = warehouse.settings.night.k, placement.choice
    candidates = min(max(candidates, 1), SAMPLE)
    history = min(history, candidates)

    def run(seconds: float) -> list[dict[str, Any]]:
        def measure(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for _ in batches:
                scorer = make_backend(choice.backend, own_device(choice.device))
                folder = shipped_folder(version)
                speed = measure_speed(
                    folder, scorer, candidates=candidates, history=history, k=k, seconds=seconds
                )
                found = json.dumps({**speed._asdict(), **_room()})
                yield pa.record_batch([pa.array([found])], names=["found"])

        spread = warehouse.spark.range(placement.tasks, numPartitions=placement.tasks)
        found = spread.mapInArrow(measure, "found string", profile=placement.profile)
        return [json.loads(row[0]) for row in found.collect()]

    run(0.0)  # starts the workers, loads, compiles: the next ones start together
    return run(1.0)


class Speed(NamedTuple):
    """Of one core or GPU."""

    pairs_per_second: float
    users_per_second: float  # read from their states and memories, before any candidate


def measure_speed(
    bundle: Path, scorer: Backend, *, candidates: int, history: int, k: int, seconds: float
) -> Speed:
    """How fast this core or GPU is with the bundle's widths and weights, over random factors.

    Args:
        bundle: folder of the bundle.
        scorer: the night's backend.
        candidates: to score, at least 1.
        history: items of each user's repeat memory, at most `candidates`.
        k: list length.
        seconds: to score for; users are read for half of that.
    """
    loaded = worker_bundle(bundle)
    states = StateFolder(loaded, scorer)
    rng = np.random.default_rng(0)
    cells = Cells.pack(_random_rows(rng, states.weights, candidates))
    state = rng.standard_normal(state_bytes(loaded.config) // 4).astype("<f4").tobytes()
    nothing = encode_columns({}, loaded.user_encoders, 1)

    empty = Memory.empty(MEMORY_FEATURES)
    own = Memory(
        np.arange(history, dtype=np.int64),
        np.zeros((history, MEMORY_FEATURES), np.float32),
        np.zeros((1, history), np.bool_),
    )

    def read(memory: Memory) -> list[Query]:
        """As a batch of the job is read."""
        links, pools = zip(*(decode_state(state, loaded.config) for _ in range(USERS)), strict=True)
        return [Query(row, memory) for row in states.fold(links, pools, [nothing] * USERS)]

    users = read(empty)
    reading = _per_second(lambda: score_memories(states.weights, read(own), cells, scorer), seconds / 2)
    scoring = _per_second(lambda: score_top_k(states.weights, users, [cells], k, scorer), seconds)
    return Speed(scoring * USERS * candidates, reading * USERS)


def _random_rows(rng: np.random.Generator, weights: Weights, count: int) -> Rows:
    links, hidden, dot = len(weights.raw_links), len(weights.out), len(weights.dot_out_bias)
    a = rng.gamma(0.3, size=(count, links)).astype(np.float32) + np.float32(1e-6)
    b, d = (rng.standard_normal((count, side)).astype(np.float32) for side in (hidden, dot))
    return Rows(a / a.sum(1, keepdims=True), b, d, rng.standard_normal(count).astype(np.float32))


def _per_second(work: Callable[[], object], seconds: float) -> float:
    """Times a second, over at least one and `seconds`, after one that loads and compiles."""
    work()
    count, started = 0, time.monotonic()
    while not count or time.monotonic() - started < seconds:
        work()
        count += 1
    return count / (time.monotonic() - started)


def check_room(hosts: list[dict[str, Any]], bank: int) -> None:
    """Every host must hold the bank on disk (its executors' broadcast blocks and once to map), and its
    workers in memory.

    Raises:
        ImpossibleNight: naming host, bytes wanted and bytes there.
    """
    for name in sorted({host["host"] for host in hosts}):
        here = [host for host in hosts if host["host"] == name]
        free, memory = (min(host[key] for host in here) for key in ("free_bytes", "memory_bytes"))
        executors = len({host["executor"] for host in here})
        wanted = (executors + 1) * bank
        if free < wanted:
            raise ImpossibleNight(
                f"{executors} executors on {name} take {wanted:,} bytes of Spark's local directory for a "
                f"bank of {bank:,}, and {free:,} are free there; make room, give executors another "
                "spark.local.dir, run fewer and larger ones, or score fewer candidates"
            )
        if memory < len(here) * WORKER_BYTES:
            raise ImpossibleNight(
                f"{len(here)} workers on {name} take up to {len(here) * WORKER_BYTES:,} bytes and {memory:,} "
                "are available; run fewer tasks at once there (spark.executor.cores), or use larger hosts"
            )


def _room() -> dict[str, Any]:
    """Of this host: its name, this executor, bytes free under Spark's local directory, memory available."""
    return {
        "host": os.uname().nodename,
        "executor": os.getppid(),  # its daemon forked this worker
        "free_bytes": shutil.disk_usage(local_root()).free,
        "memory_bytes": min(_available(), _left_to_container()),
    }


def _available() -> int:
    """Bytes of memory that the host could give; a lot where it does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), 1 << 62)


def _left_to_container() -> int:
    """Bytes up to the limit of this control group (version 2), as in a pod; a lot where there is none."""
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if not limit.exists() or limit.read_text().strip() == "max":
        return 1 << 62
    return int(limit.read_text()) - int(used.read_text())
