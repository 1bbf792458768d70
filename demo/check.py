"""Check the published lists outside Spark, with `deltalake`.

python -m demo.check .demo/warehouse 2017-12-05
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from deltalake import DeltaTable


class DemoFailed(AssertionError):
    """A published list violates one of the checks."""


def read_lists(warehouse: Path, ds: str) -> pd.DataFrame:
    """Read `user_id, item_id, score, rank` of a night, with one row for each candidate."""
    return flatten(_read_night(warehouse, ds))


def flatten(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn one row for each user into one ranked row for each of its candidates."""
    flat = frame.explode("candidates", ignore_index=True).dropna(subset=["candidates"])
    flat["item_id"] = [c["item_id"] for c in flat["candidates"]]
    flat["score"] = np.asarray([c["score"] for c in flat["candidates"]], np.float32)
    flat["rank"] = flat.groupby("user_id").cumcount() + 1
    return flat.drop(columns="candidates").sort_values(["user_id", "rank"], ignore_index=True)


def _read_night(warehouse: Path, ds: str) -> pd.DataFrame:
    table = DeltaTable(str(warehouse / "recommendations")).to_pyarrow_table(
        filters=[("ds", "=", date.fromisoformat(ds))]
    )
    return table.select(["user_id", "shortfall", "candidates"]).to_pandas()


def read_items(warehouse: Path) -> pd.DataFrame:
    """Read the current items with their features."""
    items = DeltaTable(str(warehouse / "items")).to_pyarrow_table().to_pandas()
    return items[items["_valid_to"].isna()]


def check_night(warehouse: Path, ds: str, k: int, ineligible: Sequence[str]) -> pd.DataFrame:
    """Check that every user has k candidates or a reported shortfall, in order and all eligible.

    Args:
        warehouse: the folder of the tables.
        ds: the night, as an ISO date.
        k: the length of a list.
        ineligible: departments whose items must not be listed.

    Returns:
        The lists, with one row for each candidate.

    Raises:
        DemoFailed: a check fails; the message names it and counts the cases.
    """
    night = _read_night(warehouse, ds)
    lists = flatten(night)
    users = DeltaTable(str(warehouse / "users")).to_pyarrow_table(columns=["user_id"]).to_pandas()
    short = night.set_index("user_id")["shortfall"]
    sizes = short.add(lists.groupby("user_id").size(), fill_value=0).astype(int)
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


def evaluation_runs(evaluated: Path) -> list[str]:
    """List the run ids that staged lists in the folder of an evaluation."""
    return sorted({partition["run_id"] for partition in DeltaTable(str(evaluated / "staging")).partitions()})


def check_unseen(warehouse: Path, evaluated: Path, run_id: str, policy: str, before: str) -> None:
    """Check that the lists of a policy that excludes seen items contain no seen item.

    Args:
        warehouse: the folder of the tables.
        evaluated: the folder of the evaluation's tables.
        run_id: the run of the evaluation.
        policy: the name of the policy.
        before: events before this ISO date count as seen.

    Raises:
        DemoFailed: a list is missing or contains a seen item.
    """
    staged = DeltaTable(str(evaluated / "staging")).to_pyarrow_table(
        columns=["user_id", "candidates", "policy"], filters=[("run_id", "=", run_id)]
    )
    lists = flatten(staged.to_pandas().query("policy == @policy"))
    listed = pd.MultiIndex.from_frame(lists[["user_id", "item_id"]])
    events = DeltaTable(str(warehouse / "events")).to_pyarrow_table(
        columns=["user_id", "item_id"], filters=[("ds", "<", pd.Timestamp(before).date())]
    )
    seen = pd.MultiIndex.from_frame(events.to_pandas().drop_duplicates())
    _demand(len(listed) > 0, f"no lists of {run_id} under {policy!r}", 0)
    _demand(not listed.isin(seen).any(), "seen items listed", int(listed.isin(seen).sum()))
    print(f"  checked outside Spark: {len(listed)} candidates of policy {policy!r}, none seen", flush=True)


def same_lists(warehouse: Path, ds: str, before: Path) -> None:
    """Check that a rerun published the same lists, bit for bit.

    Args:
        warehouse: the folder of the tables.
        ds: the night, as an ISO date.
        before: the Parquet file of the lists before the rerun.

    Raises:
        DemoFailed: a list has changed.
    """
    old, new = pd.read_parquet(before), read_lists(warehouse, ds)
    same = (
        old["item_id"].equals(new["item_id"])
        and old["score"].to_numpy().tobytes() == new["score"].to_numpy().tobytes()
    )
    _demand(same, f"lists of {ds} changed in the rerun", 0)
    print(f"  night {ds} again: the same lists, bit for bit", flush=True)


def _demand(holds: bool | np.bool_, what: str, count: int) -> None:
    if not holds:
        raise DemoFailed(f"{what}{f': {count}' if count else ''}")


if __name__ == "__main__":
    check_night(Path(sys.argv[1]), sys.argv[2], 100, ("FUEL", "COUPON"))
