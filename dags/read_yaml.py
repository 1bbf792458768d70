"""Read a YAML file as one mapping, in which no key occurs twice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


class FileFault(Exception):
    """The file is missing or unreadable, or it is no mapping."""


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses a repeated key, of which YAML would silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice; remove one", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(file: str) -> dict[Any, Any]:
    """Read a YAML file whose content is a mapping.

    Raises:
        FileFault: the file can't be read or is no such file; the message says where and what to do.
    """
    try:
        content = yaml.load(Path(file).read_text("utf-8"), _StrictLoader)
    except OSError as error:
        raise FileFault(
            f"{file}: {error.strerror}; correct LIME_TENANTS, or the rights of the file"
        ) from error
    except UnicodeDecodeError as error:
        raise FileFault(f"{file}: it is not text in UTF-8; save it as such") from error
    except yaml.YAMLError as error:
        raise FileFault(
            f"{file}: it is not valid YAML: {' '.join(str(error).split())}; correct it"
        ) from error
    if not isinstance(content, dict):
        raise FileFault(f"{file}: it holds {content!r}, and it must hold keys with values")
    return content


def nearest(key: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` with the known key that is most like a wrong one, or an empty text."""
    like = difflib.get_close_matches(key, sorted(known), n=1)
    return f" (did you mean {like[0]}?)" if like else ""
