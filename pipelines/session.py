"""The Spark session of every job.

The Delta jars come from the `.jars` folder that set-up filled (or from `LIME_JARS`), so
that no session resolves them over the network.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

from pipelines.settings import SECRET, Settings, SettingsError

JARS = Path(__file__).resolve().parent.parent / ".jars"

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",  # a night is a UTC day
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",  # users of one scoring batch
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),  # whatever their histories weigh
    "spark.sql.sources.partitionOverwriteMode": "static",
    # Whether an old version can be read is told by its files: a pin, or nobody's vacuum, may have kept them.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
    # A worker reads one core: several torch threads in several workers collapse each other.
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
}


def open_session(settings: Settings, app: str) -> SparkSession:
    """A session with Delta, UTC and the settings' own configuration on top.

    Raises:
        SettingsError: the Delta jars or a secret are not there.
    """
    if "spark.pyspark.python" not in settings.spark.conf:
        os.environ.setdefault(
            "PYSPARK_PYTHON", sys.executable
        )  # workers need this environment, not `python3`
    builder = SparkSession.builder.appName(app)
    if settings.spark.master:
        builder = builder.master(settings.spark.master)
    # What Spark writes of Hadoop's configuration, to its event log and pages, leaves secrets out.
    hidden = "|".join([SECRET.pattern, *map(re.escape, settings.spark.secrets)])
    given = {**DEFAULTS, "spark.redaction.regex": hidden, **_jars(), **settings.spark.conf}
    for key, value in given.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _set_secrets(session, settings.spark.secrets)
    return session


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
