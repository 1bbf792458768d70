"""Write the settings file: what was found, each with a comment where a person may want to change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipelines.onboard.dialect import Dialect
from pipelines.onboard.entities import Entity
from pipelines.onboard.features import Feature
from pipelines.onboard.looked import Roles

SCHEMA = "# docs/configure.md has every key; what is not here has its default.\n"


@dataclass
class Plan:
    """Everything that the settings file says."""

    source: str  # what a person gave, for the first line
    drops: str
    roles: Roles
    id_types: dict[str, str]
    dialect: Dialect  # of the drops
    zone: str
    folder_zone: str
    items: Entity
    users: Entity
    event_types: list[str]
    training: dict[str, Any]
    night: dict[str, Any]
    where: list[str] = field(default_factory=list)
    why_where: list[str] = field(default_factory=list)
    eligible: str | None = None
    why_eligible: str = ""
    audits: dict[str, Any] = field(default_factory=dict)
    each: bool = False  # whether identical rows are events of their own
    missing_days: int = 0


def write_settings(plan: Plan) -> str:
    """Return the text of the settings file."""
    parts = [
        f"# Written by `lime init {plan.source}`.\n{SCHEMA}",
        _line("warehouse", "warehouse", "the tables"),
        _line("drops", plan.drops),
        _line("bundles", "bundles", "the trained models"),
        _line("ids", plan.id_types),
        "ingest:\n" + _indent(_ingest(plan)),
        "models:\n" + _indent(_model(plan)),
        "night:\n" + _indent(_night(plan)),
    ]
    if plan.audits:
        parts.append(_line("audits", plan.audits, "more users than usual have no events"))
    if plan.items.name:
        parts.append(_line("report", {"item_name": [plan.items.name.name]}, "how pages name an item"))
    return "".join(parts)


def _ingest(plan: Plan) -> str:
    roles, lines = plan.roles, _dialect(plan.dialect)
    if roles.form.format != "iso":
        lines.append(_line("timestamp", {"format": roles.form.format}))
    if not roles.form.zoned:
        lines.append(_line("source_timezone", plan.zone, "of times, which say no offset"))
    if plan.folder_zone != (plan.zone if not roles.form.zoned else "UTC"):
        lines.append(_line("folder_timezone", plan.folder_zone, "whose midnights cut the folders of days"))
    if plan.missing_days:
        lines.append(_line("missing_drop", "empty", f"{plan.missing_days:,} days have no folder"))
    lines.append("events:\n" + _indent(_events(plan)))
    if not roles.event_type and plan.event_types != ["event"]:
        lines.append(_line("default_event_type", plan.event_types[0]))
    for entity, key in ((plan.items, "item_id"), (plan.users, "user_id")):
        if entity.table is not None or entity.columns:
            comment = f"# features that follow from the {key} of events\n" if entity.derived else ""
            lines.append(comment + f"{entity.source}:\n" + _indent(_entity(entity, key)))
    return "".join(lines)


def _dialect(dialect: Dialect) -> list[str]:
    if dialect.format == "parquet":
        return []
    lines = [_line("format", dialect.format)]
    if dialect.format == "csv":
        csv: dict[str, Any] = {}
        if dialect.delimiter != ",":
            csv["delimiter"] = dialect.delimiter
        if dialect.quote != '"':
            csv["quote"] = dialect.quote
        if dialect.escape:
            csv["escape"] = dialect.escape
        if dialect.header:
            csv["header"] = list(dialect.header)
        lines += [_line("csv", csv)] if csv else []
    if dialect.encoding != "utf-8":
        lines.append(_line("encoding", dialect.encoding))
    return lines


def _events(plan: Plan) -> str:
    roles = plan.roles
    mapped = {
        "user_id": roles.user, "item_id": roles.item, "event_ts": roles.time, "event_type": roles.event_type,
        "session_id": roles.session, "label": roles.label,
    }  # fmt: skip
    lines = [_line(ours, source) for ours, source in mapped.items() if source]
    if plan.where:
        lines += [f"# {why}\n" for why in plan.why_where]
        lines.append(_line("where", " AND ".join(plan.where)))
    if plan.each:
        lines.append(
            _line("identical", "each", "rows that are alike in all but the label are events of their own")
        )
    return "".join(lines)


def _entity(entity: Entity, key: str) -> str:
    source = {key: entity.key} if entity.key != key else {}
    source |= {feature.name: feature.source for feature in entity.columns if feature.name != feature.source}
    lines = [_line("source", source)] if source else []
    if entity.columns:
        lines.append(_line("columns", {feature.name: feature.type for feature in entity.columns}))
    return "".join(lines) or "absent: keep\n"


def _model(plan: Plan) -> str:
    config: dict[str, Any] = {"variant": "lime-mha"}
    if plan.roles.label:
        config["labelled"] = True
    config["event_types"] = plan.event_types
    for side, entity in (("item_columns", plan.items), ("user_columns", plan.users)):
        if entity.features:
            config[side] = [_column(feature) for feature in entity.features]
    lines = [_line("- name", "lime")]
    for key, value in plan.training.items():
        comment = "it learns the label of every event" if key == "labels" else ""
        lines.append("  " + _line(key, value, comment))
    return "".join(lines) + "  config:\n" + _indent(_indent("".join(_line(k, v) for k, v in config.items())))


def _column(feature: Feature) -> Any:
    if feature.kind == "category":
        return feature.name
    size = {"size": feature.size} if feature.size else {}
    return {"name": feature.name, "kind": feature.kind, **size}


def _night(plan: Plan) -> str:
    lines = [_line("model", "lime"), *(_line(key, value) for key, value in plan.night.items())]
    if plan.eligible:
        lines.append(f"policy:\n  # {plan.why_eligible}\n  " + _line("eligible", plan.eligible))
    return "".join(lines)


def _line(key: str, value: Any, comment: str = "") -> str:
    return f"{key}: {flow(value)}" + (f" # {comment}" if comment else "") + "\n"


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def flow(value: Any) -> str:
    """Write a value on one line of YAML, as the settings read it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    text = yaml.safe_dump(value, width=10**9, allow_unicode=True, default_flow_style=True).strip()
    return text.removesuffix("\n...").strip()
