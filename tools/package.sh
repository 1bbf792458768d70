#!/usr/bin/env bash
# Build dist/: a wheel for images, and the same as lime.zip for `spark-submit --py-files`.
#
# The native kernels of every instruction set go in, so executors need no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m lime_model.scoring.native --all
rm -rf build dist lime_model/scoring/native/*-avx2-quads.* # that one is for tests
.venv/bin/uv build -q --wheel --python .venv/bin/python --out-dir dist \
  --config-setting=--build-option=--plat-name="linux_$(uname -m)"
rm -rf build
cp dist/*.whl dist/lime.zip # a wheel is a zip, but Spark puts only what is called one on the path
cp jobs/run_steps.py dist/
ls -l dist
