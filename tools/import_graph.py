"""The modules of a package, their imports of each other, and the measures of such a graph."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Module:
    """A Python file of a package."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @property
    def is_init(self) -> bool:
        """Whether this is the `__init__.py` of a room."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """The dotted name of the folder."""
        return self.name if self.is_init else self.name.rpartition(".")[0]

    @property
    def part(self) -> str:
        """The room, or in the package's own folder the module itself."""
        return self.room if "." in self.room else self.name

    @property
    def is_empty(self) -> bool:
        """Whether the file holds nothing but a docstring."""
        return not body_without_docstring(self.tree)


def read_modules(root: Path, package: str) -> dict[str, Module]:
    """Read the files of a package, by dotted name."""
    modules = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, path.read_text())
    return modules


def imports_of(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Find the other modules of its package that a module imports."""
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {nearest(alias.name, modules) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: each further dot is one folder up
                above = module.room.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            found |= {nearest(f"{base}.{alias.name}", modules) for alias in node.names}
    return found - {"", module.name}


def nearest(name: str, modules: Mapping[str, Module]) -> str:
    """Return the module that an imported name is or belongs to; empty for another package's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def parts_of(modules: Mapping[str, Module], imports: Graph) -> dict[str, set[str]]:
    """Return the parts of a package that hold code, each with the other parts that it imports from."""
    parts: dict[str, set[str]] = {module.part: set() for module in modules.values() if not module.is_empty}
    for name, targets in imports.items():
        part = modules[name].part
        parts.setdefault(part, set()).update({modules[target].part for target in targets} - {part})
    return parts


def reachable(graph: Graph, start: str) -> set[str]:
    """Return every node that a chain of arrows leads to from `start`."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def find_circles(graph: Graph) -> list[list[str]]:
    """Return each group of two or more nodes that all reach each other."""
    ways = {node: reachable(graph, node) for node in graph}
    groups = {tuple(sorted(other for other in ways[node] if node in ways.get(other, ()))) for node in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def longest_chain(graph: Graph) -> int:
    """Count the nodes of the longest chain of arrows; the nodes of a circle count as one."""
    group = {node: node for node in graph}
    for circle in find_circles(graph):
        group |= dict.fromkeys(circle, circle[0])
    merged: dict[str, set[str]] = {name: set() for name in group.values()}
    for node, targets in graph.items():
        merged[group[node]] |= {group.get(target, target) for target in targets} - {group[node]}
    lengths: dict[str, int] = {}

    def length(node: str) -> int:
        if node not in lengths:
            lengths[node] = 1 + max((length(target) for target in merged.get(node, ())), default=0)
        return lengths[node]

    return max(map(length, merged), default=0)


def body_without_docstring(node: Documented) -> list[ast.stmt]:
    """Return the statements of a node after its docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
