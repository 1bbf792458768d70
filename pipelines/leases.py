"""Who runs a night: a lease with an epoch.

A run is named by its key (Airflow passes its run id). The first job of a run takes the
next epoch of the night; the newest epoch owns the night, and every older run is stale:
each job checks before it works and publishing checks in its own commit. A retry of the
same run finds its epoch again. No clock is involved.
"""

from __future__ import annotations

import datetime as dt
import socket
from dataclasses import dataclass

from lime_model.errors import LimeError
from pipelines.columns import DS
from pipelines.tables import Warehouse, WriteConflict, local_rows


class StaleRun(LimeError):
    """Another run owns the night."""


@dataclass(frozen=True)
class Run:
    """One run of one night; without an epoch it only stages (an evaluation) and owns nothing."""

    ds: str
    key: str
    epoch: int | None = None

    @property
    def run_id(self) -> str:
        """Names the run in every table."""
        return f"{self.ds}.{self.key if self.epoch is None else self.epoch}"


def acquire_lease(warehouse: Warehouse, ds: str, key: str) -> Run:
    """The run of `key` for night `ds`, taking a new epoch when the key is new.

    Raises:
        StaleRun: the key held the night once and a newer run has taken it since.
    """
    while True:
        epochs = _epochs(warehouse, ds)
        newest = max(epochs, default=0)
        if key in epochs.values():
            mine = max(epoch for epoch, holder in epochs.items() if holder == key)
            return check_lease(warehouse, Run(ds, key, mine))
        _take(warehouse, ds, key, newest + 1)  # then read again: somebody may have been faster


def check_lease(warehouse: Warehouse, run: Run) -> Run:
    """`run` itself while it owns its night.

    Raises:
        StaleRun: naming the run that does.
    """
    if run.epoch is None:
        return run
    epochs = _epochs(warehouse, run.ds)
    newest = max(epochs, default=0)
    if newest > run.epoch:
        raise StaleRun(
            f"night {run.ds}: run {run.key!r} (epoch {run.epoch}) was overtaken by run {epochs[newest]!r} "
            f"(epoch {newest}); nothing of this run will be published"
        )
    return run


def _epochs(warehouse: Warehouse, ds: str) -> dict[int, str]:
    rows = warehouse.small("leases")
    return {row["epoch"]: row["run_key"] for row in rows if str(row[DS]) == ds}


def _take(warehouse: Warehouse, ds: str, key: str, epoch: int) -> None:
    row = {DS: dt.date.fromisoformat(ds), "epoch": epoch, "run_key": key, "holder": socket.gethostname()}
    rows = local_rows(warehouse.spark, [row], warehouse.schema("leases"))
    try:
        warehouse.append("leases", rows, txn=(f"lease-{ds}", epoch))
    except WriteConflict:
        return  # the other writer's epoch is read on the next look
