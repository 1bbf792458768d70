"""Report households with their lists, metrics and seconds, on the terminal and as one HTML page.

The report reads the Delta tables with `deltalake`; every number comes from them or from the demo's clock.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from deltalake import DeltaTable

from demo.check import read_items, read_lists

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend must be chosen before this import

HOUSEHOLDS = 4
TOP, LATELY = 10, 8


def write_report(home: Path, nights: Sequence[str], evaluation: str, seconds: dict[str, float]) -> Path:
    """Print the report and write `report.html` under `home`; return its path.

    Args:
        home: the demo's folder.
        nights: the published nights; the report shows households for the first.
        evaluation: the run id of the evaluation in the table `runs`.
        seconds: the wall-clock seconds of the demo's steps.
    """
    warehouse = home / "warehouse"
    runs = read_runs(warehouse)
    metrics = pd.DataFrame(runs[(evaluation, "evaluate_model")]["rows"])
    lists, events = read_lists(warehouse, nights[0]), read_events(warehouse, nights[0])
    names = name_items(read_items(warehouse))
    households = [describe(user, lists, events, names) for user in pick_households(events)]
    jobs = job_table(runs, nights)
    for household in households:
        print_household(household)
    policies = {"all": "all items", "new": "items new to the household"}
    metrics["items"] = metrics["policy"].map(policies)
    shown = metrics[["items", "model", "users", "recall", "recall_error", "ndcg"]].sort_values(
        ["items", "recall"], ascending=[True, False]
    )
    print(f"\nOffline, four weeks after {nights[0]}, at 100, macro over households:")
    print(shown.to_string(index=False))
    print(f"\nJobs of the nights:\n{jobs.to_string(index=False)}")
    print("\nSeconds of the demo's steps:")
    for step, value in seconds.items():
        print(f"  {value:6.0f}  {step}")
    page = home / "report.html"
    page.write_text(
        render(
            nights[0],
            households,
            shown,
            jobs,
            seconds,
            [plot_metrics(shown), plot_scores(lists), plot_items(lists)],
        )
    )
    return page


def read_runs(warehouse: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the manifests by run id and job."""
    rows = DeltaTable(str(warehouse / "runs")).to_pyarrow_table().to_pylist()
    return {(row["run_id"], row["job"]): json.loads(row["manifest"]) for row in rows}


def read_events(warehouse: Path, night: str) -> pd.DataFrame:
    """Read the log before a night."""
    table = DeltaTable(str(warehouse / "events")).to_pyarrow_table(
        columns=["user_id", "item_id", "event_ts"], filters=[("ds", "<", pd.Timestamp(night).date())]
    )
    return table.to_pandas()


def name_items(items: pd.DataFrame) -> dict[int, str]:
    """Name items by type and package size, because the data has no product names."""
    size = items["package_size"].fillna("").str.lower()
    kind = items["product_type"].fillna(items["department"]).str.capitalize()
    own = np.where(items["brand"].eq("Private"), " (own brand)", "")
    names: pd.Series[str] = (kind + " " + size).str.strip() + own
    return dict(zip(items["item_id"], names, strict=True))


def pick_households(events: pd.DataFrame) -> list[int]:
    """Pick rare, median and frequent buyers at fixed quantiles of the history length."""
    counts = events.groupby("user_id").size().sort_values(kind="stable")
    places = np.linspace(0.1, 0.95, HOUSEHOLDS) * (len(counts) - 1)
    return [int(counts.index[int(place)]) for place in places]


def describe(user: int, lists: pd.DataFrame, events: pd.DataFrame, names: dict[int, str]) -> dict[str, Any]:
    """Describe one household by its last items and its list.

    Args:
        user: the id of the household.
        lists: the lists of the night, with one row for each candidate.
        events: the log before the night.
        names: the name of each item.
    """
    mine = events[events["user_id"] == user].sort_values("event_ts", ascending=False)
    seen = set(mine["item_id"])
    top = lists[lists["user_id"] == user].head(TOP)
    return {
        "user": user,
        "events": len(mine),
        "lately": [names.get(item, f"unlisted item {item}") for item in mine["item_id"].head(LATELY)],
        "top": [
            {"name": names.get(item, f"unlisted item {item}"), "score": float(score), "again": item in seen}
            for item, score in zip(top["item_id"], top["score"], strict=True)
        ],
    }


def print_household(household: dict[str, Any]) -> None:
    """Print a household with its last items and its list."""
    print(f"\nHousehold {household['user']}, {household['events']} purchases")
    print(f"  lately: {'; '.join(household['lately'])}")
    for rank, row in enumerate(household["top"], 1):
        print(f"  {rank:2d}. {row['score']:7.3f}  {row['name']}{'' if row['again'] else '  (new to them)'}")


def job_table(runs: dict[tuple[str, str], dict[str, Any]], nights: Sequence[str]) -> pd.DataFrame:
    """Return seconds, pairs, speed and plan of each job in the last run of each night."""
    rows = []
    for night in nights:
        epochs = [
            int(run.split(".")[1])
            for run, job in runs
            if job == "score_candidates" and run.startswith(f"{night}.") and run.split(".")[1].isdigit()
        ]
        for (run, job), manifest in runs.items():
            if run != f"{night}.{max(epochs)}":
                continue
            scored: dict[str, Any] = next(iter(manifest.get("policies", {}).values()), {})
            rows.append(
                (
                    night,
                    job,
                    manifest.get("seconds", 0.0),
                    scored.get("pairs", 0),
                    scored.get("pairs_avoided", 0),
                    scored.get("pairs_per_second", 0),
                    scored.get("plan", ""),
                )
            )
    frame = pd.DataFrame(rows, columns=["night", "job", "seconds", "pairs", "avoided", "pairs/s", "plan"])
    return frame.sort_values(["night", "job"], ignore_index=True)


def plot_metrics(metrics: pd.DataFrame) -> str:
    """Plot recall with its standard error, in one panel for each set of items."""
    groups = list(metrics.groupby("items"))
    figure, axes = plt.subplots(1, len(groups), figsize=(10, 3), squeeze=False)
    for axis, (items, rows) in zip(axes[0], groups, strict=True):
        axis.barh(rows["model"], rows["recall"], xerr=rows["recall_error"], color="#4a7a8c")
        axis.invert_yaxis()
        axis.set_title(f"recall@100, {items}")
    return _png(figure)


def plot_scores(lists: pd.DataFrame) -> str:
    """Plot the score by rank, as median and middle 80 % of households."""
    table = lists.pivot(index="user_id", columns="rank", values="score")
    low, middle, high = (table.quantile(q) for q in (0.1, 0.5, 0.9))
    figure, axis = plt.subplots(figsize=(10, 3))
    axis.plot(middle.index, middle, color="#4a7a8c")
    axis.fill_between(middle.index, low, high, alpha=0.25, color="#4a7a8c")
    axis.set(title="score by rank: median and middle 80 % of households", xlabel="rank", ylabel="score")
    return _png(figure)


def plot_items(lists: pd.DataFrame) -> str:
    """Plot in how many lists each item is."""
    counts = lists["item_id"].value_counts().to_numpy()
    figure, axis = plt.subplots(figsize=(10, 3))
    axis.loglog(np.arange(1, len(counts) + 1), counts, color="#4a7a8c")
    axis.set(
        title=f"lists an item is in: {len(counts)} different items", xlabel="item, by rank", ylabel="lists"
    )
    return _png(figure)


def _png(figure: Any) -> str:
    sink = io.BytesIO()
    figure.tight_layout()
    figure.savefig(sink, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(sink.getvalue()).decode()


def render(
    night: str,
    households: list[dict[str, Any]],
    metrics: pd.DataFrame,
    jobs: pd.DataFrame,
    seconds: dict[str, float],
    plots: list[str],
) -> str:
    """Render the page, which needs no other file.

    Args:
        night: the night of the lists.
        households: the described households.
        metrics: the offline metrics.
        jobs: the table of the jobs.
        seconds: the seconds of the demo's steps.
        plots: the plots as PNG in base64.
    """
    template = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "report.html.j2").read_text()
    )
    return template.render(
        night=night,
        households=households,
        metrics=metrics.to_dict("records"),
        jobs=jobs.to_dict("records"),
        seconds=seconds,
        plots=plots,
    )
