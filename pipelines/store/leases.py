"""Decide which run owns a night, by a lease with an epoch.

A run is named by its key (Airflow passes its run id). The first job of a run takes the next epoch of the
night. The run with the newest epoch owns the night, and every older run is stale: each job checks this before
it works, and publishing checks it in its own commit. A retry of the same run finds its epoch again. A long
job also takes an *attempt*, so that a driver that sleeps while its retry works stops when it wakes up. No
clocks are compared.
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
    """The key of a run contains characters that a table, a folder or a log can't hold."""


@dataclass(frozen=True)
class Run:
    """One run of one night; a run without an epoch, such as an evaluation, only stages rows."""

    ds: str
    key: str
    epoch: int | None = None
    job: str = ""  # the job that this process works on, if it has taken an attempt
    attempt: int = 0  # the number of the attempt at `job`, from 1; 0 if none was taken

    @property
    def run_id(self) -> str:
        """The id that names the run in every table."""
        return f"{self.ds}.{self.key if self.epoch is None else self.epoch}"


def acquire_lease(warehouse: Warehouse, ds: str, key: str) -> Run:
    """Return the run of a key for a night; a new key takes a new epoch.

    Args:
        warehouse: the warehouse that contains the table `leases`.
        ds: the date of the night (YYYY-MM-DD).
        key: the key of the run; jobs and retries that pass the same key share one run.

    Raises:
        BadRunKey: `check_run_key` refuses the key.
        StaleRun: the run of this key owned the night once, and a newer run has taken it since.
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
        # The loop reads the table again, as another process may have taken the epoch first.
        _take(warehouse, Run(ds, key, newest + 1), socket.gethostname(), txn=(f"lease-{ds}", newest + 1))


def find_run(warehouse: Warehouse, ds: str, key: str) -> Run:
    """Return the run of a key without taking an epoch; its `epoch` is None if the key has none yet.

    Args:
        warehouse: the warehouse that contains the table `leases`.
        ds: the date of the night (YYYY-MM-DD).
        key: the key of the run.
    """
    mine = [epoch for epoch, holder in _epochs(warehouse, ds).items() if holder == key]
    return Run(ds, key, max(mine, default=None))


def check_lease(warehouse: Warehouse, run: Run) -> Run:
    """Return `run` unchanged if it still owns its night.

    Raises:
        StaleRun: another run owns the night, which the message names, or the job was started again.
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
    """Return the run with the number of a new attempt at a job.

    Older attempts fail at their next `check_lease`. A run without an epoch is returned unchanged.

    Args:
        warehouse: the warehouse that contains the table `leases`.
        run: the run that owns the night.
        job: the name of the job that is started.
    """
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
    """Return who holds each attempt at the run's job so far, by the number of the attempt."""
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
        return  # the caller's next read finds the row of the other writer
