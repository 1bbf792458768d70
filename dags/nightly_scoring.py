"""The nightly DAG: ingest, build, score, certify, audit, publish and export one night, and write its page.

    airflow dags test nightly_scoring 2017-12-04
    airflow dags trigger nightly_scoring --conf '{"night": "2017-12-04"}'
    airflow backfill create --dag-id nightly_scoring --from-date 2017-12-04 --to-date 2017-12-06

Each step is a task with a Spark application of its own; two of them, bank and states, run at the same time. A
failed step is the red task, and a cleared task runs its step alone. With the option `applications: 1` the
night is one task, for installations where starting a session costs more than separate tasks gain. A retry
resumes its run and changes nothing that is done; a new run of the same night takes it over and publishes the
same lists. A backfill goes night by night, each with the events, items and model of its date.

The task `report` writes the page of the night when all others have ended, also after a failure. The task
`export` is skipped if the settings export nowhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from airflow.sdk import DAG, Param, TaskGroup, chain
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from dags.alarms import NightIsLate, TaskFailed
from dags.operators import FilesSensor, JobOperator
from dags.options import DAILY, Options, read_options
from dags.tasks import DAY_BEFORE, every, night_param, scheduled, submit, write_page

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
    "certify": (["verify_night"], "Compares the lists of sampled users with those of the unfolded model."),
    "audit": (
        ["audit_recommendations"],
        "Checks every staged row, and compares drift, churn and concentration with their limits. A failed "
        "audit is not tried again: a person decides.",
    ),
    "publish": (["publish_recommendations"], "Publishes the staged lists in one commit."),
    "export": (
        ["export_recommendations"],
        "Exports the lists to the stores that serve them; skipped if the settings name none.",
    ),
}
WHOLE = [step for steps, _ in STEPS.values() for step in steps]


def after_midnight(clock: str) -> timedelta:
    """Parse HH:MM as the time since midnight."""
    hours, minutes = map(int, clock.split(":"))
    return timedelta(hours=hours, minutes=minutes)


def deadline(options: Options) -> DeadlineAlert | None:
    """Return an alarm at the next HH:MM (UTC) after a run was due, or None without a deadline.

    A run that an asset starts has no such time; its alarm comes HH:MM after it was queued.
    """
    if not options.deadline:
        return None
    interval = after_midnight(options.deadline)
    if daily := DAILY.fullmatch(options.schedule):  # the logical date has the time of day of the schedule
        interval = (interval - after_midnight(f"{daily[2] or 0}:{daily[1] or 0}")) % timedelta(days=1)
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE if daily else DeadlineReference.DAGRUN_QUEUED_AT,
        interval=interval,
        callback=AsyncCallback(NightIsLate, {"url_env": options.alarm_url_env}),
    )


def wait(options: Options) -> FilesSensor:
    """Return a task that waits for the files of the day before, and takes no slot meanwhile."""
    return FilesSensor(
        task_id="wait",
        filepath=options.wait_for.replace("{day}", DAY_BEFORE),
        deferrable=True,
        poke_interval=60,
        timeout=options.wait_hours * 3600,
        retries=0,
        on_failure_callback=TaskFailed(options.alarm_url_env),
        doc_md="Waits for the drop of the day before, without a slot: the triggerer looks for it.",
    )


class Tasks(NamedTuple):
    """The tasks of the steps that other tasks hang on."""

    first: JobOperator
    publish: JobOperator
    ends: list[JobOperator]  # when these have ended, so have all


def make_steps(options: Options) -> Tasks:
    """Make the tasks of the steps."""

    def step(name: str, pool: str = "") -> JobOperator:
        return submit(options, name, *STEPS[name], pool=pool)

    if options.applications == 1:
        night = submit(options, "night", WHOLE, "The whole night in one application.")
        return Tasks(night, night, [night])
    with TaskGroup("prepare", tooltip="Builds the inputs of scoring"):
        ingest = step("ingest")
        sides = [step("bank"), step("states")]
    score = step("score", options.gpu_pool)
    with TaskGroup("serve", tooltip="Publishes the lists to readers"):
        certify, audit, publish, export = map(step, ("certify", "audit", "publish", "export"))
    chain(ingest, sides, score, certify, audit, publish, export)
    return Tasks(ingest, publish, [*sides, export])  # one of the sides may fail while the other one runs


def build(options: Options) -> DAG:
    """Return the nightly DAG of a tenant."""
    events = options.asset("events")
    with DAG(
        dag_id=options.dag_id("nightly_scoring"),
        description="Every user's exact top K over all candidates, published in one commit",
        schedule=[events] if options.schedule == "events" else every(options.schedule),
        deadline=deadline(options),
        params={
            "night": night_param("Only events before this UTC day count"),
            "run_key": Param(
                None, type=["null", "string"], description="Resume or take over under this name"
            ),
        },
        doc_md=__doc__,
        **scheduled(options),
    ) as dag:
        tasks = make_steps(options)
        tasks.first.add_inlets([events])
        tasks.publish.add_outlets([options.asset("recommendations")])
        if options.wait_for:
            chain(wait(options), tasks.first)
        if options.pages:
            chain(tasks.ends, write_page(options))
    return dag


for tenant in read_options().tenants:
    globals()[tenant.dag_id("nightly_scoring")] = build(tenant)
