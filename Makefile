# `make help` explains itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For short Spark sessions on few cores: the first JIT compiler alone is done sooner and takes half the CPU time, one
# thread collects garbage as fast as two, and the pinned jars need no bytecode verification.
SHORT := -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -XX:+ExitOnOutOfMemoryError
# Two processes run the test files, each with its own Spark session: one driver keeps little more than a core busy.
HALVES := -n 2 --dist loadfile
demo test: export JDK_JAVA_OPTIONS ?= $(SHORT)
test-%: export JDK_JAVA_OPTIONS ?= $(SHORT)
# Two processes of tests with two threads each wait for each other on two cores.
quick test: export OMP_NUM_THREADS ?= 1
test-%: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo quick test test-airflow test-cluster test-faults test-nights test-operate test-apart check docs package screenshots bench-scoring bench-scale bench-night bench-nights bench-quality bench-quality-full lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/.ready ## Create .venv from the lock file and fetch the Delta jars (quick the second time)

$(VENV)/.ready: requirements.lock pyproject.toml tools/setup.sh tools/fetch_jars.py $(addprefix lime_model/scoring/native/,kernel.cpp simd.h __init__.py)
	@PYTHON=$(PYTHON) bash tools/setup.sh

demo: setup ## Run the whole product on The Complete Journey, through the real Airflow DAG
	@$(BIN)/python -m demo.run

quick: setup ## Test everything that needs no Java virtual machine
	@$(BIN)/python -m pytest -m "not jvm" $(HALVES)

test: setup ## Test model, engine, pipelines and jobs on real Spark and Delta, in 12 minutes at most
	@$(BIN)/python -m pytest $(HALVES) --durations=15

test-airflow: setup ## Test nights through Airflow: its runner, its scheduler, spark-submit and a killed worker
	@$(BIN)/python -m pytest -m airflow

test-cluster: setup ## Test the night on a Spark standalone cluster of processes, with nothing but the package
	@$(BIN)/python -m pytest -m cluster

test-faults: setup ## Test kills of workers, executors and drivers, damaged files, full disks, and the retries
	@$(BIN)/python -m pytest -m faults

test-nights: setup ## Test sequences of incremental nights, each compared with a full night
	@$(BIN)/python -m pytest -m nights $(HALVES)

test-operate: setup ## Test audits, evaluation, promotion, exports, upkeep, lineage and forgetting over whole nights
	@$(BIN)/python -m pytest -m operate $(HALVES)

# The test files run in the order of their folders: pytest-xdist would start the longest files, which have the
# fewest tests, last.
test-apart: setup ## Run the five above together, which trains the models of the test shop only once
	@$(BIN)/python -m pytest -m "airflow or cluster or faults or nights or operate" $(HALVES) --no-loadscope-reorder

check: setup ## Check style, formatting, types, the import contracts and the structure of the packages
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(BIN)/python tools/structure.py --check

docs: setup ## Write docs/configure.md, docs/errors.md and conf/settings.schema.json from the code
	@$(BIN)/python tools/reference.py

package: setup ## Build dist/: a wheel, and lime.zip for spark-submit --py-files
	@bash tools/package.sh

bench-scoring: setup ## Compare the scoring engine with its peers, on one core
	@$(BIN)/uv pip install -q --python $(BIN)/python -r benchmarks/requirements.txt
	@$(BIN)/python -m benchmarks.scoring

bench-scale: setup ## Score ten billion pairs through Spark, and measure the gain of a second worker
	@$(BIN)/python -m benchmarks.scale

bench-night: setup ## Kill a night at half, run it again, and compare its forecast with the measured time
	@$(BIN)/python -m benchmarks.night

bench-nights: setup ## Measure what a night's events cost, compared with computing everything again
	@$(BIN)/python -m benchmarks.nights

bench-quality: setup ## Compare the quality of LIME with EASE, ALS and others (lists), and with HSTU, SASRec, DIN and others (labels)
	@$(BIN)/python -m benchmarks.quality
	@$(BIN)/python -m benchmarks.answers --learners 250

bench-quality-full: setup ## Search rates and constants, use the whole log of answers, and compare sizes with speed; takes hours
	@$(BIN)/python -m benchmarks.quality --tune
	@$(BIN)/python -m benchmarks.answers --learners 250 --search
	@$(BIN)/python -m benchmarks.answers
	@$(BIN)/python -m benchmarks.pareto

screenshots: setup ## Take the pictures of docs/images of the demo's warehouse (run make demo first; needs Chromium)
	@$(BIN)/python tools/screenshots.py

lock: setup ## Resolve requirements.txt into requirements.lock, with hashes
	@$(BIN)/uv pip compile -q --generate-hashes --no-header --no-annotate --python-version 3.11 requirements.txt -o requirements.lock

clean: ## Remove the files of the demo (.demo), but keep .venv and the jars
	@rm -rf .demo
