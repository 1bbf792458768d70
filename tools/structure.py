"""Measure how the packages are built, and compare the measures with their limits.

    python tools/structure.py [ROOT] [--packages NAME ...] [--check]

A room is a folder that holds code. The parts of a package are its rooms and the modules that lie in its own
folder. An arrow is a distinct import between two parts, or between two modules, of one package; imports
inside functions count. The floors of a package are the parts on its longest chain of imports. A circle is a
group of parts, or of modules, that all import each other, directly or through others.

The limits are in `[tool.lime.structure]` of ROOT's pyproject.toml. With `--check` the exit code is 1 if a
measure is over its limit.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from import_graph import (
    Documented,
    Function,
    Module,
    body_without_docstring,
    find_circles,
    imports_of,
    longest_chain,
    parts_of,
    read_modules,
)

PACKAGES = ("lime_model", "pipelines", "jobs", "dags")
LONGEST_FUNCTION = 40  # lines of its body
MOST_PARAMETERS = 6
MOST_WITHOUT_ARGS = 2  # parameters that a public function may have without a section `Args:`
LONGEST_FILE = 250  # lines
# A sentence that begins with one of these is most often the rest of a sentence.
FRAGMENT_WORDS = {
    *("Also", "And", "As", "But", "By", "For", "From", "Likewise", "Of", "Or", "Same", "See", "Than", "Then"),
    *("Those", "To", "With", "Without"),
}
# The measures of the table, in its order; the table reads each name with spaces.
COUNTS = ("rooms", "floors", "arrows_between_parts", "arrows_between_modules")
FAULTS = (
    "circles_of_parts",
    "circles_of_modules",
    "long_functions",
    "many_parameters",
    "long_files",
    "missing_args",
    "fragments",
)


@dataclass(frozen=True)
class Report:
    """The measures of one package, and a line for each fault with its place."""

    counts: dict[str, int]
    faults: dict[str, list[str]]

    def value(self, measure: str) -> int:
        """A measure as a number."""
        return self.counts[measure] if measure in self.counts else len(self.faults[measure])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the faults; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--packages", nargs="+", default=PACKAGES, metavar="NAME")
    parser.add_argument("--check", action="store_true", help="fail, and list only what is over its limit")
    options = parser.parse_args(arguments)
    reports = {name: measure_package(options.root, name) for name in options.packages}
    limits = read_limits(options.root)
    exceeded = [name for name in limits if overall(reports, name) > limits[name]]
    for name in exceeded if options.check else FAULTS:
        for report in reports.values():
            for fault in report.faults.get(name, ()):
                print(f"{fault} [{name.replace('_', ' ')}]")
    print(table(reports, limits))
    if not options.check:
        return 0
    for name in exceeded:
        print(f"error: {name.replace('_', ' ')}: {overall(reports, name)}, but the limit is {limits[name]}")
    return 1 if exceeded else 0


def read_limits(root: Path) -> dict[str, int]:
    """Read the limits from pyproject.toml; a checkout without the section has none."""
    path = root / "pyproject.toml"
    settings = tomllib.loads(path.read_text()) if path.exists() else {}
    limits: dict[str, int] = settings.get("tool", {}).get("lime", {}).get("structure", {})
    if unknown := set(limits) - {*COUNTS, *FAULTS}:
        raise SystemExit(f"error: [tool.lime.structure] has limits for unknown measures: {sorted(unknown)}")
    return limits


def overall(reports: Mapping[str, Report], measure: str) -> int:
    """A measure over all packages: their sum, and for floors their maximum."""
    values = [report.value(measure) for report in reports.values()]
    return max(values) if measure == "floors" else sum(values)


def table(reports: Mapping[str, Report], limits: Mapping[str, int]) -> str:
    """Lay out the measures as text, a row for each measure and a column for each package."""
    rows = [["", *reports, "overall", "limit"]]
    for name in (*COUNTS, *FAULTS):
        values = [report.value(name) for report in reports.values()]
        cells = [*values, overall(reports, name), limits.get(name, "-")]
        rows.append([name.replace("_", " "), *map(str, cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        )
        for first, *rest in rows
    )


def measure_package(root: Path, package: str) -> Report:
    """Measure one package; paths in the report are relative to `root`."""
    modules = read_modules(root, package)
    imports = {module.name: imports_of(module, modules) for module in modules.values()}
    parts = parts_of(modules, imports)
    circles = {"circles_of_parts": find_circles(parts), "circles_of_modules": find_circles(imports)}
    faults = {
        name: [f"{package}: {' <-> '.join(group)}" for group in found] for name, found in circles.items()
    }
    faults |= {name: [] for name in FAULTS if name not in circles}
    for module in modules.values():
        path = module.path.relative_to(root)
        for line, name, what in sorted(faults_of(module)):
            faults[name].append(f"{path}:{line}: {what}")
    counts = {
        "rooms": len({module.room for module in modules.values() if not module.is_empty}),
        "floors": longest_chain(parts),
        "arrows_between_parts": sum(map(len, parts.values())),
        "arrows_between_modules": sum(map(len, imports.values())),
    }
    return Report(counts, faults)


def faults_of(module: Module) -> Iterator[tuple[int, str, str]]:
    """Yield the faults of one file as a line number, the measure and a description."""
    lines = len(module.text.splitlines())
    if lines > LONGEST_FILE:
        yield 1, "long_files", f"{lines} lines"
    for node, name, public in documented(module):
        if isinstance(node, Function):
            yield from function_faults(node, name, public)
        text = ast.get_docstring(node)
        if text is not None and (why := why_fragment(text)):
            yield node.body[0].lineno, "fragments", f"{name}: {why}"


def documented(module: Module) -> Iterator[tuple[Documented, str, bool]]:
    """Yield a module and all its classes and functions, each with its name and whether it is public."""
    waiting: list[tuple[ast.AST, str, bool]] = [(module.tree, "", True)]
    yield module.tree, module.name, True
    while waiting:
        node, name, public = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | Function):
                own = f"{name}.{child.name}".lstrip(".")
                own_public = public and not child.name.startswith("_")
                yield child, own, own_public
                # Whatever is defined inside a function is not public.
                waiting.append((child, own, own_public and isinstance(child, ast.ClassDef)))
            else:
                waiting.append((child, name, public))


def function_faults(node: Function, name: str, public: bool) -> Iterator[tuple[int, str, str]]:
    """Yield the faults of one function: its length, its parameters and its documentation.

    Args:
        node: the function.
        name: its name with the classes around it.
        public: whether others may call it, so that its arguments need to be documented.
    """
    body = body_without_docstring(node)
    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    if lines > LONGEST_FUNCTION:
        yield node.lineno, "long_functions", f"{name}: {lines} lines"
    count = count_parameters(node)
    if count > MOST_PARAMETERS:
        yield node.lineno, "many_parameters", f"{name}: {count} parameters"
    if public and count > MOST_WITHOUT_ARGS and "Args:" not in (ast.get_docstring(node) or ""):
        yield node.lineno, "missing_args", f"{name}: {count} parameters and no section `Args:`"


def count_parameters(node: Function) -> int:
    """Count the parameters of a function without `self` and `cls`."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
    return sum(parameter.arg not in ("self", "cls") for parameter in named)


def why_fragment(text: str) -> str:
    """Return why a docstring's first sentence seems to be a fragment; empty if it does not.

    The heuristic knows no grammar: a sentence is a fragment if it begins with one of `FRAGMENT_WORDS`, has
    only one or two words, or lacks its full stop. A heading before a colon belongs to its sentence.
    """
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?;])\s", paragraph, maxsplit=1)[0]
    words = sentence.split()
    if words and words[0].rstrip(",.:") in FRAGMENT_WORDS:
        return f'it begins with "{words[0]}"'
    if len(words) <= 2:
        return f'"{sentence}" is not a sentence'
    if paragraph[-1] not in ".!?:":
        return "it has no full stop"
    return ""


if __name__ == "__main__":
    sys.exit(main())
