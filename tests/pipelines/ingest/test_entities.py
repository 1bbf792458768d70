"""Items are valid from the day of their drop, have columns of any name, and can be withdrawn."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.build.corpus import CorpusVersions, read_corpus
from pipelines.ingest.load_days import ingest_days
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.schemas import ELIGIBLE
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.catalogue import read_entity
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.pipelines.ingest.drops import (
    DAY,
    NEXT,
    make_shop,
    put_file,
    write_events,
)


def test_items_are_valid_from_the_day_of_their_drop(empty_shop: Warehouse) -> None:
    root = Path(empty_shop.settings.drops)
    for day, rows in {
        "2024-03-01": [(1, "kind-a", "p"), (2, "kind-b", "p")],
        "2024-03-03": [(1, "kind-z", "p"), (3, None, None)],
    }.items():
        shop.write_drop(root, "items", day, pd.DataFrame(rows, columns=["item_id", "kind", "price"]))
    assert ingest_entity(empty_shop, "items", ["2024-03-01", "2024-03-03"]).changed
    assert not ingest_entity(empty_shop, "items", ["2024-03-01", "2024-03-03"]).changed
    assert not ingest_entity(empty_shop, "items", ["2024-03-03"]).changed

    def kinds(night: str) -> dict[int, str | None]:
        return {row["item_id"]: row["kind"] for row in read_entity(empty_shop, "items", night).collect()}

    assert kinds("2024-03-01") == {}
    assert kinds("2024-03-03") == {1: "kind-a", 2: "kind-b"}  # the drop of a day is valid from that day on
    assert kinds("2024-03-04") == {1: "kind-z", 2: "kind-b", 3: None}
    assert not ingest_entity(empty_shop, "items", ["2024-03-01"]).changed  # in any order
    write_events(empty_shop, [(1, 2, "2024-03-01 10:00:00", "a")], "2024-03-01")
    ingest_days(empty_shop, "2024-03-01", "2024-03-01")
    assert kinds("2024-03-03") == {1: "kind-a", 2: "kind-b"}
    assert kinds("2024-03-04") == {1: "kind-z", 2: "kind-b", 3: None}


# Names that Spark, Delta or our tables also use.
NAMES = ["file", "row", "reason", "ds", "drop_ds", "valid_from", "eligible", "recent_count", "fingerprint"]


def test_item_columns_have_any_name_and_withdrawn_items_are_not_eligible(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = dict.fromkeys(NAMES, "string")
    source = {"reason": "Some `odd` name, with.dots"}
    items = {"columns": columns, "source": source, "absent": "remove"}
    warehouse = make_shop(spark, tmp_path, items=items)
    one = {
        source.get(name, name): [f"{name}-1", f"{name}-2", 123.0 if name == "ds" else None] for name in NAMES
    }
    one["ds"] = [1.0, 2.0, 123.0]
    put_file(warehouse, f"ds={DAY}/a.parquet", pa.table({"item_id": ["1", "2", "3"], **one}), "items")
    two = pa.table({"item_id": ["1", "3"], **{name: [values[0], values[2]] for name, values in one.items()}})
    put_file(warehouse, f"ds={NEXT}/a.parquet", two, "items")
    bought = pa.table({"user_id": ["u"] * 3, "item_id": ["1", "2", "777"], "event_ts": [DAY] * 3})
    put_file(warehouse, f"ds={DAY}/a.parquet", bought)
    ingest_entity(warehouse, "items", [DAY, NEXT])
    ingest_events(warehouse, [DAY])
    stored = {row["item_id"]: row.asDict() for row in read_entity(warehouse, "items", NEXT).collect()}
    for name in NAMES:
        assert stored["2"][name] == ("2" if name == "ds" else f"{name}-2")
    policies = [Policy(), Policy(name="some", eligible="eligible = 'eligible-1' AND ds = '1'")]
    found = {}
    for night in (NEXT, "2024-03-07"):
        versions = CorpusVersions(warehouse.version("events"), warehouse.version("items"))
        corpus = read_corpus(warehouse, night, versions, policies, 28).select("item_id", ELIGIBLE).collect()
        found[night] = {row[0]: row[1] for row in corpus}
    assert found[NEXT] == {"1": 3, "2": 1, "3": 1, "777": 1}
    # Item 2 is withdrawn, though it was bought; 777 was never listed, so only the policy decides.
    assert found["2024-03-07"] == {"1": 3, "2": 0, "3": 1, "777": 1}
    with pytest.raises(
        SettingsError, match=r"'unit price' is not letters.*source: \{my_name: 'unit price'\}"
    ):
        make_shop(spark, tmp_path, items={"columns": {"unit price": "string"}})
