"""Roll a published night back: one commit puts the lists that were in force before in force again.

`night_state.py` decides which lists these are. They are read from the version of the table whose commit put
them in force last, so they are exactly those that were served.
"""

from __future__ import annotations

import json

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from pipelines.operate.pins import PinLost, files_of
from pipelines.publish.night_record import read_state
from pipelines.publish.night_state import Move, NightState, NothingToRollBack, choose_move, describe_result
from pipelines.schemas import DS
from pipelines.store.leases import Run, StaleRun, check_lease
from pipelines.store.manifests import RollbackManifest
from pipelines.store.predicates import equals
from pipelines.store.runs import run_once
from pipelines.store.storage import list_names
from pipelines.store.tables import Warehouse

__all__ = ["NothingToRollBack", "plan_rollback", "roll_back_night"]  # what its callers need

LOST = ("FILE_NOT_EXIST", "FileNotFoundException", "DELTA_FILE_NOT_FOUND")  # Spark and Delta report these
TABLE = "recommendations"


def plan_rollback(
    warehouse: Warehouse, night: str, to: str | None = None, *, expected: str | None = None
) -> Move:
    """Return what a rollback would do to a night, without changing anything.

    So a command that must be refused is refused before it takes the lease.

    Args:
        warehouse: the warehouse that contains the night.
        night: the date of the night (YYYY-MM-DD).
        to: the id of the run whose lists shall be in force; None chooses the best earlier lists.
        expected: the id of the run that shall be taken back, which must be in force; without it, a second
            rollback right after the first is refused.

    Raises:
        NothingToRollBack: `choose_move` refuses it, or files of the lists to go back to were removed.
    """
    return _choose(warehouse, read_state(warehouse, night), to, expected)


def _choose(warehouse: Warehouse, state: NightState, to: str | None, expected: str | None) -> Move:
    """Choose a move, and check that the files of its lists exist."""
    move = choose_move(state, to, expected)
    if move.target is not None:
        folder = f"{DS}={state.night}"
        try:
            wanted = files_of(warehouse, TABLE, move.target.version, f"/{folder}/")
        except PinLost as error:
            raise _lists_gone(state.night, move) from error
        if wanted - set(list_names(warehouse.spark, f"{warehouse.path(TABLE)}/{folder}")):
            raise _lists_gone(state.night, move)
    return move


def roll_back_night(
    warehouse: Warehouse, run: Run, reason: str, to: str | None = None, *, expected: str | None = None
) -> RollbackManifest:
    """Put the best earlier lists of a night in force again, or those of the run id `to`.

    Args:
        warehouse: the warehouse that contains the night.
        run: the run of this rollback; as its lease is newer, earlier runs can't publish the night any more.
        reason: a text that the commit holds.
        to: the id of the run whose lists shall be in force; None chooses the best earlier lists.
        expected: the id of the run that shall be taken back; see `plan_rollback`.

    Raises:
        NothingToRollBack: see `plan_rollback`.
        StaleRun: a newer run of the night published meanwhile.
    """

    def work() -> RollbackManifest:
        check_lease(warehouse, run)
        state = read_state(warehouse, run.ds)
        if done := _find_own(state, run):  # an earlier attempt was killed before it could record its commit
            return done
        move = _choose(warehouse, state, to, expected)
        planned = RollbackManifest(
            night=run.ds,
            run_id=move.target.run_id if move.target else None,
            action=move.action,
            instead_of=state.in_force,
            reason=reason,
            by=run.run_id,
            now=describe_result(state, move),
            versions={},
        )
        version = _write(warehouse, run, move, json.dumps(planned.tag()))
        return planned.model_copy(update={"versions": {TABLE: version}})

    return run_once(warehouse, run, RollbackManifest, work)


def _write(warehouse: Warehouse, run: Run, move: Move, tag: str) -> int:
    """Commit the lists of the move's target as those of the night; return the version of the commit.

    Raises:
        NothingToRollBack: a vacuum has removed files of them meanwhile.
        StaleRun: a newer run of the night published meanwhile.
    """
    rows = warehouse.read(TABLE, move.target.version if move.target else -1)
    rows = rows.where(F.col(DS) == F.lit(run.ds).cast("date")).coalesce(4)
    txn = (f"publish-{run.ds}", run.epoch or 0)
    try:
        version = warehouse.replace(TABLE, rows, equals(ds=run.ds), metadata=tag, txn=txn)
    except (PySparkException, Py4JJavaError) as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise _lists_gone(run.ds, move) from error
    if warehouse.find_commit(TABLE, tag) is None:
        raise StaleRun(
            f"night {run.ds}: a newer run published while this one took it back; its lists are in force"
        )
    return version


def _find_own(state: NightState, run: Run) -> RollbackManifest | None:
    """Find the commit of an earlier attempt of this rollback, or return None."""
    for commit in state.commits:
        if commit.by == run.run_id:
            made = commit._asdict()
            version = made.pop("version")
            return RollbackManifest(night=run.ds, versions={TABLE: version}, **made)
    return None


def _lists_gone(night: str, move: Move) -> NothingToRollBack:
    run_id = move.target.run_id if move.target else None
    return NothingToRollBack(
        f"night {night}: files of the lists of run {run_id} are gone (older than upkeep.keep_days, or a "
        "person was forgotten since); nothing was changed. Publish the night again under a new --run-key"
    )
