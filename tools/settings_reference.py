"""Describe every key of the settings: as a JSON schema for editors, and as tables for people.

Both come from the classes in `pipelines/settings/` and from the dataclasses of `lime_model` that they embed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipelines.settings.settings import Settings

Node = dict[str, Any]  # a JSON schema, or a part of one

PLAIN = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "of at least {} characters",
}
INTRODUCTION = """# Every key of the settings

`make docs` writes this page and [conf/settings.schema.json](../conf/settings.schema.json) from the
classes that read the settings file.

A job reads one YAML file, which its option `--config` names. [conf/local.yaml](../conf/local.yaml) is an
example; [ingest.md](ingest.md) and [train.md](train.md) explain how to make one for your own log. The
file needs the keys that are *required* below; a required key of a section is needed only where the
section is given. An unknown key is an error that names the nearest known one, and a key that is given
twice is an error too.

- A path is a local path or any Hadoop URI (`file:`, `hdfs:`, `s3a:`, `abfs:`). A relative path counts
  from the folder of the settings file.
- The file holds no secrets. `spark.secrets` and `export.redis.password_env` name the environment
  variables of the driver that hold them.
- `yes`, `no`, `on`, `off`, `true` and `false` are truth values only where the type below says so;
  elsewhere they are text.
- `NAME[]` is a list, and the table has the keys of each of its entries.
- Shares are of 1: `0.01` is one percent.

The first line of the files in `conf/` names the schema. An editor with a YAML language server then
completes keys, shows their descriptions and marks mistakes. The jobs check more than a schema can say,
such as that `ingest` delivers each column that a model reads.
"""


@dataclass(frozen=True)
class Key:
    """A row of a table."""

    path: str
    kind: str
    default: str
    about: str


@dataclass(frozen=True)
class Table:
    """The keys of a section of the settings."""

    path: str  # empty for the top of the file
    about: str
    keys: list[Key]


class _Schema(GenerateJsonSchema):
    """The JSON schema with the defaults that a factory makes, which pydantic leaves out."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        if "default_factory" in schema:
            return schema["default_factory"]()  # type: ignore[call-arg]  # none of ours takes the other values
        return super().get_default_value(schema)


def make_schema() -> Node:
    """Return the JSON schema of a settings file."""
    made: JsonSchemaValue = Settings.model_json_schema(schema_generator=_Schema)
    _tidy(made)
    for side in ("item_columns", "user_columns"):  # `ModelSettings` takes the name of a column for a column
        columns = made["$defs"]["ModelConfig"]["properties"][side]
        columns["items"] = {"anyOf": [{"type": "string"}, columns["items"]]}
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "The settings of LIME", **made}


def write_schema(schema: Node) -> str:
    """Return the text of the schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_page(schema: Node) -> str:
    """Return the text of the page about the settings."""
    parts = [INTRODUCTION]
    for table in make_tables(schema):
        title = f"`{table.path}`" if table.path else "The top of the file"
        rows = [f"| `{key.path}` | {key.kind} | {key.default} | {key.about} |" for key in table.keys]
        head = ["| key | type and limits | default | description |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", table.about, "", *head, *rows, ""]))
    return "\n".join(parts)


def make_tables(schema: Node) -> Iterator[Table]:
    """Yield the table of each section, and each section before those inside it."""
    yield from _tables(schema, schema, "", schema["description"])


def _tables(schema: Node, section: Node, path: str, about: str) -> Iterator[Table]:
    prefix = f"{path}." if path else ""
    needed = section.get("required", ())
    keys = section["properties"].items()
    yield Table(path, about, [_key(prefix + name, node, needed=name in needed) for name, node in keys])
    for name, node in keys:
        for inner, suffix in _sections(node):
            found = schema["$defs"][inner.removeprefix("#/$defs/")]
            yield from _tables(schema, found, prefix + name + suffix, found["description"])


def _key(path: str, node: Node, *, needed: bool) -> Key:
    about = node.get("description")
    if not about:
        raise SystemExit(
            f"error: the settings key {path} has no description of its own; write one below its field, "
            "in other words than the docstring of its section"
        )
    default = "*required*" if needed else "" if _is_section(node) else f"`{_yaml(node['default'])}`"
    return Key(path, _cell(_describe(node)), _cell(default), _cell(about))


def _yaml(value: Any) -> str:
    """Write a default as the settings file would have it; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _is_section(node: Node) -> bool:
    return "$ref" in node


def _sections(node: Node, suffix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the reference of each section that a key can hold, with `[]` if it holds a list of them."""
    if _is_section(node):
        yield node["$ref"], suffix
    for member in node.get("anyOf", ()):
        yield from _sections(member, suffix)
    if "items" in node:
        yield from _sections(node["items"], suffix + "[]")


def _describe(node: Node, *, many: bool = False) -> str:
    """Say in words what a key holds, and within which limits."""
    ending = "s" if many else ""
    if _is_section(node):
        return f"section{ending}"
    if "anyOf" in node:
        return " or ".join(_describe(member, many=many) for member in node["anyOf"])
    if "enum" in node:
        *first, last = (f"`{each}`" for each in node["enum"])
        return f"{', '.join(first)} or {last}" if first else last
    if "prefixItems" in node:
        return f"list of {len(node['prefixItems'])} {_describe(node['prefixItems'][0], many=True)}"
    if "items" in node:
        return f"list of {_describe(node['items'], many=True)}"
    if "additionalProperties" in node:
        return f"mapping of names to {_describe(node['additionalProperties'], many=True)}"
    kind = "date" if node.get("format") == "date" else PLAIN[node["type"]]
    if node.get("minLength") == 1:
        return f"{kind}, not empty"
    if many and node["type"] != "boolean":
        kind += ending
    limits = [words.format(f"{node[name]:,g}") for name, words in LIMITS.items() if name in node]
    return ", ".join([kind, *limits])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _tidy(node: Node) -> None:
    """Drop titles, which repeat the keys, and keep only the first paragraph of descriptions, in one line."""
    node.pop("title", None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split("\n\n")[0].split())
    inner = [*node.get("properties", {}).values(), *node.get("$defs", {}).values(), *node.get("anyOf", ())]
    inner += [node[name] for name in ("items", "additionalProperties") if isinstance(node.get(name), dict)]
    for each in (*inner, *node.get("prefixItems", ())):
        _tidy(each)
