#!/usr/bin/env bash
# Create .venv from requirements.lock and fetch the two Delta jars. Idempotent.
#
#   PYTHON=python3.12 tools/setup.sh
#
# Installs with uv, which it fetches into the venv when the machine has none. Everything that is installed, and what
# it is built with, must have a hash of the lock; tools/fetch_jars.py tells where the jars come from.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

die() { echo "setup: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || die "no $PYTHON; install Python 3.11 or newer, or set PYTHON=…"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$("$PYTHON" --version) is too old; install Python 3.11 or newer, or set PYTHON=…"
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$JAVA" >/dev/null || die "no Java; install a JDK or JRE 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
version=$(env -u JDK_JAVA_OPTIONS "$JAVA" -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
[ "${version:-0}" -ge 17 ] || die "Java ${version:-unknown} is too old; Spark 4 needs 17 or newer: install one and set JAVA_HOME"

# pip takes four minutes over this lock, uv half of one: where the machine has none, the venv brings its own.
UV=$(command -v uv || true)
if [ -z "$UV" ]; then
  UV=.venv/bin/uv
  if [ ! -x "$UV" ]; then
    "$PYTHON" -m venv .venv || die "no venv; install it (Debian: apt-get install python3-venv) or install uv"
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >.venv/uv.lock
    .venv/bin/python -m pip install -q --no-deps --require-hashes -r .venv/uv.lock
  fi
fi
[ -x .venv/bin/python ] || "$UV" venv -q --python "$PYTHON" .venv
"$UV" pip install -q --python .venv/bin/python --require-hashes -r requirements.lock --build-constraints requirements.lock
# Built with the setuptools of the lock: an isolated build would fetch one without a hash.
"$UV" pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .

# Byte code now, once: where PYTHONDONTWRITEBYTECODE is set every process would compile its imports again.
# Left out is what no job imports; some packages carry templates that are no Python.
unused='/(tests?|testing|sympy|mpmath|networkx|mypy|mypyc|libcst|pygments|fontTools|setuptools|_inductor|onnx|ao)/'
.venv/bin/python -m compileall -q -j 0 -x "$unused" .venv/lib >/dev/null || true
.venv/bin/python -m lime_model.scoring.native
.venv/bin/python tools/fetch_jars.py .jars
touch .venv/.ready
