"""Who runs a night: a lease with an epoch.

A run is named by its key (Airflow passes its run id). The first job of a run takes the
next epoch of the night; the newest epoch owns the night, and every older run is stale:
each job checks before it works and publishing checks in its own commit. A retry of the
same run finds its epoch again; a long job also takes an *attempt*, so that a driver which
sleeps while its retry works stops when it wakes up. No clock is involved.
"""

from __future__ import annotations

import datetime as dt
import socket
import uuid
from dataclasses import dataclass, replace
from typing import Any

from lime_model.errors import LimeError
from pipelines.schemas import DS
from pipelines.settings.names import check_run_key
from pipelines.store.frames import local_rows
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict


class StaleRun(LimeError):
    """Another run owns the night."""

    remedy = "retry"


class BadRunKey(LimeError):
    """The name of a run is not one that every table, folder and log can hold."""


@dataclass(frozen=True)
class Run:
    """One run of one night; without an epoch it only stages (an evaluation) and owns nothing."""

    ds: str
    key: str
    epoch: int | None = None
    job: str = ""  # that this process works at, as its `attempt`-th; 0: none was taken
    attempt: int = 0

    @property
    def run_id(self) -> str:
        """Names the run in every table."""
        return f"{self.ds}.{self.key if self.epoch is None else self.epoch}"


def acquire_lease(warehouse: Warehouse, ds: str, key: str) -> Run:
    """The run of `key` for night `ds`, taking a new epoch when the key is new.

    Raises:
        BadRunKey: see `check_run_key`.
        StaleRun: the key held the night once and a newer run has taken it since.
    """
    try:
        check_run_key(key)
    except ValueError as error:
        raise BadRunKey(str(error)) from None
    while True:
        epochs = _epochs(warehouse, ds)
        newest = max(epochs, default=0)
        if key in epochs.values():
            mine = max(epoch for epoch, holder in epochs.items() if holder == key)
            return check_lease(warehouse, Run(ds, key, mine))
        # Then read again: somebody may have been faster.
        _take(warehouse, Run(ds, key, newest + 1), socket.gethostname(), txn=(f"lease-{ds}", newest + 1))


def find_run(warehouse: Warehouse, ds: str, key: str) -> Run:
    """The run of `key` as it is, without taking anything: it has no epoch where none was taken."""
    mine = [epoch for epoch, holder in _epochs(warehouse, ds).items() if holder == key]
    return Run(ds, key, max(mine, default=None))


def check_lease(warehouse: Warehouse, run: Run) -> Run:
    """`run` itself while it owns its night.

    Raises:
        StaleRun: naming the run that does.
    """
    if run.epoch is None:
        return run
    latest = max(_attempts(warehouse, run), default=0)
    if run.attempt and latest > run.attempt:
        raise StaleRun(
            f"night {run.ds}: {run.job} of run {run.key!r} was started again (attempt {latest}) "
            f"while this one (attempt {run.attempt}) slept; this one stops, the later one goes on"
        )
    epochs = _epochs(warehouse, run.ds)
    newest = max(epochs, default=0)
    if newest > run.epoch:
        raise StaleRun(
            f"night {run.ds}: run {run.key!r} (epoch {run.epoch}) was overtaken by run {epochs[newest]!r} "
            f"(epoch {newest}); this run writes nothing more"
        )
    return run


def begin_attempt(warehouse: Warehouse, run: Run, job: str) -> Run:
    """`run` as the newest attempt at `job`: older ones fail their next `check_lease`."""
    if run.epoch is None:
        return run
    holder = f"{socket.gethostname()} {uuid.uuid4().hex}"
    while True:
        mine = replace(run, job=job)
        attempt = max(_attempts(warehouse, mine), default=0) + 1
        _take(warehouse, run, holder, txn=(f"attempt-{run.run_id}-{job}", attempt), job=job, attempt=attempt)
        if _attempts(warehouse, mine).get(attempt) == holder:
            return replace(mine, attempt=attempt)


def _attempts(warehouse: Warehouse, run: Run) -> dict[int, str]:
    """Holders of the attempts at the run's job so far."""
    rows = [row for row in _rows(warehouse, run.ds) if row.get("job") == run.job and run.job]
    return {row["attempt"]: row["holder"] for row in rows if row["epoch"] == run.epoch}


def _epochs(warehouse: Warehouse, ds: str) -> dict[int, str]:
    rows = _rows(warehouse, ds)
    return {row["epoch"]: row["run_key"] for row in rows if not row.get("job")}


def _rows(warehouse: Warehouse, ds: str) -> list[dict[str, Any]]:
    return [row.asDict() for row in warehouse.read_cached("leases") if str(row[DS]) == ds]


def _take(warehouse: Warehouse, run: Run, holder: str, txn: tuple[str, int], **more: Any) -> None:
    row = {
        DS: dt.date.fromisoformat(run.ds),
        "epoch": run.epoch,
        "run_key": run.key,
        "holder": holder,
        **more,
    }
    rows = local_rows(warehouse.spark, [row], warehouse.schema("leases"))
    try:
        warehouse.append("leases", rows, txn=txn)
    except WriteConflict:
        return  # the other writer's row is read on the next look
