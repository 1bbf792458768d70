"""The `spark` section of the settings: what ends Spark's own script with a stack trace is refused here."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel

from pipelines.settings.secrets import check_conf, check_variable

MASTER = re.compile(r"local(\[(\*|\d+)(, ?\d+)?\])?|local-cluster\[[\d, ]+\]|yarn|(spark|k8s)://\S+")
SIZE = re.compile(r"\d+\s*[kmgtp]?b?", re.IGNORECASE)
OF_SIZE = re.compile(r"(?i)\.(memory|memoryOverhead|pageSize|maxResultSize|offHeap\.size)$")


def _master(master: str | None) -> str | None:
    """Spark's own script would end in a stack trace."""
    if master is not None and not MASTER.fullmatch(master):
        raise ValueError("Spark knows no such master; use local[*], yarn, spark://HOST:PORT or k8s://URL")
    return master


def _sizes(conf: dict[str, str]) -> dict[str, str]:
    """Likewise."""
    for key, value in conf.items():
        if OF_SIZE.search(key) and not SIZE.fullmatch(value):
            raise ValueError(f"{key} is {value!r}, which is no size; write it like 3g or 512m")
    return conf


class SparkSettings(BaseModel, frozen=True, extra="forbid"):
    """Session configuration; `master` is left to spark-submit when null."""

    master: Annotated[str | None, AfterValidator(_master)] = None
    conf: Annotated[dict[str, str], AfterValidator(check_conf), AfterValidator(_sizes)] = {}
    # Hadoop key -> environment variable of the driver that holds its value, such as
    # {fs.s3a.secret.key: LAKE_SECRET}: never on a command line, never in a log.
    secrets: dict[str, Annotated[str, AfterValidator(check_variable)]] = {}
