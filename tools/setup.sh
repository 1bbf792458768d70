#!/usr/bin/env bash
# Create .venv from requirements.lock and fetch the two Delta jars. Idempotent.
#
#   PYTHON=python3.12 tools/setup.sh
#
# Uses uv when it is there (under a minute), else venv and pip (some minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DELTA=4.4.0
MAVEN=${MAVEN_REPOSITORY:-https://repo1.maven.org/maven2}

die() { echo "setup: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || die "no $PYTHON; install Python 3.11 or newer, or set PYTHON=…"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$("$PYTHON" --version) is too old; install Python 3.11 or newer, or set PYTHON=…"
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$JAVA" >/dev/null || die "no Java; install a JDK or JRE 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
version=$(env -u JDK_JAVA_OPTIONS "$JAVA" -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
[ "${version:-0}" -ge 17 ] || die "Java ${version:-unknown} is too old; Spark 4 needs 17 or newer: install one and set JAVA_HOME"

if command -v uv >/dev/null; then
  [ -x .venv/bin/python ] || uv venv -q --python "$PYTHON" .venv
  uv pip install -q --python .venv/bin/python -r requirements.lock
  uv pip install -q --python .venv/bin/python --no-deps -e .
else
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install -q -r requirements.lock
  .venv/bin/python -m pip install -q --no-deps -e .
fi

# Byte code now, once: where PYTHONDONTWRITEBYTECODE is set every process would compile its imports again.
# Left out is what no job imports; some packages carry templates that are no Python.
unused='/(tests?|testing|sympy|mpmath|networkx|mypy|mypyc|libcst|pygments|fontTools|setuptools|_inductor|onnx|ao)/'
.venv/bin/python -m compileall -q -j 0 -x "$unused" .venv/lib >/dev/null || true
.venv/bin/python -m lime_model.scoring.native
.venv/bin/python tools/fetch_jars.py "$MAVEN" "$DELTA" .jars
touch .venv/.ready
