"""Taking a published night back: the lists that were in force before come into force again, in one commit.

`night_state.py` decides which lists these are. Going back reads the table as of the commit that put them in
force last, so they are those that were served, to the bit.
"""

from __future__ import annotations

import json

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from pipelines.columns import DS
from pipelines.leases import Run, StaleRun, check_lease
from pipelines.night_record import published, read_state
from pipelines.night_state import Move, NightState, NothingToRollBack, choose_move, describe_result
from pipelines.pins import Pin, PinLost, lost_files
from pipelines.runs import Manifest, once
from pipelines.tables import Warehouse

LOST = ("FILE_NOT_EXIST", "FileNotFoundException", "DELTA_FILE_NOT_FOUND")  # how Spark and Delta say it
TABLE = "recommendations"


def plan_rollback(
    warehouse: Warehouse, night: str, to: str | None = None, *, expected: str | None = None
) -> tuple[NightState, Move]:
    """The state of a night and what a rollback would do to it.

    It changes nothing, so a command that is refused can be refused before it takes the lease.

    Args:
        night: the date of the night.
        to: see `choose_move`.
        expected: see `choose_move`.

    Raises:
        NothingToRollBack: see `choose_move`; or files of the lists to go back to are gone.
    """
    state = read_state(warehouse, night)
    move = choose_move(state, to, expected)
    if move.target is None or move.target.run_id is None:
        return state, move
    try:
        gone = lost_files(warehouse, Pin(move.target.run_id, night, {TABLE: move.target.version}), TABLE)
    except PinLost as error:
        raise _lists_gone(night, move) from error
    if gone:
        raise _lists_gone(night, move)
    return state, move


def roll_back_night(
    warehouse: Warehouse, run: Run, reason: str, to: str | None = None, *, expected: str | None = None
) -> Manifest:
    """Put the best earlier lists of a night in force again, or those of the run id `to`.

    Args:
        warehouse: that holds the night.
        run: of this action; its lease keeps the night from runs that began before.
        reason: is kept in the commit.
        to: see `choose_move`.
        expected: see `choose_move`.

    Raises:
        NothingToRollBack: see `plan_rollback`.
        StaleRun: a newer run of the night published meanwhile.
    """

    def work() -> Manifest:
        check_lease(warehouse, run)
        if done := _find_own(warehouse, run):  # by an attempt that died before it could record it
            return done
        state, move = plan_rollback(warehouse, run.ds, to, expected=expected)
        tag = {
            "night": run.ds,
            "run_id": move.target.run_id if move.target else None,
            "action": move.action,
            "instead_of": state.in_force,
            "reason": reason,
            "by": run.run_id,
        }
        version = _write(warehouse, run, move, json.dumps(tag))
        return {**tag, "now": describe_result(state, move), "versions": {TABLE: version}}

    return once(warehouse, run, "roll_back", work)


def _write(warehouse: Warehouse, run: Run, move: Move, tag: str) -> int:
    """Commit the lists of the move's target as those of the night; the version.

    Raises:
        NothingToRollBack: a vacuum took files of them meanwhile.
        StaleRun: a newer run of the night published meanwhile.
    """
    rows = warehouse.read(TABLE, move.target.version if move.target else -1)
    rows = rows.where(F.col(DS) == F.lit(run.ds).cast("date")).coalesce(4)
    txn = (f"publish-{run.ds}", run.epoch or 0)
    try:
        version = warehouse.replace(TABLE, rows, f"{DS} = '{run.ds}'", metadata=tag, txn=txn)
    except (PySparkException, Py4JJavaError) as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise _lists_gone(run.ds, move) from error
    if warehouse.find_commit(TABLE, tag) is None:
        raise StaleRun(
            f"night {run.ds}: a newer run published while this one took it back; its lists are in force"
        )
    return version


def _find_own(warehouse: Warehouse, run: Run) -> Manifest | None:
    """What an earlier attempt of this action has committed."""
    for commit in published(warehouse, run.ds):
        if commit.by == run.run_id:
            made = commit._asdict()
            return {"night": run.ds, **made, "versions": {TABLE: made.pop("version")}}
    return None


def _lists_gone(night: str, move: Move) -> NothingToRollBack:
    run_id = move.target.run_id if move.target else None
    return NothingToRollBack(
        f"night {night}: files of the lists of run {run_id} are gone (older than upkeep.keep_days, or a "
        "person was forgotten since); nothing was changed. Publish the night again under a new --run-key"
    )
