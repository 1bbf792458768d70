"""The `spark` section of the settings.

Values that would end Spark's own start script in a stack trace are refused here, in one sentence.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from pipelines.settings.base import Section, Variable
from pipelines.settings.secrets import check_conf

MASTER = re.compile(r"local(\[(\*|\d+)(, ?\d+)?\])?|local-cluster\[[\d, ]+\]|yarn|(spark|k8s)://\S+")
SIZE = re.compile(r"\d+\s*[kmgtp]?b?", re.IGNORECASE)
SIZE_KEY = re.compile(r"(?i)\.(memory|memoryOverhead|pageSize|maxResultSize|offHeap\.size)$")


def _check_master(master: str | None) -> str | None:
    if master is not None and not MASTER.fullmatch(master):
        raise ValueError("Spark knows no such master; use local[*], yarn, spark://HOST:PORT or k8s://URL")
    return master


def _check_sizes(conf: dict[str, str]) -> dict[str, str]:
    for key, value in conf.items():
        if SIZE_KEY.search(key) and not SIZE.fullmatch(value):
            raise ValueError(f"{key} is {value!r}, which is not a size; write it like 3g or 512m")
    return conf


class SparkSettings(Section):
    """The configuration of the Spark session.

    On one machine, what is left out is derived from its cores, its memory and the size of the drops.
    """

    master: Annotated[str | None, AfterValidator(_check_master)] = None
    """The master: `local[*]`, `yarn`, `spark://HOST:PORT` or `k8s://URL`; null: spark-submit decides, or it
    is `local[*]`."""
    conf: Annotated[dict[str, str], AfterValidator(check_conf), AfterValidator(_check_sizes)] = Field(
        default_factory=dict
    )
    """Spark's own configuration by key, without secrets, as it ends up on a command line."""
    secrets: dict[str, Variable] = Field(default_factory=dict)
    """For each Hadoop key, the name of the driver's environment variable that holds its value, such as
    `{fs.s3a.secret.key: LAKE_SECRET}`; the value is never on a command line or in a log."""
