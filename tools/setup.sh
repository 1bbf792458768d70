#!/usr/bin/env bash
# Create .venv from requirements.lock and fetch the two Delta jars. The script can be run again at any time.
#
#   PYTHON=python3.12 tools/setup.sh
#
# The script installs with uv, and fetches uv into the venv if the machine has none. Every package that is installed,
# and every package that builds one, must have a hash in the lock file. tools/fetch_jars.py describes the sources of
# the jars.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

die() { echo "setup: $1" >&2; exit 1; }

# Say every ten seconds what has been fetched, until the script ends. The wait is a read that nothing answers: a sleep
# would outlive the script.
report() {
  exec 3<> <(:)
  while :; do
    read -rt 10 _ <&3 || echo "setup: $SECONDS s, $(du -sh .venv 2>/dev/null | cut -f1) in .venv"
  done
}

command -v "$PYTHON" >/dev/null || die "no $PYTHON; install Python 3.11 or newer, or set PYTHON=…"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$("$PYTHON" --version) is too old; install Python 3.11 or newer, or set PYTHON=…"
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$JAVA" >/dev/null || die "no Java; install a JDK or JRE 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
version=$(env -u JDK_JAVA_OPTIONS "$JAVA" -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
[ "${version:-0}" -ge 17 ] || die "Java ${version:-unknown} is too old; Spark 4 needs 17 or newer: install one and set JAVA_HOME"

echo "setup: installing the packages of requirements.lock into .venv"
report & beat=$!
trap 'kill "$beat"' EXIT

# pip takes four minutes to install this lock file, and uv half a minute.
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
# The build uses the setuptools of the lock file: an isolated build would fetch one without a hash.
"$UV" pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .

echo "setup: fetching the jars and compiling"
# The jars are fetched, and the kernel is compiled, while the byte code is compiled.
.venv/bin/python tools/fetch_jars.py .jars & jars=$!
.venv/bin/python -m lime_model.scoring.native & kernel=$!
# Compile the byte code once, now: where PYTHONDONTWRITEBYTECODE is set, every process would compile its imports
# again. The pattern leaves out files that no job imports; some packages contain templates that are not Python.
unused='/(tests?|testing|sympy|mpmath|networkx|mypy|mypyc|libcst|pygments|fontTools|setuptools|_inductor|onnx|ao)/'
.venv/bin/python -m compileall -q -j 0 -x "$unused" .venv/lib >/dev/null || true
wait "$kernel"
wait "$jars"
touch .venv/.ready
