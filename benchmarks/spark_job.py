"""Compare the engine inside Spark with the bare engine, and the bare engine with Spark ALS.

Letters: C candidates, U users.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks import peers
from benchmarks.problem import CONFIG, K, Problem, make_problem
from benchmarks.report import Row, interleave, median_ratio, row
from lime_model.bundle import Bundle, save_bundle
from lime_model.model.features import Catalogue
from lime_model.rows.link_states import state_bytes
from lime_model.scoring.backends.native import NativeBackend
from lime_model.scoring.bank import Shard, pack_shard, shard_path, write_index
from lime_model.scoring.cells import Shape
from lime_model.scoring.topk import Engine
from pipelines.schemas import SCORED, ddl_of
from pipelines.udfs.score_task import ScoreTask
from pipelines.udfs.score_users import score_users

TASKS, BATCH, USERS, FEW = 2, 256, 1024, 512
SHARD = 1 << 18  # candidates
NIGHT = "2020-01-01"
ALS = "ALS does one product of 64 for a pair, and our score takes 2,144 multiply-adds"


def compare_als(candidates: int, users: int) -> list[Row]:
    """Compare the exact native backend with ALS `recommendForAllUsers`, for the same U × C on one core.

    Both run in a new process that is pinned to one core, because a JVM would compile and collect garbage on
    the other cores.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        seconds = pool.submit(time_als, candidates, users).result()
    rate = users * candidates / float(np.median(seconds["als"])) / 1e6
    ratio = median_ratio(seconds["als"], seconds["native"])
    return [
        row("Spark ALS recommendForAllUsers, rank 64", rate, "M pairs/s"),
        row("exact native / Spark ALS recommendForAllUsers", ratio, "x", ">= 6", why=ALS),
    ]


def time_als(candidates: int, users: int) -> dict[str, list[float]]:
    """Pin this process to one core; return the seconds of both contestants in each round."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    problem = make_problem(candidates, users)
    with session("local[1]") as spark:
        runs = {
            "als": peers.spark_als(spark, candidates, users),
            "native": lambda: Engine(problem.weights, NativeBackend()).score_top_k(
                problem.queries, [problem.cells], K
            ),
        }
        return interleave(runs)


def compare_job(problem: Problem, count: int = USERS, k: int = K, *, warm: bool = True) -> list[Row]:
    """Compare our UDF in Spark's `mapInArrow` with the same function over the same batches in bare processes.

    The memory of a task after all its users is also compared with that after its share of the first 512.

    Args:
        problem: the model and the candidates.
        count: the number of users.
        k: the length of a list.
        warm: whether each contestant first runs once without timing.
    """
    with tempfile.TemporaryDirectory(prefix="lime-bench-") as name:
        folder = Path(name)
        task = lay_out(problem, folder, count, k)
        halves = [folder / f"users-{i}.arrow" for i in range(TASKS)]
        with (
            session(f"local[{TASKS}]") as spark,
            ProcessPoolExecutor(TASKS, get_context("spawn")) as pool,
        ):
            users = spark.createDataFrame(pa.concat_tables([_read(half) for half in halves]))
            users = users.repartitionByRange(TASKS, "user_id").cache()
            users.count()
            step = count // TASKS
            schema = ddl_of("staging", columns=SCORED).format(user="bigint", item="bigint")

            def job(users: DataFrame = users) -> int:
                run = folder / f"memory-{time.monotonic_ns()}"
                run.mkdir()

                def score(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
                    yield from score_users(batches, task, folder / "bundle", folder / "bank.arrow")
                    note_memory(run)

                users.mapInArrow(score, schema).write.format("noop").mode("overwrite").save()
                return max(int(path.read_text()) for path in run.iterdir())

            few = job(users.where(F.col("user_id") % step < FEW // TASKS))
            every = (halves, [task] * TASKS, [folder] * TASKS)
            many: list[int] = []
            runs = {"job": lambda: many.append(job()), "bare": lambda: list(pool.map(bare, *every))}
            seconds = interleave(runs, warm=warm)
    rate = count * len(problem.cells) / float(np.median(seconds["job"])) / 1e6
    ratio = median_ratio(seconds["bare"], seconds["job"])
    what = f"resident memory of a worker above the bank, {count:,} users done"
    return [
        row("Spark job, two tasks", rate, "M pairs/s"),
        row("Spark job / bare engine, two tasks", ratio, "x", ">= 0.95"),
        row(what, max(many) / 2**20, "MiB", "<= 600"),
        row(f"the same / after {FEW} users", max(many) / few, "x", "<= 1.1"),
    ]


def lay_out(problem: Problem, folder: Path, count: int, k: int) -> ScoreTask:
    """Write bundle, packed bank and users as files, as a night ships them; return the task.

    Args:
        problem: the model and the candidates.
        folder: the folder of the files.
        count: the number of users.
        k: the length of a list.
    """
    nothing = Catalogue.build((), {}, {}, np.zeros(0, np.bool_))
    version = save_bundle(Bundle(problem.model, nothing, {}, {}, {}, ""), folder / "bundle")
    a, b, d, beta = problem.rows
    blobs = {
        name: pa.array([row.tobytes() for row in side], pa.binary())
        for name, side in {"link_weights": a, "head_input": b, "dot": d}.items()
    }
    table = pa.table({"item_id": np.arange(len(beta)), **blobs, "bias": beta})
    shape, path = Shape(CONFIG.links, CONFIG.hidden, CONFIG.dot), folder / "bank.arrow"
    shards = []
    for number, start in enumerate(range(0, len(table), SHARD)):
        cells = pack_shard(table.slice(start, SHARD), shape)
        cells.words.tofile(shard_path(path, number))
        shards.append(Shard(len(cells), cells.stats))
    write_index(path, version, shape, [table["item_id"].combine_chunks()], shards)
    rng, step = np.random.default_rng(2), count // TASKS
    for half in range(TASKS):
        with pa.OSFile(str(folder / f"users-{half}.arrow"), "wb") as sink:
            rows = _users(rng, range(half * step, (half + 1) * step))
            with pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows, max_chunksize=BATCH)
    return ScoreTask(
        model_version=version, night=NIGHT, k=k,
        exclude_seen={"all": "none"}, backend="native", device="cpu",
    )  # fmt: skip


def bare(path: Path, task: ScoreTask, folder: Path) -> int:
    """Run the body of the UDF without Spark; return the number of rows.

    Args:
        path: the file of the users.
        task: the task that `lay_out` returned.
        folder: the folder of bundle and bank.
    """
    users = iter(_read(path).to_batches())
    lists = score_users(users, task, folder / "bundle", folder / "bank.arrow")
    return sum(batch.num_rows for batch in lists)


def note_memory(folder: Path) -> None:
    """Write the resident bytes of this process, without the mapped bank, to a file."""
    total = bank = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            inside = line.endswith(".cells")
        elif first == "Rss:":
            size = int(line.split()[1]) * 1024
            total += size
            bank += size if inside else 0
    (folder / f"memory-{time.monotonic_ns()}").write_text(str(total - bank))


@contextmanager
def session(master: str) -> Iterator[SparkSession]:
    """Open a session with the settings of the jobs that matter here, and stop it at the end of the block."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("bench-scoring")
    conf = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.memory": "6g",
        "spark.ui.showConsoleProgress": "false", "spark.python.daemon.module": "pipelines.worker_daemon",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH),
        "spark.sql.shuffle.partitions": str(TASKS),
    }  # fmt: skip
    for key, value in conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def _users(rng: np.random.Generator, ids: range) -> pa.Table:
    """Return the link states of random users without a history."""
    n, size = len(ids), state_bytes(CONFIG) // 4
    states = rng.standard_normal((n, size)).astype("<f4")
    empty = pa.array([[]] * n, pa.list_(pa.int64()))
    return pa.table(
        {
            "user_id": np.asarray(ids),
            "bucket": np.zeros(n, np.int32),
            "state": pa.array([state.tobytes() for state in states], pa.binary()),
            "slots": empty,
            "weights": pa.array([[]] * n, pa.list_(pa.float32())),
            "items": empty,
            "last_ts": pa.array([[]] * n, pa.list_(pa.timestamp("us", tz="UTC"))),
            "features": pa.array([b""] * n, pa.binary()),
            "sound": pa.repeat(True, n),
            "fingerprint": pa.repeat("", n),
        }
    )


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
