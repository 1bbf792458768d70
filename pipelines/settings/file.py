"""Read a YAML file into plain values, and explain in one line each what is wrong with them.

Plain YAML reads `yes` as a truth value, and Python takes a truth value for the number 1. Here a plain `yes`,
`no`, `on`, `off`, `true` or `false` remains text; only a setting that is true or false turns it into a truth
value. A key that is given twice is an error: YAML would silently take the last one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import types
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel

from pipelines.settings.secrets import shown

NEAR = 0.6  # similarity, at most 1; a name that is less similar is not suggested
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
TRUTH = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the two differences that the module's docstring describes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else str(key)
            if name in seen and name != "<<":
                mark = key.start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {name} is given twice", problem_mark=mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _as_written(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    return str(node.value)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != TRUTH]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(TRUTH, _as_written)


def read_yaml(path: str | Path) -> Any:
    """Read the content of a YAML file.

    Raises:
        ValueError: the file can't be read or is not YAML; the message names the file and the place, and
            repeats nothing from the file, which may hold a secret.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)  # _Loader is a SafeLoader
    except FileNotFoundError:
        raise ValueError(
            f"no settings file at {path}; name another one, or write one with lime init DROPS"
        ) from None
    except OSError as error:
        raise ValueError(f"the settings file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{path} is not YAML: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ValueError(f"{path} is not YAML: {said}") from None


def explain_problem(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """Write one of pydantic's errors as one readable line.

    Args:
        model: the class that was validated.
        problem: one entry of `ValidationError.errors()`.
    """
    place: Sequence[str | int] = problem["loc"]
    where = ".".join(str(part) for part in place)
    if problem["type"] not in UNKNOWN:
        said = str(problem["msg"]).removeprefix("Value error, ")
        said += (
            "; put it in quotes" if problem["type"] == "string_type" and _is_plain(problem["input"]) else ""
        )
        return f"{where}: {said}{shown(where, problem['input'])}" if where else said
    known = known_keys(model, place[:-1])
    return f"{where}: unknown key; {suggest(str(place[-1]), known, 'known key')}"


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float | dt.date)


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """Suggest the nearest of the known names, or list all of them when none is near.

    Args:
        name: the name that is not known.
        known: the names that are.
        what: the word for such a name, such as `column`.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=NEAR)
    return f"nearest {what}: {near[0]}" if near else f"{what}s here: {', '.join(names) or 'none'}"


def known_keys(model: type, place: Sequence[str | int]) -> list[str]:
    """List the keys of the section at a place.

    Args:
        model: the class of the complete file.
        place: the location of the section, in the form of pydantic's errors.
    """
    kinds: list[Any] = [model]
    for part in place:
        # A part that leads nowhere is pydantic's label for a member of a union; the section stays the same.
        kinds = [inner for kind in kinds for inner in _inside(kind, part)] or kinds
    fields = [set(_fields(kind)) for kind in kinds]
    return sorted(set[str]().union(*fields))


def _inside(kind: Any, part: str | int) -> list[Any]:
    """The types that a section, list or mapping holds at a key or index."""
    if isinstance(part, str) and part in (fields := _fields(kind)):
        return _members(fields[part])
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(part, int) and origin in (list, tuple):
        return _members(inner[0])
    return _members(inner[1]) if origin is dict and len(inner) == 2 else []


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without `Annotated` and without unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for each in get_args(annotation) for member in _members(each)]
    return [annotation]


def _fields(kind: Any) -> dict[str, Any]:
    """The annotations of a section or a dataclass by key."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return get_type_hints(kind)
    return {}
