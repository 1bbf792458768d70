"""Find every error that can end a job, and the sentences that say it, in the sources and tables of the code.

Sentences are read from the syntax tree, so no error has to occur: `…` marks each value in an f-string.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from import_graph import Module, read_modules

PACKAGES = ("lime_model", "pipelines", "jobs")
BASE = "LimeError"
VALUE = "…"
FEWEST_LETTERS = 8  # a sentence with fewer, not counting its values, repeats another error's words
# Other errors whose sentences become lines of one of ours: the class, where it is raised, and ours. The last
# entry that fits counts.
PASSED_ON = (
    ("Fault", "pipelines.ingest.", "DropError"),
    ("FileFault", "pipelines.udfs.", "DropError"),
    ("ValueError", "pipelines.settings.", "SettingsError"),
    ("ValueError", "pipelines.settings.names.check_run_key", "BadRunKey"),
    ("ValueError", "pipelines.udfs.times.check_zone", "SettingsError"),
    ("ValueError", "pipelines.udfs.times.to_python", "SettingsError"),
    ("ValueError", "lime_model.config.", "SettingsError"),
    ("ValueError", "lime_model.recipe.", "SettingsError"),
)


@dataclass(frozen=True)
class Kind:
    """A class of errors."""

    name: str
    module: Module
    base: str
    about: str
    own_remedy: str  # empty if it is that of the base


@dataclass(frozen=True, order=True)
class Sentence:
    """What an error says."""

    room: str
    path: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Errors:
    """All classes of errors with what their `remedy` is, and all sentences in the order of the rooms."""

    kinds: Mapping[str, Kind]
    remedies: Mapping[str, str]
    sentences: list[Sentence]


def find_errors(root: Path) -> Errors:
    """Find the errors of a checkout."""
    modules = [module for package in PACKAGES for module in read_modules(root, package).values()]
    kinds = _find_kinds(modules)
    remedies = {name: _remedy(kinds, name) for name in kinds}
    kinds = {name: kind for name, kind in kinds.items() if name != BASE}
    sentences = {found for module in modules for found in _find_sentences(module, kinds, root)}
    return Errors(kinds, remedies, sorted(sentences))


def read_constant(path: Path, name: str) -> object:
    """Read a constant from a source that would load a heavy package when imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value:
            return ast.literal_eval(node.value)
    raise SystemExit(f"error: {path} has no constant {name} with a type; correct tools/error_page.py")


def _find_kinds(modules: Iterable[Module]) -> dict[str, Kind]:
    """Find the base of our errors and all classes that are made from it, directly or not."""
    classes = [
        (module, node)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    found: dict[str, Kind] = {}
    while True:
        more = {
            node.name: _kind(module, node, base)
            for module, node in classes
            for base in [next((ast.unparse(b) for b in node.bases if ast.unparse(b) in found), "")]
            if node.name not in found and (base or node.name == BASE)
        }
        if not more:
            return found
        found |= more


def _kind(module: Module, node: ast.ClassDef, base: str) -> Kind:
    about = (ast.get_docstring(node) or "").split("\n\n")[0]
    own = ""
    for each in node.body:
        target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
        value = getattr(each, "value", None)
        if isinstance(target, ast.Name) and target.id == "remedy" and isinstance(value, ast.Constant):
            own = str(value.value)
    return Kind(node.name, module, base, " ".join(about.split()), own)


def _remedy(kinds: Mapping[str, Kind], name: str) -> str:
    kind = kinds[name]
    return kind.own_remedy or _remedy(kinds, kind.base)


def _find_sentences(module: Module, kinds: Mapping[str, Kind], root: Path) -> Iterator[Sentence]:
    path = module.path.relative_to(root)
    room = "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]
    helpers = {node.name: node for node in module.tree.body if isinstance(node, ast.FunctionDef)}
    for node in module.tree.body:
        place = f"{module.name}.{getattr(node, 'name', '')}"
        names = {name: name for name in kinds}
        names |= {name: ours for name, where, ours in PASSED_ON if place.startswith(where)}
        for name, call in _find_calls(node, names):
            text = _shorten(": ".join(_render(each, helpers) for each in call.args))
            if len(re.findall(r"\w", text)) >= FEWEST_LETTERS:
                yield Sentence(room, path.as_posix(), call.lineno, name, text)


def _find_calls(tree: ast.stmt, names: Mapping[str, str]) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls that make an error; a class may also fix its sentence by `super().__init__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield names[node.func.id], node
    if isinstance(tree, ast.ClassDef) and tree.name in names:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
                yield names[tree.name], node


def _render(node: ast.expr, helpers: Mapping[str, ast.FunctionDef]) -> str:
    """Write an expression as its literal text, with `…` for everything that only a run knows.

    A call of a helper of the same module is what the helper returns.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_render(part, helpers) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _render(node.left, helpers) + _render(node.right, helpers)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in helpers:
        last = helpers[node.func.id].body[-1]
        return _render(last.value, {}) if isinstance(last, ast.Return) and last.value else VALUE
    return VALUE


def _shorten(text: str) -> str:
    return re.sub(f"{VALUE}+", VALUE, " ".join(text.split()))
