"""Pins: published nights that stay readable, with all that they were computed from, however old.

A pin is a row of `runs`: the run that is in force on a night and the Delta versions that its jobs pinned.
Upkeep removes no file that a pinned version holds (`upkeep.py`), and Delta keeps what it needs to read one.
Forgetting a person releases every pin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.publish.night_record import read_state
from pipelines.schemas import DS, RUN_ID, TABLES
from pipelines.store.manifests import BankManifest, PinManifest, ScoreManifest, StatesManifest
from pipelines.store.predicates import literal, table_name
from pipelines.store.runs import find_manifest, find_manifests, record
from pipelines.store.storage import NO_GLOB
from pipelines.store.tables import Warehouse

LOG = "delta.logRetentionDuration"
FILES = "delta.deletedFileRetentionDuration"
FOR_EVER = "interval 36500 days"
OF_THE_NIGHT = ("item_bias", "staging", "recommendations")  # tables of which a night needs its own part
BUILDERS = (BankManifest, StatesManifest, ScoreManifest)


class NothingToPin(LimeError):
    """The night has no published lists, or no pin to release."""


class PinLost(LimeError):
    """A pinned version can't be read any more, so nobody knows which files it holds."""


class Pin(NamedTuple):
    """What a run read and wrote, by table."""

    run_id: str
    ds: str
    versions: dict[str, int]


class Released(NamedTuple):
    """Runs whose pins have ended, and the reason."""

    released: list[str]
    reason: str


def find_pins(warehouse: Warehouse) -> list[Pin]:
    """Pins that were not released, the oldest night first."""
    done = find_manifests(warehouse, PinManifest)
    pins = [Pin(d.run_id, d.ds, d.manifest.versions) for d in done if not d.manifest.released]
    return sorted(pins, key=lambda pin: (pin.run_id, pin.ds))


def describe_run(warehouse: Warehouse, night: str) -> Pin:
    """The run whose lists are in force, with the versions of what it read and wrote.

    Raises:
        NothingToPin: no lists are in force.
    """
    state = read_state(warehouse, night)
    run_id = state.in_force
    if run_id is None:
        why = (
            "was taken back" if state.commits else "was never published, or Delta's log does not say any more"
        )
        raise NothingToPin(f"night {night}: no lists are published (it {why}); publish it first")
    versions: dict[str, int] = {}
    kinds: tuple[type[BankManifest | StatesManifest | ScoreManifest], ...] = BUILDERS
    for kind in kinds:
        if built := find_manifest(warehouse, run_id, kind):
            versions |= built.versions
    return Pin(run_id, night, {**versions, "recommendations": state.served[run_id].version})


def pin_night(warehouse: Warehouse, night: str, reason: str) -> PinManifest:
    """Keep the run that is in force on a night readable.

    Raises:
        NothingToPin: no lists are in force, or files of what they were computed from are gone.
    """
    pin = describe_run(warehouse, night)
    for name, version in sorted(pin.versions.items()):
        if version >= 0 and (gone := _lost(warehouse, pin, name)):
            raise NothingToPin(
                f"night {night}: {gone} files of table {name} at version {version} are gone (older than "
                "upkeep.keep_days, or a person was forgotten since); nothing was pinned. Score the night "
                "again under a new --run-key, and pin that"
            )
    for name in sorted(pin.versions):
        set_properties(warehouse, name, {LOG: FOR_EVER, FILES: FOR_EVER})
    manifest = PinManifest(run_id=pin.run_id, versions=pin.versions, reason=reason, released=False)
    record(warehouse, pin.run_id, night, manifest)
    return manifest


def _lost(warehouse: Warehouse, pin: Pin, name: str) -> int:
    """Files of a pinned version that are not there, but for those of other nights and runs."""
    mine = {DS: f"/{DS}={pin.ds}/", RUN_ID: f"/{RUN_ID}={pin.run_id}/"}
    partitions = TABLES[name].partitions if name in OF_THE_NIGHT else ()
    own = [mine[column] for column in partitions if column in mine]
    wanted = files_of(warehouse, name, pin.versions[name], own[0] if own else "")
    there = list_files(warehouse, name).select(F.substring_index("path", "/", -1)).collect()
    return len(wanted - {row[0] for row in there})


def files_of(warehouse: Warehouse, name: str, version: int, part: str = "") -> set[str]:
    """Names of a version's Parquet files whose path holds `part`.

    Raises:
        PinLost: Delta can't read the version.
    """
    try:
        uris = warehouse.read(name, version).inputFiles()
    except (PySparkException, Py4JJavaError) as error:
        raise PinLost(
            f"table {name}: version {version} is pinned and Delta can't read it any more; no file of it was "
            "removed. Release the pin of the night (jobs/pin_night.py --release), then run this again"
        ) from error
    return {unquote(uri.rsplit("/", 1)[-1]) for uri in uris if part in unquote(uri)}


def list_files(warehouse: Warehouse, name: str) -> DataFrame:
    """Data files under a table's folder: path, modificationTime, length."""
    reader = warehouse.spark.read.format("binaryFile").options(recursiveFileLookup="true", **NO_GLOB)
    return reader.load(warehouse.path(name))


def release_night(warehouse: Warehouse, night: str, reason: str) -> Released:
    """End the pins of a night: the next upkeep may remove what only they needed.

    Raises:
        NothingToPin: none stands.
    """
    mine = [pin for pin in find_pins(warehouse) if pin.ds == night]
    if not mine:
        others = sorted({pin.ds for pin in find_pins(warehouse)})
        raise NothingToPin(f"night {night} is not pinned; pinned nights: {others}")
    release(warehouse, mine, reason)
    return Released([pin.run_id for pin in mine], reason)


def release(warehouse: Warehouse, pins: Iterable[Pin], reason: str) -> None:
    """End pins, and let Delta remove what no other pin needs.

    Args:
        warehouse: that holds the pinned tables.
        pins: to end.
        reason: is kept with the pins.
    """
    ended = list(pins)
    for pin in ended:
        manifest = PinManifest(run_id=pin.run_id, versions=pin.versions, reason=reason, released=True)
        record(warehouse, pin.run_id, pin.ds, manifest)
    needed = {name for pin in find_pins(warehouse) for name in pin.versions}
    for name in sorted({name for pin in ended for name in pin.versions} - needed):
        set_properties(warehouse, name, {LOG: None, FILES: None})


def set_properties(warehouse: Warehouse, name: str, wanted: Mapping[str, str | None]) -> None:
    """Bring properties of a table to these values, None: to Delta's own; no commit where they are."""
    if not warehouse.exists(name):
        return
    found = warehouse.delta(name).detail().collect()[0]["properties"]
    table = table_name(warehouse.path(name))
    new = [
        f"{literal(key)} = {literal(value)}"
        for key, value in wanted.items()
        if value and found.get(key) != value
    ]
    old = [literal(key) for key, value in wanted.items() if value is None and key in found]
    for verb, what in (("SET", new), ("UNSET", old)):
        if what:
            warehouse.spark.sql(f"ALTER TABLE {table} {verb} TBLPROPERTIES ({', '.join(what)})")
