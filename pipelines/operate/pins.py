"""Pin published nights, so that they and everything that they were computed from stay readable.

A pin is a row of `runs` with the run that is in force on a night and the Delta versions that its jobs read
and wrote. Upkeep removes no file that a pinned version holds (`upkeep.py`), and Delta keeps the log entries
that it needs to read the version. Forgetting a person releases every pin.
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
OF_THE_NIGHT = ("item_bias", "staging", "recommendations")  # tables of which a night needs only its own part
BUILDERS = (BankManifest, StatesManifest, ScoreManifest)


class NothingToPin(LimeError):
    """The night has no published lists, or no pin to release."""


class PinLost(LimeError):
    """A pinned version can't be read any more, so it is unknown which files it holds."""


class Pin(NamedTuple):
    """The versions that a run read and wrote, by table."""

    run_id: str
    ds: str
    versions: dict[str, int]


class Released(NamedTuple):
    """The ids of the runs whose pins were released, and the reason."""

    released: list[str]
    reason: str


def find_pins(warehouse: Warehouse) -> list[Pin]:
    """Return the pins that were not released, the oldest night first."""
    done = find_manifests(warehouse, PinManifest)
    pins = [Pin(d.run_id, d.ds, d.manifest.versions) for d in done if not d.manifest.released]
    return sorted(pins, key=lambda pin: (pin.run_id, pin.ds))


def describe_run(warehouse: Warehouse, night: str) -> Pin:
    """Return the run whose lists are in force on a night, with the versions that it read and wrote.

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

    Args:
        warehouse: the warehouse that contains the night.
        night: the date of the night (YYYY-MM-DD).
        reason: a text that is recorded with the pin.

    Raises:
        NothingToPin: no lists are in force, or files that they were computed from were removed.
        PinLost: Delta can't read a version that they were computed from.
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
    """Count the missing files of a pinned version, except those of other nights and runs."""
    mine = {DS: f"/{DS}={pin.ds}/", RUN_ID: f"/{RUN_ID}={pin.run_id}/"}
    partitions = TABLES[name].partitions if name in OF_THE_NIGHT else ()
    own = [mine[column] for column in partitions if column in mine]
    wanted = files_of(warehouse, name, pin.versions[name], own[0] if own else "")
    there = list_files(warehouse, name).select(F.substring_index("path", "/", -1)).collect()
    return len(wanted - {row[0] for row in there})


def files_of(warehouse: Warehouse, name: str, version: int, part: str = "") -> set[str]:
    """Return the names of the Parquet files of a version, without their folders.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table.
        version: the Delta version of the table.
        part: a text that the path of a file must contain, such as `/ds=2024-05-10/`; by default any path.

    Raises:
        PinLost: Delta can't read the version.
    """
    try:
        uris = warehouse.read(name, version).inputFiles()
    except (PySparkException, Py4JJavaError) as error:
        raise PinLost(
            f"table {name}: version {version} is pinned and Delta can't read it any more; no file of it was "
            "removed. Release the pin of the night (lime pin --release), then run this again"
        ) from error
    return {unquote(uri.rsplit("/", 1)[-1]) for uri in uris if part in unquote(uri)}


def list_files(warehouse: Warehouse, name: str) -> DataFrame:
    """List the files under a table's folder with the columns `path`, `modificationTime` and `length`."""
    reader = warehouse.spark.read.format("binaryFile").options(recursiveFileLookup="true", **NO_GLOB)
    return reader.load(warehouse.path(name))


def release_night(warehouse: Warehouse, night: str, reason: str) -> Released:
    """Release the pins of a night, so that the next upkeep may remove the files that only they needed.

    Args:
        warehouse: the warehouse that contains the night.
        night: the date of the night (YYYY-MM-DD).
        reason: a text that is recorded with the pins.

    Raises:
        NothingToPin: the night has no pin.
    """
    mine = [pin for pin in find_pins(warehouse) if pin.ds == night]
    if not mine:
        others = sorted({pin.ds for pin in find_pins(warehouse)})
        raise NothingToPin(f"night {night} is not pinned; pinned nights: {others}")
    release(warehouse, mine, reason)
    return Released([pin.run_id for pin in mine], reason)


def release(warehouse: Warehouse, pins: Iterable[Pin], reason: str) -> None:
    """Release pins, and let Delta remove the log entries and files that no other pin needs.

    Args:
        warehouse: the warehouse that contains the pinned tables.
        pins: the pins to release.
        reason: a text that is recorded with the pins.
    """
    ended = list(pins)
    for pin in ended:
        manifest = PinManifest(run_id=pin.run_id, versions=pin.versions, reason=reason, released=True)
        record(warehouse, pin.run_id, pin.ds, manifest)
    needed = {name for pin in find_pins(warehouse) for name in pin.versions}
    for name in sorted({name for pin in ended for name in pin.versions} - needed):
        set_properties(warehouse, name, {LOG: None, FILES: None})


def set_properties(warehouse: Warehouse, name: str, wanted: Mapping[str, str | None]) -> None:
    """Set properties of a table, without a commit if they already have these values.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table; a table that has not been written is ignored.
        wanted: values by the name of the property; None restores Delta's default.
    """
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
