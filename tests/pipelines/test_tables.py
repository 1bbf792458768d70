"""Tables under two writers at once."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.tables import Warehouse, WriteConflict, local_rows
from tests.cluster.standalone import wait_until

DAY = "2024-01-01"


def test_of_two_writers_of_a_slice_the_slower_fails_in_one_line_and_changes_nothing(
    empty_shop: Warehouse, tmp_path: Path
) -> None:
    row = {
        "ds": dt.date.fromisoformat(DAY), "item_id": 1, "model_version": "v", "recent_count": 0,
        "bias": 0.0, "eligible": 1,
    }  # fmt: skip
    quick = local_rows(empty_shop.spark, [row], empty_shop.schema("item_bias"))
    where = f"ds = '{DAY}'"
    empty_shop.replace("item_bias", quick, where)
    started, go = tmp_path / "started", tmp_path / "go"

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            started.touch()
            while not go.exists():
                time.sleep(0.02)
            yield batch

    slow = quick.mapInArrow(wait, quick.schema)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(empty_shop.replace, "item_bias", slow, where)
        wait_until(started.exists, "the slow writer did not start")
        version = empty_shop.replace("item_bias", quick, where)
        go.touch()
        with pytest.raises(WriteConflict, match=r"^table item_bias: another writer .* Run the job again"):
            writing.result(timeout=60)
    assert empty_shop.version("item_bias") == version
