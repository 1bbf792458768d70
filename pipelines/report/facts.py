"""The facts that make up the status of a warehouse."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from pydantic import BaseModel

from pipelines.report.night_report import NightReport


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and what to do about it."""

    level: Literal["fault", "warning"]
    what: str
    remedy: str


@dataclass(frozen=True)
class Champion:
    """The bundle that nights of a model use."""

    model: str
    model_version: str
    since: str  # the first night of which it was champion
    age_days: int  # days from then to the newest night
    reason: str


@dataclass(frozen=True)
class Export:
    """The newest export to one place that the settings name."""

    place: str
    run_id: str | None  # None: nothing was ever exported there
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TableSize:
    """How much of the disk the live files of a table use, without files that only older versions hold."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Status:
    """What the tables of a warehouse say about its last nights."""

    warehouse: str
    nights: tuple[NightReport, ...]  # at most `LAST_NIGHTS`, the newest first
    recorded: int  # the number of all nights that the warehouse knows
    served: str | None  # the newest night that has lists in force
    champions: tuple[Champion, ...]
    exports: tuple[Export, ...]
    tables: tuple[TableSize, ...]
    problems: tuple[Problem, ...]  # faults first, then warnings
    next_step: str = ""  # for a warehouse without nights: what to do, in one sentence

    def to_json(self) -> str:
        """Return all values as one JSON object for programs; a number that is not finite is a text."""
        return json.dumps(_plain(self), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value as plain data that JSON can hold."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
