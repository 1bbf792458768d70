"""A digest of code covers everything that the entry module imports, and no list is kept by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lime_model.digests import PACKAGES, code_digest, find_sources, import_closure

ENTRIES = [
    "lime_model.train.fit",
    "pipelines.udfs.encode_items",
    "pipelines.udfs.reduce_states",
    "pipelines.udfs.score_users",
]
LOADED = "import sys, json; __import__(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_closure_holds_whatever_python_loads_for_the_entry(entry: str) -> None:
    """A fresh interpreter imports the entry: no module of ours that it then has may be missing."""
    done = subprocess.run([sys.executable, "-c", LOADED, entry], capture_output=True, text=True, check=True)
    loaded = {name for name in json.loads(done.stdout) if name.startswith(PACKAGES)}
    closure = set(import_closure(entry))
    assert loaded <= closure
    # What the text imports and Python does not: imports inside functions, and for the type checker.
    assert closure - loaded <= {"lime_model.scoring.backends.fused", "lime_model.config"}


def test_a_closure_follows_imports_through_other_modules() -> None:
    assert "lime_model.bundle" in import_closure("lime_model.train.fit")  # its `build_model` shapes a model
    assert "lime_model.model.links" in import_closure("lime_model.train.fit")
    assert "lime_model.peers.din" not in import_closure("lime_model.train.fit")  # a peer decides no bundle
    assert "lime_model.train.fit" not in import_closure("pipelines.udfs.score_users")


def test_modules_outside_the_computing_packages_are_entries_at_most() -> None:
    closure = import_closure("pipelines.score.incremental")
    assert "pipelines.score.incremental" in closure
    assert not [name for name in closure if name.startswith("pipelines.store")]


def test_the_compiled_kernel_is_a_part_of_the_closure_of_scoring() -> None:
    names = [file.name for file in find_sources(import_closure("pipelines.udfs.score_users"))]
    assert {"kernel.cpp", "simd.h"} <= set(names)


@pytest.mark.parametrize("edited", ["train/fit.py", "bundle.py", "model/links.py", "train/losses.py"])
def test_an_edit_of_any_module_of_the_closure_changes_the_digest(edited: str, tmp_path: Path) -> None:
    """A copy of the package, with one comment added, is another code; an edit outside the closure is not."""
    package = Path(__file__).resolve().parent.parent.parent / "lime_model"
    script = "from lime_model.digests import code_digest; print(code_digest('lime_model.train.fit'))"

    def digest_of_copy(name: str, changed: str | None) -> str:
        root = tmp_path / name
        for source in package.rglob("*.py"):
            copy = root / "lime_model" / source.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(source.read_text())
        if changed:
            with (root / "lime_model" / changed).open("a") as file:
                file.write("# edited\n")
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
        return done.stdout.strip()

    same = digest_of_copy("same", None)
    assert same == code_digest("lime_model.train.fit")
    assert digest_of_copy("edited", edited) != same
    assert digest_of_copy("other", "peers/din.py") == same
