"""An error of Spark, Delta or a storage becomes one sentence with the cause and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.errors.explain import explain
from pipelines.errors.stack_traces import UnknownFault, explain_text, find_causes
from pipelines.store.storage import list_names, path_exists

FRAMES = "\tat org.apache.spark.sql.X.y(X.scala:1)\n\t... 23 more\n"
LOST = "Lost task 0.3 in stage 1.0 (TID 9) (10.0.0.7 executor 3): "


def trace(*causes: str) -> str:
    """Write a Java stack trace of some exceptions."""
    return "An error occurred while calling o1.x.\n: " + f"\n{FRAMES}Caused by: ".join(causes) + f"\n{FRAMES}"


SPARK, DELTA = "org.apache.spark.SparkException: ", "org.apache.spark.sql.delta.DeltaAnalysisException: "
READ = "Encountered error while reading file file:///w/t/p.parquet.  SQLSTATE: KD001"
PYTHON = """\
Traceback (most recent call last):
  File "/lime/pipelines/udfs/x.py", line 7, in f
    1 / 0
ZeroDivisionError: division by zero
"""
CASES: list[tuple[str, list[str], list[str]]] = [  # the remedy, the exceptions, parts of the sentence
    ("retry", [f"{SPARK}{LOST}java.io.IOException: No space left on device"],
     ["no room on the disk of 10.0.0.7 executor 3", "run the job again"]),
    ("retry", [f"{SPARK}Job aborted: {LOST}ExecutorLostFailure (killed)"],
     ["10.0.0.7 executor 3", "ExecutorLostFailure (killed)"]),
    ("retry", ["java.lang.OutOfMemoryError: Java heap space"], ["out of memory", "Java heap space"]),
    ("retry", ["java.lang.IllegalArgumentException: x", "java.net.UnknownHostException: lake"],
     ["can't be reached", "lake"]),
    ("retry", ["com.amazonaws.SdkClientException: Unable to execute HTTP request"], ["can't be reached"]),
    ("person", [f"{SPARK}[FAILED_READ_FILE.NO_HINT] {READ}", "java.lang.X: not a Parquet file"],
     ["file:///w/t/p.parquet", "not a Parquet file", "restore it"]),
    ("person", [f"{SPARK}[FAILED_READ_FILE.FILE_NOT_EXIST] {READ}"], ["is missing", "file:///w/t/p.parquet"]),
    ("person", ["java.lang.ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found"],
     ["no connector", "S3AFileSystem", "hadoop-aws"]),
    ("person", ["java.nio.file.AccessDeniedException: s3a://b/x: Status Code: 403"],
     ["does not let this user in", "s3a://b/x"]),
    ("person", ["org.apache.hadoop.security.AccessControlException: Permission denied: user=lime"],
     ["Permission denied: user=lime"]),
    ("person", [f"{DELTA}[DELTA_FAILED_TO_MERGE_FIELDS] Failed to merge fields 'id' and 'id'",
                f"{DELTA}[DELTA_MERGE_INCOMPATIBLE_DATATYPE] LongType and StringType"],
     ["'id'", "LongType and StringType", "ids"]),
    ("person", [f"{SPARK}Could not parse Master URL: 'spork'"], ["'spork'", "spark.master"]),
    ("person", [f"{SPARK}A master URL must be set in your configuration"], ["local[*]"]),
    ("person", [f"{SPARK}[DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012\n== SQL ==\n1/x\n"],
     ["eligible", "Division by zero", "try_divide"]),
    ("person", [f"{DELTA}[DELTA_UNSUPPORTED_FEATURES_FOR_READ] it reads x"], ["newer Delta"]),
    ("bug", [f"{SPARK}[NEVER_HEARD_OF.IT] What is\nthis? SQLSTATE: 0A000", "x.y.Deep: the cause"],
     ["SparkException NEVER_HEARD_OF.IT: What is this?", "the cause"]),
    ("bug", [f"org.apache.spark.api.python.PythonException: From the Python worker: {PYTHON}"],
     ["ZeroDivisionError: division by zero", "/lime/pipelines/udfs/x.py:7"]),
]  # fmt: skip


@pytest.mark.parametrize(("remedy", "causes", "parts"), CASES)
def test_a_stack_trace_becomes_one_sentence(remedy: str, causes: list[str], parts: list[str]) -> None:
    found = explain_text(trace(*causes))
    assert found.remedy == remedy, found
    for part in parts:
        assert part in str(found)
    for part in ("\n", "\tat ", "SQLSTATE", "["):
        assert part not in str(found).replace("local[*]", "")


def test_causes_are_separated_and_messages_of_several_lines_are_kept() -> None:
    causes = list(find_causes(trace("a.b.First: one\ntwo", "c.d.Second")))
    assert [(cause.kind, cause.line) for cause in causes] == [("a.b.First", "one two"), ("c.d.Second", "")]


def failing(spark: SparkSession, folder: Path) -> dict[str, tuple[Callable[[], object], str, str]]:
    """Make faults of a real Spark: the work that fails, the remedy, and a part of the sentence."""
    spark.range(4).coalesce(1).write.parquet(f"{folder}/torn")
    (file,) = (folder / "torn").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    (file.parent / f".{file.name}.crc").unlink()
    spark.range(4).write.format("delta").save(f"{folder}/table")
    texts = spark.range(1).select(F.col("id").cast("string"))
    append = texts.write.format("delta").mode("append").option("mergeSchema", "true")
    torn = spark.read.schema("id long").parquet(f"{folder}/torn")
    return {
        "a torn file": (lambda: torn.agg(F.sum("id")).collect(), "person", file.name),
        "another type": (lambda: append.save(f"{folder}/table"), "person", "LongType and StringType"),
        "no connector": (lambda: path_exists(spark, "s3a://lake/x"), "person", "s3a://lake/x: no connector"),
        "no server": (
            lambda: list_names(spark, "hdfs://127.0.0.1:1/x"),
            "retry",
            "hdfs://127.0.0.1:1/x: a st",
        ),
        "no path": (lambda: path_exists(spark, "file://host/x"), "person", "Wrong FS"),
        "a bad rule": (lambda: spark.range(3).selectExpr("1 / id").collect(), "person", "Division by zero"),
        "a lost worker": (lambda: in_worker(spark, lambda: os._exit(3)), "retry", "was lost"),
        "a bug": (lambda: in_worker(spark, lambda: 1 / 0), "bug", "division by zero (in a Python worker at "),
    }


def in_worker(spark: SparkSession, work: Callable[[], object]) -> None:
    spark.range(1).mapInArrow(lambda batches: (work() for _ in batches), "a long").collect()  # type: ignore


def test_faults_of_the_real_spark_are_explained(spark: SparkSession, tmp_path: Path) -> None:
    for name, (work, remedy, part) in failing(spark, tmp_path).items():
        with pytest.raises((PySparkException, Py4JJavaError, LimeError)) as caught:
            work()
        found = explain(caught.value)
        assert found is not None, name
        assert (name, found.remedy) == (name, remedy), found
        assert part in str(found), name
        assert isinstance(found, UnknownFault) == (remedy == "bug")
        assert "\n" not in str(found)


def test_an_error_of_the_drivers_system_is_explained_and_a_bug_is_not() -> None:
    full = explain(OSError(28, "No space left on device", "/tmp/x"))
    assert full is not None
    assert (full.remedy, "/tmp/x" in str(full)) == ("retry", True)
    denied = explain(PermissionError(13, "Permission denied", "/secret"))
    assert denied is not None
    assert (denied.remedy, "/secret" in str(denied)) == ("person", True)
    assert explain(KeyError("x")) is None
