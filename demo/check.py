"""The published lists, checked from outside Spark with `deltalake`.

python -m demo.check .demo/warehouse 2017-12-05
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from deltalake import DeltaTable


class DemoFailed(AssertionError):
    """A published list breaks a promise."""


def read_lists(warehouse: Path, ds: str) -> pd.DataFrame:
    """`user_id, item_id, score, rank` of a night, a row per candidate."""
    table = DeltaTable(str(warehouse / "recommendations")).to_pyarrow_table(partitions=[("ds", "=", ds)])
    frame = table.select(["user_id", "shortfall", "candidates"]).to_pandas()
    flat = frame.explode("candidates", ignore_index=True)
    flat["item_id"] = [c["item_id"] for c in flat["candidates"]]
    flat["score"] = np.asarray([c["score"] for c in flat["candidates"]], np.float32)
    flat["rank"] = flat.groupby("user_id").cumcount() + 1
    return flat.drop(columns="candidates").sort_values(["user_id", "rank"], ignore_index=True)


def read_items(warehouse: Path) -> pd.DataFrame:
    """Current items with their features."""
    items = DeltaTable(str(warehouse / "items")).to_pyarrow_table().to_pandas()
    return items[items["valid_to"].isna()]


def check_night(warehouse: Path, ds: str, k: int, ineligible: Sequence[str]) -> pd.DataFrame:
    """Exactly k or a reported shortfall for every user, in order, nothing ineligible; returns the lists.

    Raises:
        DemoFailed: naming what is wrong and for how many.
    """
    lists = read_lists(warehouse, ds)
    users = DeltaTable(str(warehouse / "users")).to_pyarrow_table(columns=["user_id"]).to_pandas()
    by_user = lists.groupby("user_id")
    sizes = by_user.size() + by_user["shortfall"].first()
    _demand(set(users["user_id"]) == set(sizes.index), "users without a list", len(users) - len(sizes))
    _demand((sizes == k).all(), f"lists that are not {k} with their shortfall", int((sizes != k).sum()))
    _demand(not lists.duplicated(["user_id", "item_id"]).any(), "repeated items", 0)
    _demand(bool(np.isfinite(lists["score"]).all()), "non-finite scores", 0)
    ordered = lists.sort_values(["user_id", "score", "item_id"], ascending=[True, False, True])
    _demand((ordered.index == lists.index).all(), "lists out of (score, item id) order", 0)
    items = read_items(warehouse)
    banned = set(items.loc[items["department"].isin(ineligible), "item_id"])
    _demand(not lists["item_id"].isin(banned).any(), "ineligible items listed", 0)
    print(f"  checked outside Spark: night {ds}, {len(sizes)} users, {len(lists)} candidates", flush=True)
    return lists


def same_lists(warehouse: Path, ds: str, before: Path) -> None:
    """The rerun published the same lists, to the bit.

    Raises:
        DemoFailed: it did not.
    """
    old, new = pd.read_parquet(before), read_lists(warehouse, ds)
    same = (
        old["item_id"].equals(new["item_id"])
        and old["score"].to_numpy().tobytes() == new["score"].to_numpy().tobytes()
    )
    _demand(same, f"lists of {ds} changed in the rerun", 0)
    print(f"  night {ds} again: the same lists, to the bit", flush=True)


def _demand(holds: bool | np.bool_, what: str, count: int) -> None:
    if not holds:
        raise DemoFailed(f"{what}{f': {count}' if count else ''}")


if __name__ == "__main__":
    check_night(Path(sys.argv[1]), sys.argv[2], 100, ("FUEL", "COUPON"))
