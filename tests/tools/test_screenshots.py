"""The pictures of the documents are small, and show the page of a night and what commands write."""

from __future__ import annotations

import importlib
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.pipelines.report.warehouses import SmallWarehouse
from tools.browser import NONE, find_chromium

ROOT = Path(__file__).resolve().parents[2]
NIGHT = "2024-05-01"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the tool, which finds its neighbours in its own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("screenshots")


def take(warehouse: Path, into: Path, *pictures: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/screenshots.py", str(warehouse), "--into", str(into)]
    return subprocess.run(
        [*command, "--only", *pictures], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(find_chromium() is None, reason=NONE)
def test_pictures_are_taken_of_the_newest_published_night(tmp_path: Path) -> None:
    small = SmallWarehouse(tmp_path)
    small.publish(NIGHT, {"u1": ["i1", "i2"]})
    small.lease("2024-05-02")  # a night that was not published
    done = take(tmp_path / "warehouse", tmp_path / "images", "pages", "status")
    assert (done.returncode, done.stderr) == (0, "")
    sizes = {}
    for path in (tmp_path / "images").glob("*.png"):
        assert path.stat().st_size < 200_000
        sizes[path.stem] = struct.unpack(">II", path.read_bytes()[16:24])
    assert sizes == {"page-desktop": (1120, 1600), "page-dark": (1120, 1600), "page-phone": (390, 1688)}
    assert [path.name for path in (tmp_path / "warehouse" / "reports").glob("night*")] == [
        f"night={NIGHT}.html"
    ]
    svg = (tmp_path / "images" / "lime-status.svg").read_text()
    words = re.sub(r"<[^>]*>|&#160;", " ", svg)
    assert f"Readers are served night {NIGHT}. The warehouse .demo/warehouse records 2 nights." in " ".join(
        words.split()
    )
    outside = re.findall(r"https?://[^\"]*", re.sub("<!--.*?-->", "", svg))
    assert outside == ["http://www.w3.org/2000/svg"]  # the name of the format, which nobody opens
    assert str(tmp_path) not in svg


def test_a_warehouse_without_a_published_night_has_no_pictures(tmp_path: Path) -> None:
    done = take(tmp_path / "warehouse", tmp_path / "images", "status")
    assert done.returncode == 1
    assert "has no published night; run make demo, or name another warehouse" in done.stderr


def test_a_command_runs_on_a_terminal_with_colours_and_its_own_settings(
    tool: ModuleType, tmp_path: Path
) -> None:
    code = (
        "import os, sys; columns = os.get_terminal_size().columns;"
        "print(os.environ['LIME_CONFIG'], columns, sys.stdout.isatty());"
        "print('\\x1b[32mgreen\\x1b[0m'); print('log', file=sys.stderr)"
    )
    text = tool.run_on_terminal([sys.executable, "-c", code], tmp_path / "settings.yaml")
    assert text.split() == [str(tmp_path / "settings.yaml"), "110", "True", "\x1b[32mgreen\x1b[0m"]
    code = "import sys; print('done'); print('why', file=sys.stderr); sys.exit(3)"
    with pytest.raises(SystemExit, match="ended with 3:\ndone\r\n\nwhy"):
        tool.run_on_terminal([sys.executable, "-c", code], tmp_path / "settings.yaml")


def test_a_picture_shows_what_is_left_of_live_lines(tool: ModuleType) -> None:
    live = "\x1b[?25lscoring 1 %\r\x1b[2Kscoring 50 %\r\n10 s left\x1b[1A\r\x1b[2Kdone\r\n\x1b[?25hend\r\n"
    svg = tool.draw_terminal("lime night", live)
    words = re.sub(r"<[^>]*>|&#160;", " ", svg.split("</style>")[1]).split()
    assert words == ["lime", "night", "done", "end"]
