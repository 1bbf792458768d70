"""Digests of code: rows and models that other code has computed do not count as unchanged.

A digest covers the import closure of an entry module, and nobody lists it by hand: the module itself and all
modules that it imports, directly or not, in the packages that compute. Modules that only move rows (tables,
storage, sessions) lie outside these packages, so that editing them costs no recomputation.

    code_digest("lime_model.train.fit")     # covers everything that decides the bits of a trained model
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

PACKAGES = ("lime_model", "pipelines.udfs", "pipelines.policies")  # their modules compute
COMPILED = (".cpp", ".h")  # sources in the folder of a package that compiles them


@functools.cache
def code_digest(*entries: str) -> str:
    """Return a name for the code of some entry modules and of everything that they import.

    Args:
        entries: dotted names of modules, in any package of this project.

    Returns:
        The first 16 hexadecimal digits of a SHA-256 over the names and texts of all files.
    """
    return source_digest(find_sources(import_closure(*entries)))


def import_closure(*entries: str) -> list[str]:
    """List the modules that entry modules import, directly or not, themselves included, in order of name.

    Imports inside functions and under `TYPE_CHECKING` count too. Imports of modules outside `PACKAGES` are
    not followed.

    Args:
        entries: dotted names of modules; they may lie outside `PACKAGES`.
    """
    found: set[str] = set()
    waiting = [*entries, *(each for entry in entries for each in _with_packages(entry) if _computes(each))]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += filter(_computes, _imports(module))
    return sorted(found)


def find_sources(modules: Iterable[str]) -> list[Traversable]:
    """Find the source files of modules, and the sources that packages compile, in the order of the modules.

    They may lie in a folder or in the zip that spark-submit ships.
    """
    sources: list[Traversable] = []
    for module in modules:
        file = _find_source(module)
        assert file is not None, module
        sources.append(file)
        if file.name == "__init__.py":
            neighbours = files(module).iterdir()
            sources += sorted((f for f in neighbours if f.name.endswith(COMPILED)), key=lambda f: f.name)
    return sources


def source_digest(sources: Iterable[Traversable]) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over the names and texts of some files, in order."""
    digest = hashlib.sha256()
    for file in sources:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _computes(module: str) -> bool:
    """Whether a module lies in one of `PACKAGES`."""
    return any(module == package or module.startswith(f"{package}.") for package in PACKAGES)


def _imports(module: str) -> Iterator[str]:
    """Name the modules of this project that a module's text imports, with the packages that they lie in."""
    source = _find_source(module)
    assert source is not None, module
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"  # a module of a package, or a name in a module
                yield from _with_packages(inner if _find_source(inner) else node.module)


def _with_packages(module: str) -> Iterator[str]:
    """Yield a module of this project after the packages whose `__init__` Python runs before it."""
    parts = module.split(".")
    if _find_source(module):
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


@functools.cache
def _find_source(module: str) -> Traversable | None:
    """Return the file of a module of this project; None for any other name."""
    package, *rest = module.split(".")
    if package not in ("lime_model", "pipelines"):
        return None
    folder: Traversable = files(package)
    for part in rest[:-1]:
        folder = folder / part
    inner = folder / rest[-1] if rest else folder
    plain = folder / f"{rest[-1]}.py" if rest else None
    if plain is not None and plain.is_file():
        return plain
    return inner / "__init__.py" if (inner / "__init__.py").is_file() else None
