"""The Delta jars are fetched by Spark's resolver from any repository, and their SHA-256 is checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
JARS = sorted((ROOT / ".jars").glob("delta-*-4.4.0.jar"))
SETTINGS = """<ivysettings>
  <settings defaultResolver="company"/>
  <resolvers><filesystem name="company" m2compatible="true">
    <artifact pattern="{}/[organisation]/[module]/[revision]/[artifact]-[revision].[ext]"/>
  </filesystem></resolvers>
</ivysettings>"""


def fetch(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "fetch_jars.py"), str(folder)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def company(tmp_path: Path) -> dict[str, str]:
    """Make a company's repository in a folder; return the variable that names its ivysettings."""
    for jar in JARS:
        folder = tmp_path / "repository" / "io" / "delta" / jar.stem.removesuffix("-4.4.0") / "4.4.0"
        folder.mkdir(parents=True)
        (folder / jar.name).write_bytes(jar.read_bytes())
    (tmp_path / "ivysettings.xml").write_text(SETTINGS.format(tmp_path / "repository"))
    return {"LIME_IVY_SETTINGS": str(tmp_path / "ivysettings.xml")}


@pytest.mark.jvm
def test_jars_are_fetched_once_from_the_repository_of_the_ivysettings(
    company: dict[str, str], tmp_path: Path
) -> None:
    jars = tmp_path / "jars"
    assert fetch(jars, **company).stderr == ""
    assert {jar.name: jar.read_bytes() for jar in jars.iterdir()} == {
        jar.name: jar.read_bytes() for jar in JARS
    }
    nowhere = {"LIME_IVY_SETTINGS": "/not/there", "JAVA_HOME": "/not/there"}
    assert fetch(jars, **nowhere).returncode == 0  # no jar is missing, so Java is not started
    torn = jars / JARS[0].name
    torn.write_bytes(torn.read_bytes()[:1000])
    assert fetch(jars, **company).returncode == 0
    assert torn.read_bytes() == JARS[0].read_bytes()


@pytest.mark.jvm
def test_another_file_under_the_name_of_a_jar_is_refused_in_a_sentence(
    company: dict[str, str], tmp_path: Path
) -> None:
    storage = next((tmp_path / "repository").rglob("delta-storage-*.jar"))
    storage.write_bytes(storage.read_bytes() + b"more")
    done = fetch(tmp_path / "jars", **company)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "io.delta:delta-storage:4.4.0 has SHA-256 " in done.stderr
    assert "pinned is c46735481fa8" in done.stderr
    assert "LIME_IVY_SETTINGS" in done.stderr
    assert not list((tmp_path / "jars").glob("delta-storage*"))


@pytest.mark.jvm
def test_a_mirror_that_does_not_answer_is_reported_without_its_password(tmp_path: Path) -> None:
    done = fetch(tmp_path / "jars", MAVEN_REPOSITORY="http://me:secret@127.0.0.1:9/m2")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "could not fetch io.delta:delta-spark_4.2_2.13:4.4.0: Server access error" in done.stderr
    assert "(java.net.ConnectException: Connection refused); name a mirror that you can reach" in done.stderr
    assert "secret" not in done.stderr


def test_no_file_names_a_registry_and_every_locked_package_has_a_hash() -> None:
    hosts = ["git", "grep", "-nE", r"https?://[a-z0-9.-]*(maven|pypi)"]
    assert subprocess.run(hosts, cwd=ROOT, capture_output=True, text=True, check=False).stdout == ""
    packages = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    assert len(packages) > 100
    assert [line.split()[0] for line in packages if "--hash=sha256:" not in line] == []
