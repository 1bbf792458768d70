"""How a DAG starts our jobs: one SparkSubmitOperator per group of steps.

Environment, read when Airflow parses the DAG:

    LIME_HOME     folder of the jobs and the settings (default: the parent of this folder)
    LIME_CONFIG   settings file (default: $LIME_HOME/conf/local.yaml)
    LIME_APPLICATIONS   6 (default): each part of a night in one of its own; 1: all in one
    LIME_DRIVER_MEMORY  heap of the driver (default 3g); settings come too late to change it
    LIME_PACKAGE  lime.zip of `make package`, where executors have not the project installed (default: none)
    LIME_FIRST_NIGHT, LIME_LAST_NIGHT   what is scheduled (default: from 2017-01-01 on, without end)
    LIME_CATCHUP  1: what was missed while a DAG was paused is run too (default 0)
    LIME_POOL     Airflow pool that Spark applications take a slot of (default: default_pool)
    LIME_GPU_POOL the same for the application that scores (default: LIME_POOL)
    LIME_NAMESPACE  of the tables in OpenLineage, see `lineage.py` (default: lime)
    LIME_RETRY_SECONDS  pause before the first retry, doubled for the second (default 30)
    LIME_JARS     folder of the Delta jars (default: $LIME_HOME/.jars); empty: the cluster has them
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
    """A cron expression or preset as UTC times at which a run starts and which its logical date is.

    A bare expression would leave it to the whole Airflow's option `create_cron_data_intervals` whether the
    logical date, which a night takes its name from, is that time or the one before.
    """
    if schedule in ("@once", "@continuous"):  # no times of a clock; the option does not change them
        return schedule
    return CronTriggerTimetable(schedule, timezone="UTC")


# What all DAGs have in common.
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

# The night a run is for: given as a parameter, or with the event of the asset that started the run, never
# taken from the wall clock. A run without one is for its logical date, see `every`.
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
    """A task that runs `steps` of the night in one Spark application."""
    options = ("--run-key", RUN_KEY, "--steps", *steps)
    return submit_job(task_id, "run_steps", doc, *options, steps=steps, pool=pool, **more)


def submit_job(
    task_id: str,
    job: str,
    doc: str,
    *options: str,
    steps: Sequence[str] = (),
    pool: str = POOL,
    **more: Any,
) -> LineageSubmitOperator:
    """A task that runs one of the jobs for the night; `more` are options of the operator."""
    return LineageSubmitOperator(
        task_id=task_id,
        steps=steps or [job],
        conn_id="spark_default",
        name=f"lime-{task_id}-{{{{ run_id }}}}",
        # Named at submit: a driver that spark-submit has started can't add them to its class path.
        jars=",".join(sorted(str(jar) for jar in Path(JARS).glob("delta-*.jar"))) or None,
        py_files=PACKAGE,
        driver_memory=DRIVER_MEMORY,
        # Out of memory in a side thread would leave a driver that waits for ever: let it end, and be retried.
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
        doc_md=doc,
        **more,
    )
