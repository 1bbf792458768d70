"""What the sections of the settings share: their base class, their error, and the types of common values."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lime_model.errors import LimeError
from pipelines.settings.names import check_name
from pipelines.settings.secrets import check_url, check_variable


class SettingsError(LimeError):
    """The settings file is missing or unreadable, or it says something impossible."""


class Section(BaseModel):
    """The base of all sections: it is frozen and allows neither unknown keys nor infinite numbers.

    The text below each key is its description in docs/configure.md and in conf/settings.schema.json.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def local_path(place: str) -> Path | None:
    """Return a path of the settings as one of this machine; None if it is on another storage.

    As in Hadoop, a `%` in a path is a letter like any other.
    """
    scheme, colon, rest = place.partition(":")
    if not colon:
        return Path(place)
    return Path("/" + rest.lstrip("/")) if scheme == "file" else None


def _refuse_number(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("a date is written as 2017-12-04; a number would be seconds since 1970")
    return value


def _check_path(path: str) -> str:
    if found := next((letter for letter in path if not letter.isprintable()), None):
        raise ValueError(
            f"the path holds the character U+{ord(found):04X}, which no path may have; remove it"
        )
    return check_url(path, "put the keys of the storage into spark.secrets")


Date = Annotated[dt.date, BeforeValidator(_refuse_number)]
Name = Annotated[str, AfterValidator(check_name)]  # the name of a model or a policy
# A local path or any Hadoop URI (`file:`, `hdfs:`, `s3a:`, `abfs:`), without a password and all printable.
StoragePath = Annotated[str, Field(min_length=1), AfterValidator(_check_path)]
Variable = Annotated[str, AfterValidator(check_variable)]  # the name of an environment variable
