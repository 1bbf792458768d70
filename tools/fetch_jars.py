"""Put the two Delta jars into `.jars` and check their SHA-256, so that no Spark session has to resolve them.

    python tools/fetch_jars.py .jars

Spark's own resolver fetches a jar that is missing or damaged, as in `spark-submit --packages`, so a company's
mirror works as it does for every other Spark application. The environment variables are:

    LIME_IVY_SETTINGS   an ivysettings file, which Spark gets as `spark.jars.ivySettings`
    MAVEN_REPOSITORY    URL of a Maven mirror, which replaces the default repository of Spark
    HTTPS_PROXY         host and port of a proxy; Java does not read this by itself
    SPARK_CONF_DIR, SPARK_SUBMIT_OPTS   variables of Spark itself
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
UNUSED = "io.unitycatalog:*,io.delta:delta-kernel*"  # dependencies of the two that would bring 30 more jars
REMEDY = "name a mirror that you can reach in MAVEN_REPOSITORY, or your ivysettings file in LIME_IVY_SETTINGS"
# The resolver prints pages; the cause is the first line that matches one of these patterns, in this order.
CAUSES = (
    r"requirement failed: .*",
    r"Server access error.*",
    r"Host .* not found",
    r".*Exception: .*",
    r"module not found: .*",
)


def fetch(folder: Path) -> None:
    """Fetch the jars unless the pinned ones are there.

    Raises:
        SystemExit: a jar cannot be fetched, or its SHA-256 is not the pinned one.
    """
    if all(_sha256(folder / _name(artifact)) == pinned for artifact, pinned in SHA256.items()):
        return
    with tempfile.TemporaryDirectory() as scratch:
        output = resolve(Path(scratch))
        for artifact, pinned in SHA256.items():
            jar = Path(scratch) / "jars" / f"io.delta_{_name(artifact)}"
            if not jar.exists():
                sys.exit(
                    f"setup: Spark could not fetch io.delta:{artifact}:{VERSION}: {why(output)}; {REMEDY}"
                )
            if (found := _sha256(jar)) != pinned:
                sys.exit(
                    f"setup: io.delta:{artifact}:{VERSION} has SHA-256 {found}, pinned is {pinned}; your "
                    f"repository holds another file under that name: {REMEDY}"
                )
            folder.mkdir(exist_ok=True)
            part = folder / f".{_name(artifact)}.part"  # an interrupted copy leaves no partial jar
            shutil.copyfile(jar, part)
            part.replace(folder / _name(artifact))


def resolve(scratch: Path) -> str:
    """Let spark-submit fetch the packages into `scratch/jars` for an empty application; return its output."""
    (scratch / "nothing.py").write_text("")
    found = importlib.util.find_spec("pyspark")
    if not found or not found.origin:
        sys.exit("setup: PySpark is not installed for this Python; run `make setup`")
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
    """Return the proxies of the environment as options of Java."""
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


def why(output: str) -> str:
    """Find the line in the resolver's output that gives the cause."""
    output = re.sub(r"//[^/@\s]+@", "//", output)  # remove a password in a URL
    lines = [line.strip() for line in output.splitlines() if line.strip()]
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
