"""The Spark session of every job.

The Delta jars come from the `.jars` folder that set-up filled (or from `LIME_JARS`), so
that no session resolves them over the network.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.settings.base import SettingsError
from pipelines.settings.secrets import SECRET
from pipelines.settings.settings import Settings

JARS = Path(__file__).resolve().parents[2] / ".jars"

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",  # a night is a UTC day
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",  # users of one scoring batch
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),  # whatever their histories weigh
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.sql.variable.substitute": "false",  # a `${…}` in a path or a rule is what it says
    # Whether an old version can be read is told by its files: a pin, or nobody's vacuum, may have kept them.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
    # A worker reads one core: several torch threads in several workers collapse each other.
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
}

# These log the stack trace of an error that reaches Python as well: a job says it once, in one line.
TWICE = (
    "org.apache.spark.executor.Executor",
    "org.apache.spark.scheduler.TaskSetManager",
    "org.apache.spark.sql.execution.datasources.FileFormatWriter",
    "org.apache.spark.sql.delta.files.DeltaFileFormatWriter$",
    "org.apache.spark.util.Utils",
    "org.apache.spark.SparkContext",
)


class NoJava(LimeError):
    """Spark's JVM is not there or does not start."""


def open_session(settings: Settings, app: str, *, verbose: bool = False) -> SparkSession:
    """A session with Delta, UTC and the settings' own configuration on top.

    Args:
        settings: which master, configuration and secrets.
        app: the application's name.
        verbose: let Spark log the stack trace of every error, besides what a job says of it.

    Raises:
        SettingsError: the Delta jars or a secret are not there.
        NoJava: no Java was found, or its JVM ended at once.
    """
    find_java()
    if "spark.pyspark.python" not in settings.spark.conf:
        os.environ.setdefault(
            "PYSPARK_PYTHON", sys.executable
        )  # workers need this environment, not `python3`
    named = {
        "spark.app.name": app,
        **({"spark.master": settings.spark.master} if settings.spark.master else {}),
    }
    # What Spark writes of Hadoop's configuration, to its event log and pages, leaves secrets out.
    hidden = "|".join([SECRET.pattern, *map(re.escape, settings.spark.secrets)])
    given = {**named, **DEFAULTS, "spark.redaction.regex": hidden, **_jars(), **settings.spark.conf}
    _launch(given, verbose=verbose)
    session = SparkSession.builder.config(map=dict(given)).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _set_secrets(session, settings.spark.secrets)
    return session


def find_java() -> None:
    """Look for what Spark's scripts will start, before they do.

    Raises:
        NoJava: it is not there.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started the JVM
        return
    home = os.environ.get("JAVA_HOME")
    if not shutil.which(str(Path(home, "bin", "java")) if home else "java"):
        place = f"under JAVA_HOME, which is {home}" if home else "on PATH, and JAVA_HOME is not set"
        raise NoJava(f"no Java {place}; install Java 17 or newer, or set JAVA_HOME to where it is")


def _launch(given: Mapping[str, str], *, verbose: bool) -> None:
    """Start the JVM, or find the one of spark-submit, and quiet it before it makes a session.

    Raises:
        NoJava: it ended at once.
    """
    # What py4j logs as an error it raises too, and what it says as it closes comes when handlers are gone.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    try:
        SparkContext._ensure_initialized(conf=SparkConf().setAll(list(given.items())))
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise NoJava(
            "Spark's JVM ended before it was up; what it said is above. Spark needs Java 17 or newer, and "
            "memory for spark.driver.memory"
        ) from error
    if not verbose:
        log4j = SparkContext._jvm.org.apache.logging.log4j  # type: ignore[union-attr]
        for name in TWICE:
            log4j.core.config.Configurator.setLevel(name, log4j.Level.OFF)
        PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)


def _set_secrets(spark: SparkSession, secrets: Mapping[str, str]) -> None:
    """Straight into Hadoop's configuration: pyspark puts what the builder is given on a command line.

    Raises:
        SettingsError: an environment variable is not set.
    """
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for key, variable in secrets.items():
        if variable not in os.environ:
            raise SettingsError(
                # Not by what it says: somebody may have put the value itself there.
                f"spark.secrets.{key}: the environment variable that it names is not set"
            )
        hadoop.set(key, os.environ[variable])


@contextmanager
def arrow_batches_of(spark: SparkSession, rows: int) -> Iterator[None]:
    """Jobs run inside get Arrow batches of `rows` rows, where the session's default suits other rows."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    spark.conf.set(name, rows)
    try:
        yield
    finally:
        spark.conf.set(name, str(before))


def start_workers(spark: SparkSession) -> None:
    """Run an empty Python task, so that the daemon that forks workers is up when a UDF wants one."""
    spark.sparkContext.parallelize([0], 1).foreach(_nothing)


def _nothing(_: int) -> None:
    return


def _jars() -> dict[str, str]:
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit started this driver, its jars were fixed then
        return {}
    folder = Path(os.environ.get("LIME_JARS", JARS))
    jars = sorted(str(path) for path in folder.glob("delta-*.jar"))
    if len(jars) < 2:
        raise SettingsError(f"the Delta jars are not in {folder}; run `make setup`, or set LIME_JARS")
    return {"spark.jars": ",".join(jars)}
