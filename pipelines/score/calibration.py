"""Measure how fast the cores or GPUs of a session score.

All of them work at the same time, as on a night, with the night's bundle, backend, K and widths, but with
random factors. Each reads users for half a second and scores them for a second. For a night that takes lists
over, each also takes lists over for half a second.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lime_model.bundle import worker_bundle
from lime_model.config import MEMORY_FEATURES
from lime_model.model.features import encode_columns
from lime_model.rows.link_states import decode_state, state_bytes
from lime_model.scoring.backend import Backend
from lime_model.scoring.backends.choose import make_backend
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.canonical import Rows, Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.incremental.kept_entries import keep_best
from lime_model.scoring.incremental.night_changes import (
    MOST_CHANGED,
    MOST_MOVERS,
    SMALLEST_SUBSET,
    NightChanges,
    UnchangedUser,
    write_night_changes,
)
from lime_model.scoring.queries import Memory, Query
from lime_model.scoring.topk import Engine
from pipelines.models.bundles import shipped_folder
from pipelines.score.broadcast_files import local_root
from pipelines.score.placement import Placement, own_device
from pipelines.store.tables import Warehouse
from pipelines.udfs.read_users import StateFolder

SAMPLE = 1 << 16  # candidates that the calibration scores at most
USERS = 32  # users of a calibration batch
NIGHT = 3  # the number of the calibrated night; nights 1 and 2 are its anchor nights


class Sizes(NamedTuple):
    """How large a night's work is.

    The fields are the numbers of `candidates` in the bank and of items in a user's `history`, the list length
    `k`, and the number of `entries` that are kept of each list. For a night that takes lists over, they also
    say how many candidates `changed` and how many biases `moved`; for other nights `changed` is None.
    """

    candidates: int
    history: int
    k: int
    entries: int = 0
    changed: int | None = None
    moved: int = 0

    @property
    def wanted(self) -> int:
        """Length of the list of a user who is scored in full."""
        return max(self.k, self.entries)

    def sampled(self) -> Sizes:
        """Reduce the sizes to a night that can be scored in a second."""
        candidates = min(max(self.candidates, 1), SAMPLE)
        changed = (
            None if self.changed is None else max(0, min(self.changed, int(candidates * MOST_CHANGED) - 1))
        )
        history = min(self.history, candidates)
        moved = min(self.moved, int(candidates * MOST_MOVERS))
        return Sizes(candidates, history, self.k, self.entries, changed, moved)


class Speed(NamedTuple):
    """The speed of one core or GPU."""

    pairs_per_second: float
    users_per_second: float  # users whose states and memories are read, before any candidate is scored
    taken_over_per_second: float = 0.0  # users whose lists are taken over; 0 when that was not measured


def calibrate(warehouse: Warehouse, version: str, placement: Placement, sizes: Sizes) -> list[dict[str, Any]]:
    """Measure all cores or GPUs of a session at once.

    Args:
        warehouse: the session's warehouse.
        version: model version of the shipped bundle.
        placement: tasks, backend and device of the night.
        sizes: the night's work.

    Returns:
        For each core or GPU the fields of its `Speed`, and the free disk and memory of its host.
    """
    choice, few = placement.choice, sizes.sampled()

    def run(seconds: float) -> list[dict[str, Any]]:
        def measure(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for _ in batches:
                scorer = make_backend(choice.backend, own_device(choice.device))
                speed = measure_speed(shipped_folder(version), scorer, few, seconds)
                found = json.dumps({**speed._asdict(), **_room()})
                yield pa.record_batch([pa.array([found])], names=["found"])

        spread = warehouse.spark.range(placement.tasks, numPartitions=placement.tasks)
        found = spread.mapInArrow(measure, "found string", profile=placement.profile)
        return [json.loads(row[0]) for row in found.collect()]

    run(0.0)  # starts the workers, loads and compiles, so that the measured run starts everywhere at once
    return run(1.0)


def measure_speed(bundle: Path, scorer: Backend, sizes: Sizes, seconds: float) -> Speed:
    """Measure this core or GPU with the bundle's widths and weights, over random factors.

    Args:
        bundle: folder of the bundle.
        scorer: the night's backend.
        sizes: the work; no size exceeds the number of candidates.
        seconds: how long to score; reading users and taking lists over are measured for half as long.
    """
    loaded = worker_bundle(bundle)
    states = StateFolder(loaded, scorer)
    engine = states.engine
    rng = np.random.default_rng(0)
    cells = Cells.pack(_random_rows(rng, engine.weights, sizes.candidates))
    state = rng.standard_normal(state_bytes(loaded.config) // 4).astype("<f4").tobytes()
    nothing = encode_columns({}, loaded.user_encoders, 1)

    def read(memory: Memory) -> list[Query]:
        """Read users as the job reads a batch."""
        links, pools = zip(*(decode_state(state, loaded.config) for _ in range(USERS)), strict=True)
        return [Query(row, memory) for row in states.fold(links, pools, [nothing] * USERS)]

    users, own = read(Memory.empty(MEMORY_FEATURES)), _random_memory(sizes.history)
    reading = _per_second(lambda: engine.score_own_items(read(own), cells), seconds / 2)
    scoring = _per_second(lambda: engine.score_top_k(users, [cells], sizes.wanted), seconds)
    taking = 0.0
    if sizes.changed is not None:
        taking = _per_second(_take_over(engine, users, cells, sizes), seconds / 2)
    return Speed(scoring * USERS * sizes.candidates, reading * USERS, taking * USERS)


def _take_over(engine: Engine, users: Sequence[Query], cells: Cells, sizes: Sizes) -> Callable[[], object]:
    """Return a function that takes the lists of these users over.

    The first candidates have changed, and the bias of the last ones has risen since anchor night 2, but not
    since anchor night 1. Candidates whose bias has risen are scored in subsets of at least
    `SMALLEST_SUBSET`. To score fewer of them on average, only some users have anchor night 2.
    """
    lists = engine.score_top_k(users, [cells], sizes.wanted)
    rows, beta = np.arange(len(cells)), cells.beta(np.arange(len(cells)))
    since = np.where(rows < (sizes.changed or 0), NIGHT, 0).astype(np.int32)
    risen = np.where(rows < len(cells) - max(sizes.moved, SMALLEST_SUBSET), beta, beta - np.float32(1e3))
    table = pa.table({"item_id": rows, "since": since, "reference": beta, "bias_1": beta, "bias_2": risen})
    with tempfile.TemporaryDirectory() as folder:
        path, bank = Path(folder) / "night_changes.arrow", PackedBank([cells], pa.array(rows), None)
        write_night_changes(path, table, NIGHT, {1: "bias_1", 2: "bias_2"})
        night_changes = NightChanges(path, bank)
    movers = round(len(users) * min(1.0, sizes.moved / SMALLEST_SUBSET))
    unchanged = [
        UnchangedUser(user, keep_best(best, len(best.rows)), 2 if i < movers else 1, np.zeros(0, np.int64))
        for i, (user, (best,)) in enumerate(zip(users, lists, strict=True))
    ]
    return lambda: list(night_changes.advance_users(unchanged, sizes.k, engine))


def _random_memory(items: int) -> Memory:
    rows = np.arange(items, dtype=np.int64)
    return Memory(rows, np.zeros((items, MEMORY_FEATURES), np.float32), np.zeros((1, items), np.bool_))


def _random_rows(rng: np.random.Generator, weights: Weights, count: int) -> Rows:
    links, hidden, dot = len(weights.raw_links), len(weights.out), len(weights.dot_out_bias)
    a = rng.gamma(0.3, size=(count, links)).astype(np.float32) + np.float32(1e-6)
    b, d = (rng.standard_normal((count, side)).astype(np.float32) for side in (hidden, dot))
    return Rows(a / a.sum(1, keepdims=True), b, d, rng.standard_normal(count).astype(np.float32))


def _per_second(work: Callable[[], object], seconds: float) -> float:
    """Return how often `work` runs in a second, measured over `seconds` and at least one run.

    One run before the measurement loads and compiles.
    """
    work()
    count, started = 0, time.monotonic()
    while not count or time.monotonic() - started < seconds:
        work()
        count += 1
    return count / (time.monotonic() - started)


def _room() -> dict[str, Any]:
    """Return this host's name, this executor, and the free bytes of Spark's local directory and of memory."""
    return {
        "host": os.uname().nodename,
        "executor": os.getppid(),  # its daemon forked this worker
        "free_bytes": shutil.disk_usage(local_root()).free,
        "memory_bytes": min(_available(), _left_to_container()),
    }


def _available() -> int:
    """Return the bytes of memory available on the host; a very large number where that is unknown."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), 1 << 62)


def _left_to_container() -> int:
    """Return the bytes that this control group (version 2) may still use; a very large number without a
    limit.
    """
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if not limit.exists() or limit.read_text().strip() == "max":
        return 1 << 62
    return int(limit.read_text()) - int(used.read_text())
