"""Bundles on any Hadoop storage: where they are, how they reach driver and workers.

The driver fetches and checks a bundle; `SparkContext.addArchive` brings it to the executors
(`addFile` takes no local folder on a cluster), where workers find it by its model version.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from lime_model.bundle import CHECKSUMS, Bundle, BundleError, bundle_version, load_bundle
from pipelines.storage import hadoop_path, path_exists
from pipelines.tables import Warehouse

_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []  # kept alive for the life of the process


def bundle_uri(warehouse: Warehouse, model: str) -> str:
    """Where the bundle of `model` lives."""
    return f"{warehouse.settings.bundles.rstrip('/')}/{model}"


def bundle_exists(spark: SparkSession, uri: str) -> bool:
    """Whether a bundle was stored at `uri`; the checksums are its last file."""
    return path_exists(spark, f"{uri}/{CHECKSUMS}")


def find_bundle(warehouse: Warehouse, model: str) -> Bundle:
    """The bundle of `model`.

    Raises:
        BundleError: it is missing or damaged.
    """
    return load_bundle(_fetch_bundle(warehouse, model))


def _fetch_bundle(warehouse: Warehouse, model: str) -> Path:
    uri = bundle_uri(warehouse, model)
    if not bundle_exists(warehouse.spark, uri):
        raise BundleError(f"no bundle at {uri}; run jobs/train_model.py for model {model!r} first")
    return fetch_folder(warehouse.spark, uri)


def ship_bundle(warehouse: Warehouse, model: str) -> Bundle:
    """Fetch the bundle of `model`, check it, send it to the executors and load it here.

    Raises:
        BundleError: it is missing or damaged.
    """
    local = _fetch_bundle(warehouse, model)
    bundle = load_bundle(local)
    name = f"bundle-{bundle.version}"
    archive = Path(scratch_folder()) / f"{name}.zip"  # one path: a night's steps ship it again and again
    if not archive.exists():
        shutil.make_archive(str(archive.with_suffix("")), "zip", local)
    warehouse.spark.sparkContext.addArchive(f"{archive}#{name}")
    return bundle


def shipped_folder(version: str) -> Path:
    """Where a worker (or the driver) finds the shipped bundle."""
    return Path(SparkFiles.get(f"bundle-{version}"))


@functools.cache
def scratch_folder() -> str:
    """A local folder of this process, removed when it ends."""
    _SCRATCH.append(tempfile.TemporaryDirectory(prefix="lime-"))
    return _SCRATCH[0].name


def fetch_folder(spark: SparkSession, uri: str) -> Path:
    """Copy a Hadoop folder to local disk."""
    path, fs = hadoop_path(spark, uri)
    local = Path(tempfile.mkdtemp(dir=scratch_folder())) / "bundle"
    target, _ = hadoop_path(spark, f"file:{local}")
    fs.copyToLocalFile(False, path, target, True)
    return local


def store_folder(spark: SparkSession, local: Path, uri: str) -> None:
    """Replace the Hadoop folder `uri` by a local one, copied beside it first: a kill leaves no torn copy."""
    path, fs = hadoop_path(spark, uri)
    new, _ = hadoop_path(spark, f"{uri}.new")
    source, _ = hadoop_path(spark, f"file:{local}")
    fs.delete(new, True)
    fs.mkdirs(path.getParent())
    fs.copyFromLocalFile(False, True, source, new)
    fs.delete(path, True)
    if not fs.rename(new, path):
        raise OSError(f"{uri}.new can't be renamed to {uri}")


def stored_version(spark: SparkSession, uri: str) -> str | None:
    """Model version of the bundle at `uri`, None when there is none."""
    if not bundle_exists(spark, uri):
        return None
    return bundle_version(fetch_folder(spark, uri))
