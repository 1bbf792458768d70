"""Take pictures of Airflow: the graph of the demo's newest run, and the form of an operation."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from browser import open_browser
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
SIZE = {"width": 1900, "height": 800}
LONGEST_START = 180  # seconds
GRAPH = "localStorage.setItem('default_dag_view', JSON.stringify('graph'))"


def shoot_airflow(home: Path, into: Path, scratch: Path) -> None:
    """Take the pictures from a copy of the demo's Airflow, in which nothing is run.

    Args:
        home: the folder of the demo's Airflow, with its runs.
        into: where the pictures are written.
        scratch: an empty folder.
    """
    copy = scratch / "airflow"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("logs"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _serve(_environment(copy, port), port) as address, open_browser() as browser:
        context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
        context.add_init_script(GRAPH)
        page = context.new_page()
        page.goto(f"{address}/dags/nightly_scoring", wait_until="networkidle")
        page.wait_for_selector(".react-flow__node", timeout=60_000)
        page.get_by_role("button", name="Expand all").click()
        page.get_by_role("button", name="Fit View").click()
        page.wait_for_timeout(3000)  # Airflow moves what it shows
        page.locator(".react-flow").first.screenshot(path=into / "airflow-graph.png")
        page.goto(f"{address}/dags/operations", wait_until="networkidle")
        page.get_by_role("button", name="Trigger").first.click()
        page.wait_for_selector("[role=dialog][data-scope=dialog][data-state=open]", timeout=60_000)
        _shoot(page, into / "airflow-operations.png")


def _shoot(page: Page, path: Path) -> None:
    page.wait_for_timeout(3000)  # Airflow moves what it shows
    page.screenshot(path=path)


def _environment(home: Path, port: int) -> dict[str, str]:
    """Return the environment of an Airflow that asks for no password."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "LIME_CONFIG": str(ROOT / "conf" / "local.yaml"),
    }


@contextmanager
def _serve(environment: Mapping[str, str], port: int) -> Iterator[str]:
    """Read the DAGs, and run Airflow's API server without a scheduler; yield its address."""
    airflow = str(Path(sys.executable).parent / "airflow")
    log = Path(environment["AIRFLOW_HOME"]) / "pictures.log"
    with log.open("wb") as sink:
        subprocess.run(
            [airflow, "dags", "reserialize"], env=environment, stdout=sink, stderr=sink, check=True
        )
        command = [airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server, log)
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(LONGEST_START):
        try:
            with urllib.request.urlopen(f"{address}/api/v2/version", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if server.poll() is not None:
                break
            time.sleep(1)
    sys.exit(
        f"Airflow's API server does not answer; its output is:\n{log.read_text(errors='replace')[-3000:]}"
    )
