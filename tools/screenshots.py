"""Take the pictures of docs/images/: the page of a night and Airflow in Chromium, and `lime` on a terminal.

    python tools/screenshots.py [WAREHOUSE] [--into FOLDER] [--only PICTURE ...]

WAREHOUSE has published nights of the demo (default: .demo/warehouse), next to its folders `raw`, `bundles`
and `airflow`. The picture `night` runs the night after the newest one, which takes minutes and adds a night.
A command that this version of `lime` does not have is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

import yaml
from playwright.sync_api import Browser
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from airflow_pictures import shoot_airflow  # noqa: E402
from browser import open_browser  # noqa: E402

from jobs.lime.commands import COMMANDS  # noqa: E402
from pipelines.report.page import write_page  # noqa: E402
from pipelines.report.record import read_record  # noqa: E402
from pipelines.settings.settings import Settings, load_settings  # noqa: E402

# Name, width and height of a screen, and colours; a picture shows the first two screens.
SCREENS = (
    ("page-desktop", 1120, 800, "light"),
    ("page-dark", 1120, 800, "dark"),
    ("page-phone", 390, 844, "light"),
)
COLUMNS, LINES = 110, 60
PICTURES = ("pages", "status", "night", "init", "airflow")


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("warehouse", nargs="?", type=Path, default=ROOT / ".demo" / "warehouse")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=PICTURES)
    options = parser.parse_args(arguments)
    home = options.warehouse.resolve().parent
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = _write_settings(Path(folder), home, options.warehouse.resolve())
        settings = load_settings(config)
        newest = _newest(settings)
        after = dt.date.fromisoformat(newest) + dt.timedelta(days=1)
        commands = {  # the night comes first, so that page and status show it
            "night": ["night", "--ds", str(after), "--run-key", "nightly"],
            "status": ["status"],
            "init": ["init", str(home / "raw"), "--yes", "--config", f"{folder}/shop.yaml"],
        }
        for name in [each for each in commands if each in options.only and each in COMMANDS]:
            said = run_on_terminal(["lime", *commands[name]], config)
            title, text = (
                each.replace(str(home), ".demo").replace(f"{folder}/", "")
                for each in (f"lime {' '.join(commands[name])}", said)
            )
            (options.into / f"lime-{name}.svg").write_text(draw_terminal(title, text), "utf-8")
        if "pages" in options.only:
            shoot_pages(settings, _newest(settings), options.into)
        if "airflow" in options.only:
            shoot_airflow(home / "airflow", options.into, Path(folder))
    return 0


def shoot_pages(settings: Settings, night: str, folder: Path) -> None:
    """Write the page of a night, and take its pictures.

    Args:
        settings: the settings of the warehouse.
        night: the night.
        folder: where the pictures are written.
    """
    page = write_page(settings, night)
    with open_browser() as browser:
        for name, width, height, scheme in SCREENS:
            _shoot(browser, page.as_uri(), folder / f"{name}.png", (width, height, scheme))


def run_on_terminal(command: Sequence[str], config: Path) -> str:
    """Run a command on a terminal of its own; return what it wrote, with its colours.

    Args:
        command: the command and its arguments.
        config: the settings file that it reads.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "LIME_CONFIG": str(config),
    }
    with tempfile.TemporaryFile() as log:  # Spark's own log would hide what the command says
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=log, cwd=ROOT, env=environment)
        os.close(its)
        said = b"".join(iter(lambda: _read(ours), b"")).decode("utf-8", "replace")
        os.close(ours)
        if code := process.wait():
            log.seek(0)
            sys.exit(f"{' '.join(command)} ended with {code}:\n{said}\n{log.read().decode(errors='replace')}")
    return said


def draw_terminal(title: str, text: str) -> str:
    """Draw what a command wrote on a terminal as an SVG without references to other files.

    Args:
        title: the command.
        text: what it wrote; lines that it wrote over are left out.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(_last_state(text))))
    svg = console.export_svg(title=title, unique_id=re.sub(r"\W+", "-", title))
    return re.sub(r"@font-face \{[^}]*\}\s*", "", svg)


def _last_state(text: str) -> list[str]:
    """Return the lines that are left at the end: a live line is written over, and erased at last."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").rstrip().split("\n"):
        while found := re.search(r"\x1b\[1A\r?\x1b\[2K", line):  # one line up, which is erased
            line = line[found.end() :]
            lines = lines[:-1]
        line = re.split(r"\r\x1b\[2K|\r", line)[-1]
        lines.append(re.sub(r"\x1b\[\?25[lh]|\x1b\[2K", "", line))
    return lines


def _newest(settings: Settings) -> str:
    """Return the newest night that is published."""
    published = [night for night, state in read_record(settings).states.items() if state.in_force]
    if not published:
        sys.exit(f"{settings.warehouse} has no published night; run make demo, or name another warehouse")
    return max(published)


def _write_settings(folder: Path, home: Path, warehouse: Path) -> Path:
    """Write the demo's settings for a warehouse that may lie in another folder; return their path."""
    raw = yaml.safe_load((ROOT / "conf" / "local.yaml").read_text("utf-8"))
    places = {"warehouse": warehouse, "drops": home / "raw", "bundles": home / "bundles"}
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(raw | {name: str(place) for name, place in places.items()}), "utf-8")
    return path


def _shoot(browser: Browser, address: str, path: Path, screen: tuple[int, int, str]) -> None:
    """Take a picture of the first two screens of a page."""
    width, height, scheme = screen
    size = {"width": width, "height": 2 * height}
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address)
    page.screenshot(path=path)
    context.close()


def _read(terminal: int) -> bytes:
    """Read from a terminal; return nothing once its program has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so in this way
        return b""


if __name__ == "__main__":
    sys.exit(main())
