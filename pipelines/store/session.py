"""Open the Spark session of a job.

The Delta jars come from the `.jars` folder, which `make setup` fills, or from `LIME_JARS`, so that no session
resolves them over the network.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.settings.base import SettingsError
from pipelines.settings.secrets import SECRET
from pipelines.settings.settings import Settings
from pipelines.store.machine_conf import conf_folder, derive_conf

JARS = Path(__file__).resolve().parents[2] / ".jars"

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",  # a night is a UTC day
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",  # users that are scored in one batch
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),  # a bound for users with long histories
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.sql.variable.substitute": "false",  # a `${…}` in a path or a rule is literal
    # An old version can be read while its files exist; a pin may have kept them, or no vacuum may have run.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
    # A worker uses one core: several torch threads in each of several workers slow each other down.
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
}

LOG_VARIABLE = "LOG4J_CONFIGURATION_FILE"  # which Log4j reads
LOG_OF_START = Path(__file__).with_name("log4j2.properties")

# These loggers write the stack trace of an error that also reaches Python, where a job reports it once.
TWICE = (
    "org.apache.spark.executor.Executor",
    "org.apache.spark.scheduler.TaskSetManager",
    "org.apache.spark.sql.execution.datasources.FileFormatWriter",
    "org.apache.spark.sql.delta.files.DeltaFileFormatWriter$",
    "org.apache.spark.util.Utils",
    "org.apache.spark.SparkContext",
)


class NoJava(LimeError):
    """Spark's JVM is missing or does not start."""


def open_session(settings: Settings, app: str, *, verbose: bool = False) -> SparkSession:
    """Open a session with Delta, in UTC, and with the configuration of the settings.

    What the settings leave out is derived for a session on this machine (`machine_conf.py`).

    Args:
        settings: the master, the configuration and the secrets.
        app: the name of the application.
        verbose: whether Spark logs the stack trace of every error, in addition to the job's own message.

    Raises:
        SettingsError: the Delta jars or the variable of a secret are missing.
        NoJava: no Java was found, or its JVM ended at once.
    """
    find_java()
    if "spark.pyspark.python" not in settings.spark.conf:
        # Workers need this environment, not the `python3` of the host.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    named = {
        "spark.app.name": app,
        **({"spark.master": settings.spark.master} if settings.spark.master else {}),
    }
    # Spark writes Hadoop's configuration to its event log and its pages; this leaves secrets out.
    hidden = "|".join([SECRET.pattern, *map(re.escape, settings.spark.secrets)])
    derived = derive_conf(settings)
    given = {
        **named,
        **derived,
        **DEFAULTS,
        "spark.redaction.regex": hidden,
        **find_jars(),
        **settings.spark.conf,
    }
    _launch(given, verbose=verbose)
    session = SparkSession.builder.config(map=dict(given)).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _set_secrets(session, settings.spark.secrets)
    return session


def find_java() -> None:
    """Check that there is a Java for Spark's scripts to start.

    Raises:
        NoJava: no Java was found.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started the JVM
        return
    home = os.environ.get("JAVA_HOME")
    if not shutil.which(str(Path(home, "bin", "java")) if home else "java"):
        place = f"under JAVA_HOME, which is {home}" if home else "on PATH, and JAVA_HOME is not set"
        raise NoJava(f"no Java {place}; install Java 17 or newer, or set JAVA_HOME to where it is")


def _launch(given: Mapping[str, str], *, verbose: bool) -> None:
    """Start the JVM, or connect to that of spark-submit, and limit its log before it opens a session.

    Raises:
        NoJava: the JVM ended at once.
    """
    # py4j also raises what it logs as an error, and what it logs while it closes has no handlers any more.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    try:
        with nullcontext() if verbose else _log_of_start():
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


@contextmanager
def _log_of_start() -> Iterator[None]:
    """Let a JVM that starts inside log errors alone, unless Spark is configured otherwise."""
    own = Path(conf_folder(), "log4j2.properties")
    if (
        LOG_VARIABLE in os.environ or own.is_file() or not LOG_OF_START.is_file()
    ):  # there is none in a zip file
        yield
        return
    os.environ[LOG_VARIABLE] = str(LOG_OF_START)
    try:
        yield
    finally:
        del os.environ[LOG_VARIABLE]


def _set_secrets(spark: SparkSession, secrets: Mapping[str, str]) -> None:
    """Set secrets in Hadoop's configuration; pyspark would put what the builder gets on a command line.

    Raises:
        SettingsError: an environment variable is not set.
    """
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for key, variable in secrets.items():
        if variable not in os.environ:
            raise SettingsError(
                # The message does not repeat the name, which may be the secret itself by mistake.
                f"spark.secrets.{key}: the environment variable that it names is not set"
            )
        hadoop.set(key, os.environ[variable])


@contextmanager
def arrow_batches_of(spark: SparkSession, rows: int) -> Iterator[None]:
    """Set the number of rows in an Arrow batch for the jobs inside."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    spark.conf.set(name, rows)
    try:
        yield
    finally:
        spark.conf.set(name, str(before))


def start_workers(spark: SparkSession) -> None:
    """Run an empty Python task, so that the daemon that forks workers is running when a UDF needs one."""
    spark.sparkContext.parallelize([0], 1).foreach(_nothing)


def _nothing(_: int) -> None:
    return


def find_jars() -> dict[str, str]:
    """Return the configuration that names the Delta jars; spark-submit has named its own.

    Raises:
        SettingsError: the jars are not there.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit started this driver with its jars
        return {}
    folder = Path(os.environ.get("LIME_JARS", JARS))
    jars = sorted(str(path) for path in folder.glob("delta-*.jar"))
    if len(jars) < 2:
        raise SettingsError(f"the Delta jars are not in {folder}; run `make setup`, or set LIME_JARS")
    return {"spark.jars": ",".join(jars)}
