"""Read and change Hadoop paths, on every storage that Spark can reach (file:, hdfs:, s3a:, abfs:).

A path that is missing and a path that may not be read are different results; the second is never reported as
the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.errors.explain import explain
from pipelines.errors.rules import SparkRefused
from pipelines.errors.stack_traces import UnknownFault

# Spark's option for the files of its own tables: brackets and stars in a path have no special meaning.
NO_GLOB: Final = {"__globPaths__": "false"}


class HadoopPath(NamedTuple):
    """A Hadoop path and its file system, as objects of the JVM, for which py4j has no types."""

    path: Any
    fs: Any


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Explain the errors of calls to a storage about `uri`.

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


def hadoop_path(spark: SparkSession, uri: str) -> HadoopPath:
    """Return a Hadoop path and its file system.

    Raises:
        LimeError: Spark has no connector for the storage, or it can't be reached.
    """
    with reaching(uri):
        path = spark._jvm.org.apache.hadoop.fs.Path(uri)  # type: ignore[union-attr]
        return HadoopPath(path, path.getFileSystem(spark._jsc.hadoopConfiguration()))


def path_exists(spark: SparkSession, uri: str) -> bool:
    """Return whether a Hadoop path exists.

    Raises:
        LimeError: this is unknown, as the storage does not let this user look or can't be reached.
    """
    return _is_there(uri, *hadoop_path(spark, uri))


def _is_there(uri: str, path: Any, fs: Any) -> bool:
    with reaching(uri):
        if fs.exists(path):
            return True
        local = str(path.toUri().getPath()) if str(fs.getUri().getScheme()) == "file" else ""
    if local:  # Java reports a path as missing when its folder may not be searched
        _check_searchable(local)
    return False


def _check_searchable(local: str) -> None:
    try:
        os.stat(local)
    except PermissionError:
        raise SparkRefused(
            f"{local}: the storage does not let this user in (Permission denied), so it is unknown "
            "whether it is there; grant the right to read it and to search the folders above it"
        ) from None
    except OSError:  # the path is missing
        return


def drop_folder(spark: SparkSession, uri: str) -> None:
    """Remove a Hadoop folder with its content; a missing folder is not an error."""
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        fs.delete(path, True)


def rename_folder(spark: SparkSession, uri: str, to: str) -> None:
    """Rename a Hadoop folder.

    Args:
        spark: the session whose storage client renames the folder.
        uri: the folder.
        to: its new URI, where nothing may exist.

    Raises:
        SparkRefused: the storage refused.
    """
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        renamed = fs.rename(path, hadoop_path(spark, to).path)
    if not renamed:
        raise SparkRefused(
            f"{uri} can't be renamed to {to}; look whether something is there already, and at the rights"
        )


def list_names(spark: SparkSession, uri: str) -> list[str]:
    """List the names in a folder, ascending; a missing folder has none.

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
        # The names come as one text: reading them one by one would take two calls to the JVM for each.
        jvm = spark._jvm
        paths = jvm.org.apache.hadoop.fs.FileUtil.stat2Paths(found)  # type: ignore[union-attr]
        text = str(jvm.scala.runtime.ScalaRunTime.stringOf(paths))  # type: ignore[union-attr]
        folder = f"{found[0].getPath().getParent().toString()}/"  # no name has a slash, so it separates names
        return sorted(text.removeprefix(f"Array({folder}").removesuffix(")").split(f", {folder}"))


def newest_change(spark: SparkSession, uri: str) -> float:
    """Return when a file below a folder was last written, in seconds since 1970; 0 if there is no file."""
    path, fs = hadoop_path(spark, uri)
    files, newest = fs.listFiles(path, True), 0
    while files.hasNext():
        newest = max(newest, files.next().getModificationTime())
    return newest / 1000


def read_text(spark: SparkSession, uri: str) -> str:
    """Read a small text file."""
    path, fs = hadoop_path(spark, uri)
    with reaching(uri):
        stream = fs.open(path)
        try:
            return str(spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))  # type: ignore[union-attr]
        finally:
            stream.close()


def list_files(spark: SparkSession, uri: str) -> list[str]:
    """List the URIs of all files below a folder, hidden ones included; a missing folder has none."""
    path, fs = hadoop_path(spark, uri)
    if not fs.exists(path):
        return []
    found, files = fs.listFiles(path, True), []
    while found.hasNext():
        files.append(str(found.next().getPath().toString()))
    return sorted(files)


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """List the names of the folders in a folder, ascending."""
    return [name for name in list_names(spark, uri) if _is_folder(spark, f"{uri}/{name}")]


def _is_folder(spark: SparkSession, uri: str) -> bool:
    path, fs = hadoop_path(spark, uri)
    return bool(fs.getFileStatus(path).isDirectory())
