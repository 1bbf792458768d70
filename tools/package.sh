#!/usr/bin/env bash
# Build dist/: a wheel for images, and the same file as lime.zip for `spark-submit --py-files`.
#
# The package holds the native kernels of every instruction set, so executors need no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m lime_model.scoring.native --all
rm -rf build dist lime_model/scoring/native/*-avx2-quads.* # this kernel is for tests only
.venv/bin/uv build -q --wheel --python .venv/bin/python --out-dir dist \
  --config-setting=--build-option=--plat-name="linux_$(uname -m)"
rm -rf build
cp dist/*.whl dist/lime.zip # a wheel is a zip file, but Spark adds only files with the suffix .zip to the path
cp jobs/run_steps.py dist/
ls -l dist
