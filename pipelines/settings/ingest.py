"""The `ingest` section of the settings: what drops look like and how they are read.

docs/ingest.md describes it for operators.
"""

from __future__ import annotations

import codecs
import difflib
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipelines.settings.base import Section
from pipelines.udfs.times import AUTO, TimeRule, check_format, check_zone
from pipelines.udfs.values import ValueRules

ColumnType = Literal["string", "long", "double", "boolean", "date", "array<string>", "array<double>"]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
NULLS = ("", "null", "\\N", "nan", "none", "<na>", "nat", "n/a", "#n/a")  # in upper or lower case


def _check_encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
        if found.name in ("idna", "punycode") or not isinstance(
            found.decode(found.encode("a,\n")[0])[0], str
        ):
            raise LookupError(name)
        if "a,\n".encode(found.name).decode(found.name) != "a,\n":  # codecs that do not encode text fail here
            raise LookupError(name)
        return found.name
    except (LookupError, UnicodeError, TypeError, ValueError):
        raise ValueError(
            f"{name!r} is not a text encoding; use a name such as utf-8, latin-1 or cp1252"
        ) from None


def _check_letter(text: str | None) -> str | None:
    if text is not None and len(text) != 1:
        raise ValueError(f"{text!r} is not one character; leave the key out where files have none")
    return text


class TimestampSettings(Section):
    """How the times of events are written."""

    format: Annotated[str, AfterValidator(check_format)] = AUTO
    """The form of times: `iso`, `epoch_seconds`, `epoch_millis`, `epoch_micros`, `epoch_nanos`, or a pattern
    such as `dd.MM.yyyy HH:mm:ss`."""


class CsvSettings(Section):
    """The dialect of CSV files; the defaults are those of RFC 4180."""

    delimiter: str = Field(default=",", min_length=1)
    """The text between two fields; several characters need `quote: null`."""
    quote: Annotated[str | None, AfterValidator(_check_letter)] = '"'
    """The one character around quoted fields; null: no field is quoted."""
    escape: Annotated[str | None, AfterValidator(_check_letter)] = None
    """The one character that escapes a quote in a field; null: such a quote is doubled."""
    header: bool | list[str] = True
    """`true` where files begin with the names of their columns; for other files, the list of these names."""

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


class EventDrop(Section):
    """How to read `raw/events`: the source columns, the rows that count, and what makes an event unique."""

    user_id: str = "user_id"
    """The source column with the id of the user."""
    item_id: str = "item_id"
    """The source column with the id of the item."""
    event_ts: str = "event_ts"
    """The source column with the time of the event."""
    event_type: str = "event_type"
    """The source column with the type of the event, if the source has one."""
    session_id: str = "session_id"
    """The source column with the session (basket, visit) of the event, if the source has one."""
    label: str = "label"
    """The source column with the label of the event (0, 1 or null), if the source has one."""
    where: str | None = None
    """A condition in SQL over source columns; other rows are counted and left out; null: all are read."""
    key: list[str] = Field(default_factory=list)
    """The source columns that identify an event within its day; with none, user, item, time, type and session
    do."""
    count: str | None = None
    """The source column with how many times (1 to 1,000) the event happened; null: once."""
    identical: Literal["once", "each"] = "once"
    """Whether identical rows of a drop are `once` the same event, or `each` an event of its own."""

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
        """The source column that holds one of our columns."""
        return str(getattr(self, name))


class EntityDrop(Section):
    """How to read `raw/items` or `raw/users`: the source columns and their types."""

    source: dict[str, str] = Field(default_factory=dict)
    """The source column of each of our columns that has another name there."""
    columns: dict[str, ColumnType] = Field(default_factory=dict)
    """The columns in addition to the id, each with its type."""
    where: str | None = None
    """A condition in SQL over source columns; other rows are counted and left out; null: all are read."""
    absent: Literal["keep", "remove"] = "keep"
    """Whether an id that a later drop lacks is kept or removed."""

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


class IngestSettings(Section):
    """How drops are read and how much bad input is tolerated."""

    format: Literal["parquet", "csv", "json"] = "parquet"
    """The format of the files of all drops."""
    csv: CsvSettings = CsvSettings()
    """The dialect of CSV files."""
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"
    """The encoding of CSV and JSON lines, by its Python name such as `utf-8` or `cp1252`."""
    compression: Literal["auto", "none", "gzip", "bz2", "zstd", "lz4"] = "auto"
    """The compression of CSV and JSON lines; `auto`: the ending of a file's name says it."""
    timestamp: TimestampSettings = TimestampSettings()
    """How times are written."""
    source_timezone: Annotated[str, AfterValidator(check_zone)] = "UTC"
    """The time zone of times without an offset, such as `Europe/Berlin`."""
    folder_timezone: Annotated[str, AfterValidator(check_zone)] | None = None
    """The time zone whose midnight separates the folders `ds=YYYY-MM-DD`; null: that of `source_timezone`."""
    null_values: list[str] = Field(default_factory=lambda: list(NULLS))
    """The texts that mean null, in upper or lower case; blank text always does."""
    events: EventDrop = EventDrop()
    """How to read `events`."""
    default_event_type: str = "event"
    """The type of events whose row has none."""
    late_days: int = Field(default=3, ge=0, le=3650)
    """The days by which an event may be older than its drop; an older one goes to the quarantine."""
    max_rejected_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """The highest share of bad rows; with a higher one, a load fails."""
    missing_drop: Literal["fail", "empty"] = "fail"
    """Whether a day without a folder fails the load (`fail`) or is a day without rows (`empty`)."""
    items: EntityDrop = EntityDrop()
    """How to read `items`."""
    users: EntityDrop = EntityDrop()
    """How to read `users`."""

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        for source, drop, key in (("items", self.items, "item_id"), ("users", self.users, "user_id")):
            if twice := [name for name in drop.columns if name.lower() == key]:
                raise ValueError(
                    f"{source}.columns has {twice[0]!r}, which is the id of a row and always read; leave it "
                    f"out, or choose another name and map it: source: {{my_name: {twice[0]!r}}}"
                )
        return self

    @property
    def nulls(self) -> frozenset[str]:
        """The text that means null, in lower case; blank text always does."""
        return frozenset({"", *(text.strip().lower() for text in self.null_values)})

    @property
    def rules(self) -> ValueRules:
        """The rules by which values are read."""
        return ValueRules(self.nulls, TimeRule(self.timestamp.format, self.source_timezone))

    @property
    def day_zone(self) -> str:
        """The zone whose midnight separates the drop folders."""
        return self.folder_timezone or self.source_timezone
