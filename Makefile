# `make help` explains itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Short Spark sessions on few cores: the first JIT alone is sooner done and burns half the CPU, one thread collects
# garbage as fast as two, and pinned jars need no verifying.
SHORT := -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -XX:+ExitOnOutOfMemoryError
# Test files side by side, each half in a session of its own: one Spark driver keeps little more than a core busy.
HALVES := -n 2 --dist loadfile
demo test: export JDK_JAVA_OPTIONS ?= $(SHORT)
test-%: export JDK_JAVA_OPTIONS ?= $(SHORT)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-airflow test-cluster test-faults test-nights test-operate test-apart check package bench-scoring bench-scale bench-night bench-nights bench-quality bench-quality-full lock clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/.ready ## Create .venv from the lock and fetch the Delta jars (quick the second time)

$(VENV)/.ready: requirements.lock pyproject.toml tools/setup.sh tools/fetch_jars.py $(addprefix lime_model/scoring/native/,kernel.cpp simd.h __init__.py)
	@PYTHON=$(PYTHON) bash tools/setup.sh

demo: setup ## The whole product on The Complete Journey, through the real Airflow DAG
	@$(BIN)/python -m demo.run

test: setup ## Model, engine, pipelines and jobs on real Spark and Delta, 12 minutes at most
	@$(BIN)/python -m pytest $(HALVES)

test-airflow: setup ## Nights through Airflow: its runner, its scheduler, spark-submit and a killed worker
	@$(BIN)/python -m pytest -m airflow

test-cluster: setup ## The night on a Spark standalone cluster of processes, from the package alone
	@$(BIN)/python -m pytest -m cluster

test-faults: setup ## Workers, executors and drivers killed halfway, damage, full disks, and the retries
	@$(BIN)/python -m pytest -m faults

test-nights: setup ## Sequences of incremental nights, each compared with a full one
	@$(BIN)/python -m pytest -m nights $(HALVES)

test-operate: setup ## Audits, evaluation, promotion, exports, upkeep, lineage and forgetting, over whole nights
	@$(BIN)/python -m pytest -m operate $(HALVES)

# In the order of folders: the longest files have the fewest tests, and would come last.
test-apart: setup ## The five above in one go, which trains the shop's models once
	@$(BIN)/python -m pytest -m "airflow or cluster or faults or nights or operate" $(HALVES) --no-loadscope-reorder

check: setup ## Lint, formatting, types and the import contract
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

package: setup ## dist/: a wheel, and lime.zip for spark-submit --py-files
	@bash tools/package.sh

bench-scoring: setup ## The scoring engine beside its peers, on one core
	@$(BIN)/uv pip install -q --python $(BIN)/python -r benchmarks/requirements.txt
	@$(BIN)/python -m benchmarks.scoring

bench-scale: setup ## Ten billion pairs through Spark, and what a second worker brings
	@$(BIN)/python -m benchmarks.scale

bench-night: setup ## A night killed at half and run again, and its forecast beside what it took
	@$(BIN)/python -m benchmarks.night

bench-nights: setup ## What a night's events cost, beside computing everything again
	@$(BIN)/python -m benchmarks.nights

bench-quality: setup ## Lists and labels: LIME beside EASE, ALS and others, and beside HSTU, SASRec, DIN and others
	@$(BIN)/python -m benchmarks.quality
	@$(BIN)/python -m benchmarks.answers --learners 250

bench-quality-full: setup ## Hours: searches of rates and constants, the whole log of answers, sizes against speed
	@$(BIN)/python -m benchmarks.quality --tune
	@$(BIN)/python -m benchmarks.answers --learners 250 --search
	@$(BIN)/python -m benchmarks.answers
	@$(BIN)/python -m benchmarks.pareto

lock: setup ## Resolve requirements.txt into requirements.lock, with hashes
	@$(BIN)/uv pip compile -q --generate-hashes --no-header --no-annotate --python-version 3.11 requirements.txt -o requirements.lock

clean: ## Remove what the demo made (.demo); keeps .venv and the jars
	@rm -rf .demo
