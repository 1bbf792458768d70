"""Store bundles on any Hadoop storage, and bring them to the driver and the workers.

The driver fetches and checks a bundle. `SparkContext.addArchive` sends it to the executors (`addFile` takes
no local folder on a cluster), where workers find it by its model version.
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
    """Return the URI of a bundle, or of the folder of all bundles of a model.

    Args:
        warehouse: the warehouse, whose settings name the storage of bundles.
        model: the name of the model.
        version: the model version of the bundle; empty for the folder of all bundles.
    """
    folder = f"{warehouse.settings.bundles.rstrip('/')}/{model}"
    return f"{folder}/{version}" if version else folder


def bundle_exists(spark: SparkSession, uri: str) -> bool:
    """Return whether a complete bundle is stored at `uri`; its checksums are written last."""
    return path_exists(spark, f"{uri}/{CHECKSUMS}")


def fetch_bundle(warehouse: Warehouse, model: str, version: str) -> Path:
    """Copy a bundle to a temporary folder on the driver, and return that folder.

    Args:
        warehouse: the warehouse, whose settings name the storage of bundles.
        model: the name of the model.
        version: the model version of the bundle.

    Raises:
        BundleError: the bundle is missing.
    """
    uri = bundle_uri(warehouse, model, version)
    if not bundle_exists(warehouse.spark, uri):
        raise BundleError(f"no bundle at {uri}; restore it, or train one with lime train --model {model}")
    return fetch_folder(warehouse.spark, uri)


def find_bundle(warehouse: Warehouse, model: str, version: str) -> Bundle:
    """Fetch, check and load a bundle.

    Args:
        warehouse: the warehouse, whose settings name the storage of bundles.
        model: the name of the model.
        version: the model version of the bundle.

    Raises:
        BundleError: the bundle is missing or damaged, or its version is not the one that its folder names.
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
    """Fetch a bundle, check it, send it to the executors and load it on the driver.

    Args:
        warehouse: the warehouse, whose settings name the storage of bundles.
        model: the name of the model.
        version: the model version of the bundle, by which `shipped_folder` finds it.

    Raises:
        BundleError: the bundle is missing or damaged, or its version is not the one that its folder names.
    """
    local = fetch_bundle(warehouse, model, version)
    bundle = _named(load_bundle(local), version, bundle_uri(warehouse, model, version))
    name = f"bundle-{bundle.version}"
    archive = Path(scratch_folder()) / f"{name}.zip"  # each step of a night ships it, from the same path
    if not archive.exists():
        shutil.make_archive(str(archive.with_suffix("")), "zip", local)
    warehouse.spark.sparkContext.addArchive(f"{archive}#{name}")
    return bundle


def shipped_folder(version: str) -> Path:
    """Return the folder where a worker or the driver finds the shipped bundle."""
    return Path(SparkFiles.get(f"bundle-{version}"))


@functools.cache
def scratch_folder() -> str:
    """Return a temporary local folder of this process; it is removed when the process ends."""
    _SCRATCH.append(tempfile.TemporaryDirectory(prefix="lime-"))
    return _SCRATCH[0].name


def fetch_folder(spark: SparkSession, uri: str) -> Path:
    """Copy a Hadoop folder to a new temporary folder on the local disk."""
    path, fs = hadoop_path(spark, uri)
    local = Path(tempfile.mkdtemp(dir=scratch_folder())) / "bundle"
    target, _ = hadoop_path(spark, f"file:{local}")
    fs.copyToLocalFile(False, path, target, True)
    return local


def store_folder(spark: SparkSession, local: Path, uri: str) -> None:
    """Replace a Hadoop folder by a copy of a local folder.

    The copy is made next to `uri` first and then renamed, so a kill leaves no incomplete folder at `uri`.

    Args:
        spark: the session whose storage client copies the folder.
        local: the folder on the driver.
        uri: the folder to replace; it may be missing.

    Raises:
        SparkRefused: the storage refused to rename the copy.
    """
    path, fs = hadoop_path(spark, uri)
    new, _ = hadoop_path(spark, f"{uri}.new")
    source, _ = hadoop_path(spark, f"file:{local}")
    fs.delete(new, True)
    fs.mkdirs(path.getParent())
    fs.copyFromLocalFile(False, True, source, new)
    fs.delete(path, True)
    rename_folder(spark, f"{uri}.new", uri)


def settle_folder(spark: SparkSession, uri: str) -> bool:
    """Finish a `store_folder` that was killed before it renamed its copy; return whether `uri` exists."""
    if not path_exists(spark, uri) and path_exists(spark, f"{uri}.new"):
        rename_folder(spark, f"{uri}.new", uri)  # a first copy may be incomplete; its checksums show that
    return path_exists(spark, uri)
