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

from lime_model.bundle import CHECKSUMS, Bundle, BundleError, load_bundle
from pipelines.store.storage import hadoop_path, path_exists, rename_folder
from pipelines.store.tables import Warehouse

_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []  # kept alive for the life of the process


def bundle_uri(warehouse: Warehouse, model: str, version: str = "") -> str:
    """Where the bundles of `model` live, or one of them."""
    folder = f"{warehouse.settings.bundles.rstrip('/')}/{model}"
    return f"{folder}/{version}" if version else folder


def bundle_exists(spark: SparkSession, uri: str) -> bool:
    """Whether a bundle was stored at `uri`; the checksums are its last file."""
    return path_exists(spark, f"{uri}/{CHECKSUMS}")


def fetch_bundle(warehouse: Warehouse, model: str, version: str) -> Path:
    """A local copy of a bundle.

    Raises:
        BundleError: it is not there.
    """
    uri = bundle_uri(warehouse, model, version)
    if not bundle_exists(warehouse.spark, uri):
        raise BundleError(f"no bundle at {uri}; restore it, or run jobs/train_model.py for model {model!r}")
    return fetch_folder(warehouse.spark, uri)


def find_bundle(warehouse: Warehouse, model: str, version: str) -> Bundle:
    """A bundle of `model`.

    Raises:
        BundleError: it is missing or damaged, or is not the one that its folder names.
    """
    local = fetch_bundle(warehouse, model, version)
    return _named(load_bundle(local), version, bundle_uri(warehouse, model, version))


def _named(bundle: Bundle, version: str, uri: str) -> Bundle:
    if bundle.version != version:
        raise BundleError(
            f"{uri} holds bundle {bundle.version}; restore {version}, or train and promote anew"
        )
    return bundle


def ship_bundle(warehouse: Warehouse, model: str, version: str) -> Bundle:
    """Fetch a bundle of `model`, check it, send it to the executors and load it here.

    Raises:
        BundleError: as `find_bundle`.
    """
    local = fetch_bundle(warehouse, model, version)
    bundle = _named(load_bundle(local), version, bundle_uri(warehouse, model, version))
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
    rename_folder(spark, f"{uri}.new", uri)


def settle_folder(spark: SparkSession, uri: str) -> bool:
    """Whether there is a folder `uri`, once what a killed `store_folder` left beside it is in its place."""
    if not path_exists(spark, uri) and path_exists(spark, f"{uri}.new"):
        rename_folder(spark, f"{uri}.new", uri)  # a torn copy, if it was the first: its files tell
    return path_exists(spark, uri)
