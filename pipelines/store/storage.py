"""Hadoop paths: whatever storage Spark can reach (file:, hdfs:, s3a:, abfs:), by its own client.

What is not there and what may not be read are two answers: the second is never taken for the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.errors.explain import explain
from pipelines.errors.rules import SparkRefused
from pipelines.errors.stack_traces import UnknownFault

# Spark's own option for the files of its tables: a path is itself, whatever brackets or stars are in it.
NO_GLOB: Final = {"__globPaths__": "false"}


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """A call of a storage about `uri`.

    Raises:
        LimeError: the storage refused it or can't be reached; the message names the path.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        known = explain(error)
        if known is None or isinstance(known, UnknownFault):
            raise
        raise type(known)(f"{uri}: {known}") from error


def hadoop_path(spark: SparkSession, uri: str) -> tuple[Any, Any]:  # py4j has no types
    """A Hadoop path and its file system, as JVM objects.

    Raises:
        LimeError: Spark has no connector for the storage, or it can't be reached.
    """
    with reaching(uri):
        path = spark._jvm.org.apache.hadoop.fs.Path(uri)  # type: ignore[union-attr]
        return path, path.getFileSystem(spark._jsc.hadoopConfiguration())


def path_exists(spark: SparkSession, uri: str) -> bool:
    """Whether a Hadoop path is there.

    Raises:
        LimeError: this can't be known: the storage does not let this user look, or can't be reached.
    """
    return _is_there(uri, *hadoop_path(spark, uri))


def _is_there(uri: str, path: Any, fs: Any) -> bool:
    with reaching(uri):
        if fs.exists(path):
            return True
        local = str(path.toUri().getPath()) if str(fs.getUri().getScheme()) == "file" else ""
    if local:  # Java calls a path missing that lies in a folder which may not be searched
        _check_searchable(local)
    return False


def _check_searchable(local: str) -> None:
    try:
        os.stat(local)
    except PermissionError:
        raise SparkRefused(
            f"{local}: the storage does not let this user in (Permission denied), so nobody can say whether "
            "it is there; grant the right to read it and to search the folders above it"
        ) from None
    except OSError:  # it is not there
        return


def drop_folder(spark: SparkSession, uri: str) -> None:
    """Remove a Hadoop folder and what is in it; nothing when it is not there."""
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        fs.delete(path, True)


def rename_folder(spark: SparkSession, uri: str, to: str) -> None:
    """Give a Hadoop folder another name; nothing may be there.

    Raises:
        SparkRefused: the storage refused.
    """
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        renamed = fs.rename(path, hadoop_path(spark, to)[0])
    if not renamed:
        raise SparkRefused(
            f"{uri} can't be renamed to {to}; look whether something is there already, and at the rights"
        )


def list_names(spark: SparkSession, uri: str) -> list[str]:
    """Names in a folder, ascending; none when the folder is not there.

    Raises:
        LimeError: the folder may not be read, or the storage can't be reached.
    """
    path, fs = hadoop_path(spark, uri)
    if not _is_there(uri, path, fs):
        return []
    with reaching(uri):
        found = fs.listStatus(path)
        if not len(found):
            return []
        # As one text: asking the array's objects one by one would be calls to the JVM, two a name.
        jvm = spark._jvm
        paths = jvm.org.apache.hadoop.fs.FileUtil.stat2Paths(found)  # type: ignore[union-attr]
        text = str(jvm.scala.runtime.ScalaRunTime.stringOf(paths))  # type: ignore[union-attr]
        folder = (
            f"{found[0].getPath().getParent().toString()}/"  # no name holds a slash, so it separates them
        )
        return sorted(text.removeprefix(f"Array({folder}").removesuffix(")").split(f", {folder}"))


def newest_change(spark: SparkSession, uri: str) -> float:
    """When a file in a folder, however deep, was last written, in seconds since 1970; 0 without a file."""
    path, fs = hadoop_path(spark, uri)
    files, newest = fs.listFiles(path, True), 0
    while files.hasNext():
        newest = max(newest, files.next().getModificationTime())
    return newest / 1000


def read_text(spark: SparkSession, uri: str) -> str:
    """A small text file, whole."""
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        stream = fs.open(path)
        try:
            return str(spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))  # type: ignore[union-attr]
        finally:
            stream.close()


def list_files(spark: SparkSession, uri: str) -> list[str]:
    """URIs of all files under a folder, at any depth, hidden ones too; none when the folder is not there."""
    path, fs = hadoop_path(spark, uri)
    if not fs.exists(path):
        return []
    found, files = fs.listFiles(path, True), []
    while found.hasNext():
        files.append(str(found.next().getPath().toString()))
    return sorted(files)


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """Names of the folders in a folder, ascending."""
    return [name for name in list_names(spark, uri) if _is_folder(spark, f"{uri}/{name}")]


def _is_folder(spark: SparkSession, uri: str) -> bool:
    path, fs = hadoop_path(spark, uri)
    return bool(fs.getFileStatus(path).isDirectory())
