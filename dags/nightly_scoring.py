"""The nightly DAG: ingest, build, score, verify, audit, publish and export one night.

    airflow dags test nightly_scoring 2017-12-04
    airflow dags trigger nightly_scoring --conf '{"night": "2017-12-04"}'
    airflow backfill create --dag-id nightly_scoring --from-date 2017-12-04 --to-date 2017-12-06

A night is six Spark applications, two of which, bank and states, run at the same time. With
LIME_APPLICATIONS=1 it is one application, for installations where starting a session costs more than separate
tasks gain. A retry resumes its run and changes nothing that is done; a new run of the same night takes it
over and publishes the same lists. A backfill goes night by night, each with the events, items and model of
its date.

Environment, read when Airflow parses the DAG (see `spark_conf.py` for the rest):

    LIME_SCHEDULE   cron expression or preset in UTC (default @daily); or `events`: a run starts when the
                    asset lime://events is updated by an event whose extra is {"night": "2017-12-04"}
    LIME_DEADLINE   time HH:MM (UTC) by which a scheduled night must be published; if it is not, an alarm is
                    raised (default: no deadline; `airflow dags test` of Airflow 3.3.2 fails on a DAG that
                    has one)
"""

from __future__ import annotations

import os
import re
from datetime import timedelta

from airflow.sdk import DAG, Param, TaskGroup, chain
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from dags.alarms import night_is_late
from dags.spark_conf import APPLICATIONS, EVENTS, GPU_POOL, RECOMMENDATIONS, SCHEDULED, every, submit

SCHEDULE = os.environ.get("LIME_SCHEDULE", "@daily")
DEADLINE = os.environ.get("LIME_DEADLINE", "")
DAILY = re.compile(r"@daily|@midnight|(\d+) (\d+) \* \* \S+")

STEPS = {
    "ingest": (
        ["ingest_events"],
        "Loads the drop of the day before into events, items and users, and sets bad rows aside.",
    ),
    "bank": (
        ["build_candidate_bank"],
        "Folds items whose features changed into factors, and builds the night's item bias.",
    ),
    "states": (["build_link_states"], "Reduces histories that changed to link states and memories."),
    "score": (
        ["score_candidates"],
        "Scores users against candidates into staging: what changed, or everything.",
    ),
    "publish": (
        ["verify_night", "audit_recommendations", "publish_recommendations"],
        "Certifies and audits the staged lists, and publishes them in one commit.",
    ),
    "export": (
        ["export_recommendations"],
        "Exports the lists to the stores that serve them, if the settings name any.",
    ),
}
WHOLE = [step for steps, _ in STEPS.values() for step in steps]


def after_midnight(clock: str) -> timedelta:
    """Parse HH:MM as the time since midnight."""
    hours, minutes = map(int, clock.split(":"))
    return timedelta(hours=hours, minutes=minutes)


def deadline(clock: str) -> DeadlineAlert:
    """Return an alarm at the next HH:MM (UTC) after a run was due.

    A run that an asset starts has no such time; its alarm comes HH:MM after it was queued.

    Raises:
        ValueError: the schedule has no single time of day.
    """
    interval, by_asset = after_midnight(clock), SCHEDULE == "events"
    if not by_asset:
        daily = DAILY.fullmatch(SCHEDULE)
        if not daily:
            raise ValueError(
                f"LIME_DEADLINE needs a LIME_SCHEDULE that is daily or `events`, not {SCHEDULE!r}"
            )
        due = after_midnight(f"{daily[2] or 0}:{daily[1] or 0}")  # the logical date has that time of day
        interval = (interval - due) % timedelta(days=1)
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT if by_asset else DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=interval,
        callback=AsyncCallback(night_is_late),
    )


with DAG(
    dag_id="nightly_scoring",
    description="Every user's exact top K over all candidates, published in one commit",
    schedule=[EVENTS] if SCHEDULE == "events" else every(SCHEDULE),
    deadline=deadline(DEADLINE) if DEADLINE else None,
    params={
        "night": Param(
            None, type=["null", "string"], format="date", description="Only events before this UTC day count"
        ),
        "run_key": Param(None, type=["null", "string"], description="Resume or take over under this name"),
    },
    doc_md=__doc__,
    **SCHEDULED,
) as dag:
    if APPLICATIONS == 1:
        first = last = submit("night", WHOLE, "The whole night in one application.")
    else:
        with TaskGroup("prepare", tooltip="Builds the inputs of scoring"):
            first = submit("ingest", *STEPS["ingest"])
            sides = [submit(side, *STEPS[side]) for side in ("bank", "states")]
        score = submit("score", *STEPS["score"], pool=GPU_POOL)
        with TaskGroup("serve", tooltip="Publishes the lists to readers"):
            publish, export = submit("publish", *STEPS["publish"]), submit("export", *STEPS["export"])
        chain(first, sides, score, publish, export)
        last = publish
    first.add_inlets([EVENTS])
    last.add_outlets([RECOMMENDATIONS])
