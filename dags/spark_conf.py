"""The Spark applications of the DAGs: one SparkSubmitOperator for each group of steps.

Environment, read when Airflow parses the DAG:

    LIME_HOME            folder of the jobs and the settings (default: the parent of this folder)
    LIME_CONFIG          settings file (default: $LIME_HOME/conf/local.yaml)
    LIME_APPLICATIONS    6 (default): each part of a night has its own application; 1: the night is one
    LIME_DRIVER_MEMORY   heap of the driver (default 3g); the settings are read too late to change it
    LIME_PACKAGE         lime.zip of `make package`, if the executors do not have the project installed
    LIME_FIRST_NIGHT     first scheduled night (default 2017-01-01)
    LIME_LAST_NIGHT      last scheduled night (default: no end)
    LIME_CATCHUP         1: nights that were missed while a DAG was paused run later (default 0)
    LIME_POOL            Airflow pool in which a Spark application takes a slot (default: default_pool)
    LIME_GPU_POOL        pool of the application that scores (default: LIME_POOL)
    LIME_NAMESPACE       namespace of the tables in OpenLineage, see `lineage.py` (default: lime)
    LIME_RETRY_SECONDS   seconds before the first retry, doubled for the second (default 30)
    LIME_JARS            folder of the Delta jars (default: $LIME_HOME/.jars); empty if the cluster has them
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Asset, CronTriggerTimetable

from dags.alarms import task_failed
from dags.lineage import LineageSubmitOperator

HOME = Path(os.environ.get("LIME_HOME", Path(__file__).resolve().parent.parent))
CONFIG = os.environ.get("LIME_CONFIG", str(HOME / "conf" / "local.yaml"))
APPLICATIONS = int(os.environ.get("LIME_APPLICATIONS", "6"))
DRIVER_MEMORY = os.environ.get("LIME_DRIVER_MEMORY", "3g")


def _midnight(variable: str, default: str) -> pendulum.DateTime | None:
    day = os.environ.get(variable, default)
    return pendulum.from_format(day, "YYYY-MM-DD", tz="UTC") if day else None


def every(schedule: str) -> CronTriggerTimetable | str:
    """Return a schedule whose UTC times are both the start and the logical date of a run.

    The logical date names the night. With a bare cron expression, Airflow's global option
    `create_cron_data_intervals` would decide whether it is the time of the start or the time before.
    """
    if schedule in ("@once", "@continuous"):  # these name no time of day, so the option does not change them
        return schedule
    return CronTriggerTimetable(schedule, timezone="UTC")


# The options that all DAGs share.
SCHEDULED: dict[str, Any] = {
    "start_date": _midnight("LIME_FIRST_NIGHT", "2017-01-01"),
    "end_date": _midnight("LIME_LAST_NIGHT", ""),
    "catchup": os.environ.get("LIME_CATCHUP", "0") == "1",
    "max_active_runs": 1,
    "tags": ["lime"],
}
POOL = os.environ.get("LIME_POOL", "default_pool")
GPU_POOL = os.environ.get("LIME_GPU_POOL", POOL)
RETRY_DELAY = timedelta(seconds=float(os.environ.get("LIME_RETRY_SECONDS", "30")))
JARS = os.environ.get("LIME_JARS", str(HOME / ".jars"))
PACKAGE = os.environ.get("LIME_PACKAGE") or None

# The night of a run comes from its parameter, or from the event of the asset that started it, or from its
# logical date (see `every`); never from the wall clock.
NIGHT = (
    "{{ params.night or (triggering_asset_events.values() | sum(start=[]) | map(attribute='extra') "
    "| map(attribute='night', default='') | select | list | last | default('', true)) or ds }}"
)
RUN_KEY = "{{ params.run_key or run_id }}"

EVENTS = Asset("lime://events")
RECOMMENDATIONS = Asset("lime://recommendations")
CHAMPIONS = Asset("lime://champions")


def submit(
    task_id: str, steps: Sequence[str], doc: str, *, pool: str = POOL, **more: Any
) -> LineageSubmitOperator:
    """Return a task that runs `steps` of the night in one Spark application.

    Args:
        task_id: the name of the task.
        steps: names of the steps, in their order.
        doc: a sentence about the task for Airflow's pages.
        pool: the Airflow pool of the task.
        more: further options of the operator.
    """
    options = ("--run-key", RUN_KEY, "--steps", *steps)
    return submit_job(task_id, "run_steps", *options, steps=steps, pool=pool, doc_md=doc, **more)


def submit_job(
    task_id: str,
    job: str,
    *options: str,
    steps: Sequence[str] = (),
    pool: str = POOL,
    **more: Any,
) -> LineageSubmitOperator:
    """Return a task that runs one of the jobs for the night.

    Args:
        task_id: the name of the task.
        job: the name of the job.
        options: further options of the job's command line.
        steps: the steps that the job runs, whose tables are its lineage (default: the job itself).
        pool: the Airflow pool of the task.
        more: further options of the operator, such as `doc_md`.
    """
    return LineageSubmitOperator(
        task_id=task_id,
        steps=steps or [job],
        conn_id="spark_default",
        name=f"lime-{task_id}-{{{{ run_id }}}}",
        # The jars are named here, since a driver that spark-submit has started cannot add to its class path.
        jars=",".join(sorted(str(jar) for jar in Path(JARS).glob("delta-*.jar"))) or None,
        py_files=PACKAGE,
        driver_memory=DRIVER_MEMORY,
        # If memory ran out in a side thread, the driver would wait for ever: let it end, and be retried.
        conf={
            "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
            **({"spark.executorEnv.PYTHONPATH": Path(PACKAGE).name} if PACKAGE else {}),
        },
        application=str(HOME / "jobs" / f"{job}.py"),
        application_args=["--config", CONFIG, "--ds", NIGHT, *options],
        pool=pool,
        retries=2,
        retry_delay=RETRY_DELAY,
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=6),
        on_failure_callback=task_failed,
        **more,
    )
