"""Check the settings and this machine before anything is computed; no check starts Spark or writes a file.

What a job needs at its start (Java, the jars, the kernel, the store) is found by the functions that the job
itself calls, so a check cannot differ from the job.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import psutil

from lime_model.errors import LimeError
from lime_model.scoring import native
from pipelines.operate.drop_checks import Check, check_drops
from pipelines.settings.base import SettingsError, local_path
from pipelines.settings.settings import Settings, load_settings
from pipelines.store.machine_conf import derive_conf, group_limit
from pipelines.store.session import find_jars, find_java

OLDEST_JAVA: Final = 17
FULL_DISK, SMALL_DISK = 256 << 20, 5 << 30  # bytes: with less, a check fails, or warns
# The jar that reads a storage, by the scheme of its paths.
CONNECTORS: Final = {
    "s3a": "hadoop-aws",
    "abfs": "hadoop-azure",
    "abfss": "hadoop-azure",
    "gs": "gcs-connector",
}
UNITS: Final = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}  # powers of two
GPU_DRIVER: Final = Path("/dev/nvidiactl")


def check_machine(config: str) -> list[Check]:
    """Make all checks; those that need the settings are left out if the settings are not valid."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        faults = [_failed("settings", line) for line in str(error).splitlines()]
        return [*faults, _run("Java", check_java), _run("Delta jars", check_jars)]
    return [
        _check_models(settings, config),
        _run("Java", check_java),
        _run("Delta jars", check_jars),
        check_memory(settings),
        *_check_folders(settings),
        *check_connectors(settings),
        *check_drops(settings),
        check_kernel(settings),
        *_check_secrets(settings),
        *([_run("Redis", lambda: check_redis(settings))] if settings.export.redis else []),
    ]


def explain_slow_scoring(settings: Settings) -> str:
    """Return why pairs will be scored slowly on this machine, in a sentence; empty if they will not."""
    night = settings.night
    if night.backend != "auto" or night.device == "cuda" or (night.device == "auto" and GPU_DRIVER.exists()):
        return ""
    reason = native.why_not()
    return (
        reason and f"torch scores here, which takes about eight times as long as the native kernel: {reason}"
    )


def check_java() -> Check:
    """Check that there is a Java, and that it is new enough.

    Raises:
        NoJava: there is no Java.
    """
    find_java()
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    # JDK_JAVA_OPTIONS makes Java print a line before its version, and may hold options that it refuses.
    environment = {name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"}
    done = subprocess.run([java, "-version"], env=environment, capture_output=True, text=True, check=False)
    found, place = re.search(r'version "(\d+)[^"]*"', done.stderr), shutil.which(java)
    if not found or int(found[1]) < OLDEST_JAVA:
        what = f"is Java {found[1]}" if found else "does not say its version"
        return _failed("Java", f"{place} {what}; install Java {OLDEST_JAVA} or newer, or set JAVA_HOME")
    return Check("Java", "ok", f"{found[0]} at {place}")


def check_jars() -> Check:
    """Check that the Delta jars are there.

    Raises:
        SettingsError: they are not.
    """
    paths = find_jars().get("spark.jars", "").split(",")
    return Check("Delta jars", "ok", ", ".join(Path(path).name for path in paths))


def check_memory(settings: Settings) -> Check:
    """Compare the free memory with what the driver's JVM may take."""
    conf = derive_conf(settings) | settings.spark.conf
    free, wanted = free_memory(), read_size(conf.get("spark.driver.memory", "1g"))
    found = f"{_size(free)} are free, spark.driver.memory is {_size(wanted)}"
    found += "" if "spark.driver.memory" in settings.spark.conf else " (derived)"
    if free < wanted:
        return Check("memory", "warning", found, "stop other programs, or lower spark.driver.memory")
    return Check("memory", "ok", found)


def check_connectors(settings: Settings) -> Iterator[Check]:
    """Check that a session of this machine has the connector of each storage that the settings name."""
    if not derive_conf(settings):  # a cluster or spark-submit brings its own jars
        return
    conf = " ".join(settings.spark.conf.get(key, "") for key in ("spark.jars", "spark.jars.packages"))
    places = (settings.warehouse, settings.drops, settings.bundles)
    for scheme in sorted({place.partition(":")[0] for place in places if ":" in place} & CONNECTORS.keys()):
        package = CONNECTORS[scheme]
        if package in conf:
            yield Check(f"connector {scheme}", "ok", f"the settings name {package}")
        else:
            remedy = f"name its version in spark.conf: spark.jars.packages (org.apache.hadoop:{package}:…)"
            yield Check(
                f"connector {scheme}", "warning", f"{package} is not among the jars of the settings", remedy
            )


def check_kernel(settings: Settings) -> Check:
    """Check whether the native kernel runs here; without it, torch scores."""
    reason = native.why_not()
    if reason and settings.night.backend.startswith("native"):
        return _failed("native kernel", reason)
    if slow := explain_slow_scoring(settings):
        found, _, remedy = slow.partition("; ")
        return Check("native kernel", "warning", found, remedy)
    if reason:
        return Check("native kernel", "ok", f"it is not needed for this backend and device ({reason})")
    return Check("native kernel", "ok", f"it runs here ({native.best_isa()})")


def check_redis(settings: Settings) -> Check:
    """Ask the store that serves lists for an answer.

    Raises:
        LimeError: it gives none, or the variable of its password is not set.
    """
    # Machines without an export to Redis need not have its client.
    from pipelines.export.redis_exporter import RedisExporter
    from pipelines.udfs.store_errors import show_url, store_errors

    assert settings.export.redis is not None
    exporter = RedisExporter(settings.export.redis)
    with store_errors(exporter.store):
        exporter.client.ping()
    return Check("Redis", "ok", f"{show_url(settings.export.redis.url)} answers")


def read_size(text: str) -> int:
    """Return the bytes of a size as Spark writes it, such as `3g`; a number alone is in mebibytes."""
    number, unit = re.findall(r"(\d+)\s*([kmgtp]?)", text.lower())[0]
    return int(number) << UNITS[unit or "m"]


def _check_models(settings: Settings, config: str) -> Check:
    if not settings.models:
        remedy = "describe a model under models"
        return Check(
            "settings", "warning", f"{config} is valid and has no models: only ingest can run", remedy
        )
    names = ", ".join(model.name for model in settings.models)
    return Check("settings", "ok", f"{config} is valid: models {names}; a night uses {settings.night.model}")


def _check_folders(settings: Settings) -> Iterator[Check]:
    places = {"warehouse": settings.warehouse, "bundles": settings.bundles}
    if settings.export.parquet:
        places["export.parquet.path"] = settings.export.parquet.path
    for name, place in places.items():
        yield _check_disk(name, place)


def _check_disk(name: str, place: str) -> Check:
    path = local_path(place)
    if path is None:
        return Check(name, "not checked", f"{place} is not a folder of this machine")
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "may not be written by this user" if there.is_dir() else "is not a folder"
        return Check(name, "failed", f"{there} {what}", f"grant the right, or correct {name}")
    free = shutil.disk_usage(there).free
    found = f"{_size(free)} are free at {place}"
    if free < SMALL_DISK:
        state: Literal["failed", "warning"] = "failed" if free < FULL_DISK else "warning"
        return Check(name, state, found, f"make room, or name another disk in {name}")
    return Check(name, "ok", found)


def _check_secrets(settings: Settings) -> Iterator[Check]:
    for key, variable in settings.spark.secrets.items():
        if variable in os.environ:
            yield Check(f"secret {key}", "ok", "the environment variable that it names is set")
        else:  # the name is not repeated: it may be the secret itself by mistake
            found = f"spark.secrets.{key}: the environment variable that it names is not set"
            yield Check(f"secret {key}", "failed", found, "set it before the command runs")


def _run(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except LimeError as error:
        return _failed(name, str(error))


def _failed(name: str, said: str) -> Check:
    """Return a failed check; the message of an error has its remedy after a semicolon."""
    found, _, remedy = said.partition("; ")
    return Check(name, "failed", found, remedy)


def free_memory() -> int:
    """Return the memory that processes can still take, also inside a container."""
    return min(psutil.virtual_memory().available, group_limit())


def _size(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GiB"
