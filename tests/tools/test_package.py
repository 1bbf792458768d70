"""The package is replaced in one step, so that a job that starts during a build finds a whole file."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_reader_always_finds_a_whole_package() -> None:
    build = ["bash", str(ROOT / "tools" / "package.sh")]
    subprocess.run(build, check=True, capture_output=True)
    package = ROOT / "dist" / "lime.zip"
    before = package.stat().st_ino
    rebuilding = subprocess.Popen(build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    reads = 0
    while rebuilding.poll() is None:
        with zipfile.ZipFile(package) as file:
            assert file.testzip() is None
        reads += 1
    assert rebuilding.returncode == 0, rebuilding.communicate()[0].decode()
    assert reads > 1
    assert package.stat().st_ino != before
    assert sorted(path.suffix for path in package.parent.glob("[!.]*")) == [".py", ".whl", ".zip"]
    assert not list(ROOT.glob("dist-*"))
