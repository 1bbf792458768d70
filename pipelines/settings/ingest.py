"""The `ingest` section of the settings: what drops look like and how they are read; see docs/ingest.md."""

from __future__ import annotations

import codecs
import difflib
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipelines.udfs.times import AUTO, TimeRule, check_format, check_zone
from pipelines.udfs.values import ValueRules

ColumnType = Literal["string", "long", "double", "boolean", "date", "array<string>", "array<double>"]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
NULLS = ("", "null", "\\N", "nan", "none", "<na>", "nat", "n/a", "#n/a")  # whatever the case of the letters


def _encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
        if found.name in ("idna", "punycode") or not isinstance(
            found.decode(found.encode("a,\n")[0])[0], str
        ):
            raise LookupError(name)
        if "a,\n".encode(found.name).decode(found.name) != "a,\n":  # fails for codecs that are not of text
            raise LookupError(name)
        return found.name
    except (LookupError, UnicodeError, TypeError, ValueError):
        raise ValueError(
            f"{name!r} is no text encoding; use a name such as utf-8, latin-1 or cp1252"
        ) from None


def _one_letter(text: str | None) -> str | None:
    if text is not None and len(text) != 1:
        raise ValueError(f"{text!r} is not one character; leave the key out where files have none")
    return text


FROZEN = ConfigDict(frozen=True, extra="forbid")


class TimestampSettings(BaseModel):
    """How the times of events are written."""

    model_config = FROZEN

    # iso, epoch_seconds, epoch_millis, epoch_micros, epoch_nanos, or a pattern such as dd.MM.yyyy HH:mm:ss
    format: Annotated[str, AfterValidator(check_format)] = AUTO


class CsvSettings(BaseModel):
    """The dialect of CSV files: RFC 4180 unless said otherwise."""

    model_config = FROZEN

    delimiter: str = Field(default=",", min_length=1)  # more than one character needs quote: null
    quote: Annotated[str | None, AfterValidator(_one_letter)] = '"'
    escape: Annotated[str | None, AfterValidator(_one_letter)] = None  # null: a quote is doubled
    header: bool | list[str] = True  # or the names of the columns of files that have no header

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.header is False:
            raise ValueError("files without a header need the names of their columns: header: [a, b, c]")
        if isinstance(self.header, list) and (not self.header or len(set(self.header)) < len(self.header)):
            raise ValueError(f"header names each column once: {self.header}")
        letters = [letter for letter in (self.quote, self.escape) if letter]
        if (
            set("\r\n") & {*self.delimiter, *letters}
            or self.delimiter in letters
            or len(set(letters)) < len(letters)
        ):
            raise ValueError("delimiter, quote and escape must differ and be no line breaks")
        if len(self.delimiter) > 1 and self.quote is not None:
            raise ValueError(
                f"the delimiter {self.delimiter!r} has several characters, which needs quote: null"
            )
        return self


class EventDrop(BaseModel):
    """`raw/events`: which source column is which, which rows count, and what makes an event unique."""

    model_config = FROZEN

    user_id: str = "user_id"
    item_id: str = "item_id"
    event_ts: str = "event_ts"
    event_type: str = "event_type"
    session_id: str = "session_id"
    label: str = "label"
    where: str | None = None  # SQL over the source's columns; other rows are counted and left out
    # Source columns that name an event within its day; by default user, item, time, type and session do.
    key: list[str] = []
    count: str | None = None  # source column: how many times the event happened
    # Rows of one drop that are alike: the same event delivered twice, or each an event of its own.
    identical: Literal["once", "each"] = "once"

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.key and self.identical == "each":
            raise ValueError(
                "key names an event, so two rows of one key are one event: leave out identical: each"
            )
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"key names a column twice: {self.key}")
        return self

    def source(self, name: str) -> str:
        """The source column of one of our columns."""
        return str(getattr(self, name))


class EntityDrop(BaseModel):
    """`raw/items` or `raw/users`: which source column is which, and their types."""

    model_config = FROZEN

    source: dict[str, str] = {}  # our column -> source column; others have the same name
    columns: dict[str, ColumnType] = {}
    where: str | None = None  # as of events
    absent: Literal["keep", "remove"] = "keep"  # what becomes of an id that a later drop does not have

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in self.columns:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"the column name {name!r} is not letters, digits and _, beginning with a letter; choose "
                    f"such a name and map it: source: {{my_name: {name!r}}}"
                )
        known = [*self.columns, "item_id", "user_id"]
        for name in self.source:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                raise ValueError(f"source maps {name!r}, which columns does not have; nearest: {near[0]}")
        lower = [name.lower() for name in self.columns]
        if twice := sorted({name for name in lower if lower.count(name) > 1}):
            raise ValueError(
                f"columns differ only in the case of their letters: {twice}; map one to another name"
            )
        return self


class IngestSettings(BaseModel):
    """How drops are read and how much bad input is tolerated."""

    model_config = FROZEN

    format: Literal["parquet", "csv", "json"] = "parquet"
    csv: CsvSettings = CsvSettings()
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"  # of CSV and JSON lines
    # Of CSV and JSON lines; auto: by the ending of the file's name.
    compression: Literal["auto", "none", "gzip", "bz2", "zstd", "lz4"] = "auto"
    timestamp: TimestampSettings = TimestampSettings()
    source_timezone: Annotated[str, AfterValidator(check_zone)] = "UTC"  # of times without an offset
    # By whose midnight the folders ds=YYYY-MM-DD are cut; null: source_timezone.
    folder_timezone: Annotated[str, AfterValidator(check_zone)] | None = None
    null_values: list[str] = list(NULLS)  # text that means null, whatever the case of its letters
    events: EventDrop = EventDrop()
    default_event_type: str = "event"
    late_days: int = Field(default=3, ge=0, le=3650)
    max_rejected_share: float = Field(default=0.01, ge=0.0, le=1.0)
    missing_drop: Literal["fail", "empty"] = "fail"
    items: EntityDrop = EntityDrop()
    users: EntityDrop = EntityDrop()

    @property
    def nulls(self) -> frozenset[str]:
        """Lower-case text that means null; blank text always does."""
        return frozenset({"", *(text.strip().lower() for text in self.null_values)})

    @property
    def rules(self) -> ValueRules:
        """How values are read."""
        return ValueRules(self.nulls, TimeRule(self.timestamp.format, self.source_timezone))

    @property
    def day_zone(self) -> str:
        """The zone whose midnights cut the drop folders."""
        return self.folder_timezone or self.source_timezone
