"""How a DAG starts our jobs: one SparkSubmitOperator per group of steps.

Environment, read when Airflow parses the DAG:

    LIME_HOME     folder of the jobs and the settings (default: the parent of this folder)
    LIME_CONFIG   settings file (default: $LIME_HOME/conf/local.yaml)
    LIME_APPLICATIONS   3 (default): prepare, score and publish apart; 1: all in one Spark application
    LIME_DRIVER_MEMORY  heap of the driver (default 3g); settings come too late to change it
    LIME_PACKAGE  lime.zip of `make package`, where executors have not the project installed (default: none)
    LIME_JARS     folder of the Delta jars (default: $LIME_HOME/.jars); empty: the cluster has them
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

HOME = Path(os.environ.get("LIME_HOME", Path(__file__).resolve().parent.parent))
CONFIG = os.environ.get("LIME_CONFIG", str(HOME / "conf" / "local.yaml"))
APPLICATIONS = int(os.environ.get("LIME_APPLICATIONS", "3"))
DRIVER_MEMORY = os.environ.get("LIME_DRIVER_MEMORY", "3g")
JARS = os.environ.get("LIME_JARS", str(HOME / ".jars"))
PACKAGE = os.environ.get("LIME_PACKAGE") or None

# The night a run is for: given as a parameter, never taken from the wall clock. A run without one is for
# its logical date; asset-triggered runs have no logical date and must give it.
NIGHT = "{{ params.night or ds }}"
RUN_KEY = "{{ params.run_key or run_id }}"


def submit(task_id: str, steps: Sequence[str], doc: str) -> SparkSubmitOperator:
    """A task that runs `steps` of the night in one Spark application."""
    return SparkSubmitOperator(
        task_id=task_id,
        conn_id="spark_default",
        name=f"lime-{task_id}-{NIGHT}",
        # Named at submit: a driver that spark-submit has started can't add them to its class path.
        jars=",".join(sorted(str(jar) for jar in Path(JARS).glob("delta-*.jar"))) or None,
        py_files=PACKAGE,
        driver_memory=DRIVER_MEMORY,
        # Out of memory in a side thread would leave a driver that waits for ever: let it end, and be retried.
        conf={
            "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
            **({"spark.executorEnv.PYTHONPATH": Path(PACKAGE).name} if PACKAGE else {}),
        },
        application=str(HOME / "jobs" / "run_steps.py"),
        application_args=["--config", CONFIG, "--ds", NIGHT, "--run-key", RUN_KEY, "--steps", *steps],
        retries=2,
        retry_delay=timedelta(seconds=30),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=6),
        doc_md=doc,
    )
