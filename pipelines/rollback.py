"""Taking a published night back: the lists that stood before, again in one commit.

The commits of `recommendations` say who published what; going back reads the table as of the older
commit, so the lists are those that were served, to the bit. A night that was published once is withdrawn:
its readers find the night before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.columns import DS
from pipelines.leases import Run, StaleRun, check_lease
from pipelines.runs import Manifest, find_manifests, once
from pipelines.tables import Warehouse

LOST = ("FILE_NOT_EXIST", "FileNotFoundException", "DELTA_FILE_NOT_FOUND")  # how Spark and Delta say it


class NothingToRollBack(LimeError):
    """No lists stand, or none stood before."""


class Published(NamedTuple):
    """A commit that put lists of a night in place; no `run_id`: that withdrew it."""

    version: int
    run_id: str | None
    instead_of: str | None = None  # the run that was taken back


def published(warehouse: Warehouse, night: str) -> list[Published]:
    """Commits of a night's lists, the oldest first, as far as Delta's log reaches."""
    tags = [(version, json.loads(text)) for version, text in warehouse.commit_tags("recommendations")]
    return [
        Published(version, tag["run_id"], tag.get("instead_of"))
        for version, tag in tags
        if night == (tag.get("night") or tag["run_id"].split(".")[0])
    ]


def roll_back_night(warehouse: Warehouse, run: Run, reason: str, to: str | None = None) -> Manifest:
    """Put back the lists of the run before the one that stands, or those of the run id `to`.

    Args:
        run: of this action; its lease keeps the night from runs that began before.

    Raises:
        NothingToRollBack: nothing is published, `to` never was, or what stood before is not there any more.
        StaleRun: a newer run of the night published meanwhile.
    """

    def work() -> Manifest:
        check_lease(warehouse, run)
        history = published(warehouse, run.ds)
        if not history or (history[-1].run_id is None and to is None):
            raise NothingToRollBack(f"night {run.ds}: no lists are published; nothing to take back")
        now, target = history[-1].run_id, _target(run.ds, history, to)
        if target is None and (others := _forgotten(warehouse, run.ds, history)):
            raise NothingToRollBack(
                f"night {run.ds}: {others} published it before, and Delta's log of recommendations does not "
                "reach back to them; nothing was changed. Publish the night again under a new --run-key"
            )
        rows = warehouse.read("recommendations", target.version if target else -1)
        rows = rows.where(F.col(DS) == F.lit(run.ds).cast("date")).coalesce(4)
        put_back = target.run_id if target else None
        tag = {"night": run.ds, "run_id": put_back, "instead_of": now, "reason": reason, "by": run.run_id}
        text = json.dumps(tag)
        try:
            version = warehouse.replace(
                "recommendations",
                rows,
                f"{DS} = '{run.ds}'",
                metadata=text,
                txn=(f"publish-{run.ds}", run.epoch or 0),
            )
        except (PySparkException, Py4JJavaError) as error:
            if not any(word in str(error) for word in LOST):
                raise
            raise NothingToRollBack(
                f"night {run.ds}: files of the lists of run {put_back} are gone (older than "
                "upkeep.keep_days, or a person was forgotten since); nothing was changed. Publish the night "
                "again under a new --run-key"
            ) from error
        if warehouse.find_commit("recommendations", text) is None:
            raise StaleRun(
                f"night {run.ds}: a newer run published while this one took it back; its lists stand"
            )
        return {**tag, "versions": {"recommendations": version}}

    return once(warehouse, run, "roll_back", work)


def _forgotten(warehouse: Warehouse, night: str, history: Sequence[Published]) -> list[str]:
    """Runs that published the night in commits that Delta no longer knows."""
    done = find_manifests(warehouse, "publish_recommendations")
    known = {commit.run_id for commit in history} | {commit.instead_of for commit in history}
    return sorted({each.run_id for each in done if each.ds == night} - known)


def _target(night: str, history: Sequence[Published], to: str | None) -> Published | None:
    """The commit to go back to, None for no lists at all."""
    now = history[-1].run_id
    if to is None:
        taken_back = {commit.instead_of for commit in history} | {now, None}
        older = [commit for commit in history if commit.run_id not in taken_back]
        return older[-1] if older else None
    chosen = [commit for commit in history if commit.run_id == to]
    if not chosen or to == now:
        others = sorted({commit.run_id for commit in history if commit.run_id} - {now})
        raise NothingToRollBack(
            f"night {night}: {to!r} "
            + ("stands already" if to == now else "never published it")
            + f"; others that did: {others}"
        )
    return chosen[-1]
