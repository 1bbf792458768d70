"""The structure report finds each fault of a small package, and its check fails above a limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LONG = "\n".join(f"    x = {line}" for line in range(41))
FILES = {
    "__init__.py": '"""A tiny package."""\n',
    "kitchen/__init__.py": "",
    "kitchen/cook.py": f'''"""Cooking needs a table."""
from tiny.hall import table


def cook(a, b, c, *, d, e, f, g):
    """Cook a meal."""
{LONG}
''',
    "hall/__init__.py": "",
    "hall/table.py": '''"""For guests."""


def lay(self, plates):
    """Lay the table.

    The function needs its neighbour only when it runs.
    """
    from ..kitchen import cook

    return cook
''',
    "cellar.py": '"""The cellar holds wine."""\nfrom tiny.kitchen.cook import cook\n',
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkout with one package, whose two rooms import each other."""
    for name, text in FILES.items():
        path = tmp_path / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def measure(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tool on the package."""
    command = [sys.executable, str(ROOT / "tools" / "structure.py"), str(root), "--packages", "tiny"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def row(output: str, measure: str) -> list[str]:
    """Return the values of one row of the table."""
    line = next(line for line in output.splitlines() if line.startswith(measure))
    return line.removeprefix(measure).split()


def test_each_fault_is_found_in_its_place(tiny: Path) -> None:
    done = measure(tiny)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:6] == [
        "tiny: tiny.hall <-> tiny.kitchen [circles of parts]",
        "tiny: tiny.hall.table <-> tiny.kitchen.cook [circles of modules]",
        "tiny/kitchen/cook.py:5: cook: 41 lines [long functions]",
        "tiny/kitchen/cook.py:5: cook: 7 parameters [many parameters]",
        "tiny/kitchen/cook.py:5: cook: 7 parameters and no section `Args:` [missing args]",
        'tiny/hall/table.py:1: tiny.hall.table: it begins with "For" [fragments]',
    ]
    assert row(done.stdout, "rooms") == ["3", "3", "-"]
    assert row(done.stdout, "floors") == ["2", "2", "-"]  # the cellar, above the two rooms in a circle
    assert row(done.stdout, "arrows between parts") == ["3", "3", "-"]
    assert row(done.stdout, "fragments") == ["1", "1", "-"]


@pytest.mark.parametrize(("limit", "code"), [(0, 1), (1, 0)])
def test_the_check_fails_where_a_limit_is_exceeded(tiny: Path, limit: int, code: int) -> None:
    (tiny / "pyproject.toml").write_text(f"[tool.lime.structure]\nfragments = {limit}\nlong_files = 0\n")
    done = measure(tiny, "--check")
    assert done.returncode == code
    assert ("error: fragments: 1, but the limit is 0" in done.stdout) == bool(code)
    assert ("tiny/hall/table.py:1" in done.stdout) == bool(code)


def test_a_limit_of_an_unknown_measure_is_refused(tiny: Path) -> None:
    (tiny / "pyproject.toml").write_text("[tool.lime.structure]\nfragment = 0\n")
    done = measure(tiny, "--check")
    assert done.returncode == 1
    assert "limits for unknown measures: ['fragment']" in done.stderr
