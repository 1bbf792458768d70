"""Fetch the Delta jars once, checked against pinned SHA-256, so no Spark session resolves them.

python tools/fetch_jars.py https://repo1.maven.org/maven2 4.4.0 .jars
"""

from __future__ import annotations

import hashlib
import sys
import urllib.error
import urllib.request
from pathlib import Path

SHA256 = {
    "delta-spark_4.2_2.13-4.4.0.jar": "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    "delta-storage-4.4.0.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
}


def fetch(repository: str, version: str, folder: Path) -> None:
    """Download what is missing or damaged.

    Raises:
        SystemExit: the repository can't be reached, or a file is not the pinned one.
    """
    folder.mkdir(exist_ok=True)
    for artifact in ("delta-spark_4.2_2.13", "delta-storage"):
        name = f"{artifact}-{version}.jar"
        path = folder / name
        if path.exists() and _sha256(path.read_bytes()) == SHA256[name]:
            continue
        url = f"{repository}/io/delta/{artifact}/{version}/{name}"
        try:
            data = urllib.request.urlopen(url, timeout=60).read()
        except (urllib.error.URLError, TimeoutError) as error:
            sys.exit(f"setup: cannot fetch {url}: {error}; set MAVEN_REPOSITORY to a mirror you can reach")
        if _sha256(data) != SHA256[name]:
            sys.exit(
                f"setup: {url} has SHA-256 {_sha256(data)}, pinned is {SHA256[name]}; use another mirror"
            )
        path.write_bytes(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
