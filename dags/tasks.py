"""What the DAGs of a tenant are made of: the arguments of a DAG, the night of a run, and tasks for jobs.

LIME_HOME is the folder of the jobs and the settings (default: the parent of this folder). Everything else is
an option, see `options.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import CronTriggerTimetable, Param

from dags.alarms import TaskFailed
from dags.operators import JobOperator, ProcessOperator
from dags.options import HOME, NO_TIME, Options

# The night of a run comes from its parameter, or from the event of the asset that started it, or from its
# logical date (see `every`); never from the wall clock.
OF_THE_RUN = (
    "(params.night or (triggering_asset_events.values() | sum(start=[]) | map(attribute='extra') "
    "| map(attribute='night', default='') | select | list | last | default('', true)) or ds)"
)
NIGHT = f"{{{{ {OF_THE_RUN} }}}}"
DAY_BEFORE = f"{{{{ macros.ds_add({OF_THE_RUN}, -1) }}}}"
RUN_KEY = "{{ params.run_key or run_id }}"


def every(schedule: str) -> CronTriggerTimetable | str:
    """Return a schedule whose UTC times are both the start and the logical date of a run.

    The logical date names the night. With a bare cron expression, Airflow's global option
    `create_cron_data_intervals` would decide whether it is the time of the start or the time before.
    """
    if schedule in NO_TIME:  # these name no time of day, so the option does not change them
        return schedule
    return CronTriggerTimetable(schedule, timezone="UTC")


def night_param(description: str) -> Param:
    """Return the parameter of a run that names its night, instead of its date."""
    return Param(None, type=["null", "string"], format="date", description=description)


def shared(options: Options) -> dict[str, Any]:
    """Return the arguments that all DAGs of a tenant share."""
    return {
        "max_active_runs": 1,
        "tags": options.tags,
        "default_args": {"owner": options.owner},
    }


def scheduled(options: Options) -> dict[str, Any]:
    """Return the arguments that all scheduled DAGs of a tenant share."""
    return shared(options) | {
        "start_date": _midnight(options.first_night),
        "end_date": options.last_night and _midnight(options.last_night),
        "catchup": options.catchup,
    }


def _midnight(day: date) -> pendulum.DateTime:
    return pendulum.datetime(day.year, day.month, day.day)


def submit(
    options: Options, task_id: str, steps: Sequence[str], doc: str, *, pool: str = "", **more: Any
) -> JobOperator:
    """Return a task that runs `steps` of the night in one Spark application.

    Args:
        options: the options of the tenant.
        task_id: the name of the task.
        steps: names of the steps, in their order.
        doc: a sentence about the task for Airflow's pages.
        pool: the Airflow pool of the task (default: the tenant's).
        more: further options of the operator.
    """
    arguments = ("--run-key", RUN_KEY, "--steps", *steps)
    return submit_job(
        options, task_id, "run_steps", arguments, steps=steps, doc_md=doc, pool=pool or options.pool, **more
    )


def submit_job(
    options: Options, task_id: str, job: str, arguments: Sequence[str] = (), **more: Any
) -> JobOperator:
    """Return a task that runs one of the jobs for the night.

    Args:
        options: the options of the tenant.
        task_id: the name of the task.
        job: the name of the job.
        arguments: further arguments of the job's command line.
        more: further options of the operator, such as `doc_md`, or `steps`: the steps that the job runs,
            whose tables are its lineage (default: the job itself).
    """
    return JobOperator(**spark_arguments(options, task_id, job, arguments) | more)


def spark_arguments(options: Options, task_id: str, job: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of an operator that runs a job on Spark.

    Args:
        options: the options of the tenant.
        task_id: the name of the task.
        job: the name of the job.
        arguments: further arguments of the job's command line.
    """
    package = options.package or None
    return {
        "task_id": task_id,
        "options": options,
        "steps": [job],
        "conn_id": options.connection,
        "name": f"lime-{task_id}-{{{{ run_id }}}}",
        # The jars are named here, since a driver that spark-submit has started cannot add to its class path.
        "jars": ",".join(sorted(str(jar) for jar in Path(options.jars).glob("delta-*.jar"))) or None
        if options.jars
        else None,
        "py_files": package,
        "driver_memory": options.driver_memory,
        # If memory ran out in a side thread, the driver would wait for ever: let it end, and be retried.
        "conf": {
            "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
            **({"spark.executorEnv.PYTHONPATH": Path(package).name} if package else {}),
        },
        "application": str(HOME / "jobs" / f"{job}.py"),
        "application_args": ["--config", options.config, "--ds", NIGHT, *arguments],
        "pool": options.pool,
        "execution_timeout": timedelta(hours=6),
        "on_failure_callback": TaskFailed(options.alarm_url_env),
        **retries(options),
    }


def retries(options: Options) -> dict[str, Any]:
    """Return the arguments that say how often and when a task is tried again."""
    return {
        "retries": 2,
        "retry_delay": timedelta(seconds=options.retry_seconds),
        "retry_exponential_backoff": True,
    }


def write_page(options: Options) -> ProcessOperator:
    """Return a task that writes the page of the night, when all other tasks of the run have ended.

    It is a teardown, as Airflow calls it: it also runs after a failure, and the state of the run does not
    depend on it.
    """
    return ProcessOperator(
        task_id="report",
        job=HOME / "jobs" / "report_night.py",
        arguments=["--config", options.config, "--ds", NIGHT],
        options=options,
        doc_md="Writes the page of the night into `reports/` of the warehouse, also if the night failed.",
        execution_timeout=timedelta(minutes=30),
        retries=0,
    ).as_teardown()
