"""Put the two Delta jars into `.jars`, checked against pinned SHA-256; no Spark session resolves them later.

    python tools/fetch_jars.py .jars

What is missing or damaged is fetched by Spark's own resolver, as `spark-submit --packages` would, so a
company's mirror works as it does for every other Spark application. Environment:

    LIME_IVY_SETTINGS   an ivysettings file, given to Spark as `spark.jars.ivySettings`
    MAVEN_REPOSITORY    URL of a Maven mirror, in the place of the repository that Spark asks by default
    HTTPS_PROXY         host and port of a proxy; Java does not read this by itself
    SPARK_CONF_DIR, SPARK_SUBMIT_OPTS   Spark's own, as always
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

VERSION = "4.4.0"
SHA256 = {
    "delta-spark_4.2_2.13": "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    "delta-storage": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
}
UNUSED = "io.unitycatalog:*,io.delta:delta-kernel*"  # what they depend on, and bring 30 more jars with
REMEDY = "name a mirror that you can reach in MAVEN_REPOSITORY, or your ivysettings file in LIME_IVY_SETTINGS"
# What of the resolver's pages says why: its first line that looks like one of these, in this order.
CAUSES = (
    r"requirement failed: .*",
    r"Server access error.*",
    r"Host .* not found",
    r".*Exception: .*",
    r"module not found: .*",
)


def fetch(folder: Path) -> None:
    """Resolve the jars unless the right ones are there.

    Raises:
        SystemExit: they can't be had, or a file is not the pinned one.
    """
    if all(_sha256(folder / _name(artifact)) == pinned for artifact, pinned in SHA256.items()):
        return
    with tempfile.TemporaryDirectory() as scratch:
        said = resolve(Path(scratch))
        for artifact, pinned in SHA256.items():
            jar = Path(scratch) / "jars" / f"io.delta_{_name(artifact)}"
            if not jar.exists():
                sys.exit(f"setup: Spark could not fetch io.delta:{artifact}:{VERSION}: {why(said)}; {REMEDY}")
            if (found := _sha256(jar)) != pinned:
                sys.exit(
                    f"setup: io.delta:{artifact}:{VERSION} has SHA-256 {found}, pinned is {pinned}; your "
                    f"repository holds another file under that name: {REMEDY}"
                )
            folder.mkdir(exist_ok=True)
            part = folder / f".{_name(artifact)}.part"  # a copy that is stopped leaves no half of a jar
            shutil.copyfile(jar, part)
            part.replace(folder / _name(artifact))


def resolve(scratch: Path) -> str:
    """Have spark-submit fetch the packages into `scratch/jars` for an empty application; what it printed."""
    (scratch / "nothing.py").write_text("")
    found = importlib.util.find_spec("pyspark")
    if not found or not found.origin:
        sys.exit("setup: PySpark is not installed beside this Python; run `make setup`")
    home, environment = Path(found.origin).parent, dict(os.environ)
    environment |= {
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
    if mirror := environment.get("MAVEN_REPOSITORY"):
        environment["DEFAULT_ARTIFACT_REPOSITORY"] = mirror.rstrip("/") + "/"
    environment["SPARK_SUBMIT_OPTS"] = f"{proxy_options()} {environment.get('SPARK_SUBMIT_OPTS', '')}".strip()
    packages = ",".join(f"io.delta:{artifact}:{VERSION}" for artifact in SHA256)
    command = [
        str(home / "bin" / "spark-submit"), "--packages", packages, "--exclude-packages", UNUSED,
        "--conf", f"spark.jars.ivy={scratch}",
    ]  # fmt: skip
    if settings := environment.get("LIME_IVY_SETTINGS"):
        command += ["--conf", f"spark.jars.ivySettings={Path(settings).absolute()}"]
    done = subprocess.run(
        [*command, str(scratch / "nothing.py")], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def proxy_options() -> str:
    """The proxies of the environment as Java's options."""
    options = []
    for scheme, url in urllib.request.getproxies().items():
        proxy = urlsplit(url if "//" in url else f"//{url}")
        if scheme in ("http", "https") and proxy.hostname:
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={proxy.port or 80}"]
    if options and (direct := os.environ.get("no_proxy") or os.environ.get("NO_PROXY")):
        hosts = [
            f"*{host}" if host.startswith(".") else host
            for host in direct.replace(" ", "").split(",")
            if host
        ]
        options.append(f"-Dhttp.nonProxyHosts={'|'.join(hosts)}")
    return " ".join(options)


def why(said: str) -> str:
    """The cause in one line of all that the resolver printed."""
    said = re.sub(r"//[^/@\s]+@", "//", said)  # a password in a URL
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for pattern in CAUSES:
        for line in lines:
            if found := re.search(pattern, line):
                return found[0].rstrip(". ")
    return lines[-1] if lines else "it printed nothing"


def _name(artifact: str) -> str:
    return f"{artifact}-{VERSION}.jar"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
