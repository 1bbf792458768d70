"""Hadoop paths: whatever storage Spark can reach (file:, hdfs:, s3a:, abfs:), by its own client."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


def hadoop_path(spark: SparkSession, uri: str) -> tuple[Any, Any]:  # py4j has no types
    """A Hadoop path and its file system, as JVM objects."""
    path = spark._jvm.org.apache.hadoop.fs.Path(uri)  # type: ignore[union-attr]
    return path, path.getFileSystem(spark._jsc.hadoopConfiguration())


def path_exists(spark: SparkSession, uri: str) -> bool:
    """Whether a Hadoop path is there."""
    path, fs = hadoop_path(spark, uri)
    return bool(fs.exists(path))


def drop_folder(spark: SparkSession, uri: str) -> None:
    """Remove a Hadoop folder and what is in it; nothing when it is not there."""
    path, fs = hadoop_path(spark, uri)
    fs.delete(path, True)


def rename_folder(spark: SparkSession, uri: str, to: str) -> None:
    """Give a Hadoop folder another name; nothing may be there.

    Raises:
        OSError: the storage refused.
    """
    path, fs = hadoop_path(spark, uri)
    if not fs.rename(path, hadoop_path(spark, to)[0]):
        raise OSError(f"{uri} can't be renamed to {to}")


def list_names(spark: SparkSession, uri: str) -> list[str]:
    """Names in a folder, ascending; none when the folder is not there."""
    path, fs = hadoop_path(spark, uri)
    if not fs.exists(path):
        return []
    found = fs.listStatus(path)
    if not len(found):
        return []
    # As one text: asking the array's objects one by one would be calls to the JVM, two a name.
    jvm = spark._jvm
    paths = jvm.org.apache.hadoop.fs.FileUtil.stat2Paths(found)  # type: ignore[union-attr]
    text = str(jvm.scala.runtime.ScalaRunTime.stringOf(paths))  # type: ignore[union-attr]
    folder = f"{found[0].getPath().getParent().toString()}/"  # no name holds a slash, so it separates them
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
