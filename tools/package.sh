#!/usr/bin/env bash
# Build dist/: a wheel for images, and the same file as lime.zip for `spark-submit --py-files`.
#
# The package holds the native kernels of every instruction set, so executors need no compiler. It is built in
# another folder and moved into dist/ file by file, so that a job that starts meanwhile finds a whole file.
set -euo pipefail
cd "$(dirname "$0")/.."
new=$(mktemp -d "$PWD/dist-XXXXXX")
trap 'rm -rf build "$new"' EXIT
.venv/bin/python -m lime_model.scoring.native --all
rm -rf build lime_model/scoring/native/*-avx2-quads.* # this kernel is for tests only
.venv/bin/uv build -q --wheel --python .venv/bin/python --out-dir "$new" \
  --config-setting=--build-option=--plat-name="linux_$(uname -m)"
cp "$new"/*.whl "$new/lime.zip" # a wheel is a zip file, but Spark adds only files with the suffix .zip to the path
cp jobs/run_steps.py "$new"
mkdir -p dist
for file in dist/*; do
  [ -e "$new/$(basename "$file")" ] || rm -rf "$file" # a wheel of an earlier version
done
mv -f "$new"/*.whl "$new/lime.zip" "$new/run_steps.py" dist/
ls -l dist
