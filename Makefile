# One folder, one interpreter: everything the project needs lives in .venv, made from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo demo-cluster bench-cluster test check format bench torture nemesis explore fuzz lock clean sim

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "JadeVectorDB needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup
	$(BIN)/jade demo

demo-cluster: setup
	$(BIN)/jade demo --cluster

test: setup
	$(BIN)/python -m tests

check: setup
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix src tests bench
	$(BIN)/ruff format src tests bench

bench: setup
	$(BIN)/python bench/run.py

bench-cluster: setup
	$(BIN)/python bench/cluster.py

torture: setup
	$(BIN)/python -m tests.crash.torture
	$(BIN)/python -m tests.crash.torture_server

nemesis: setup
	$(BIN)/python -m tests.nemesis --minutes $(or $(MINUTES),3) --nodes $(or $(NODES),3) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)") $(if $(BY_VECTOR),--by-vector)

# Property tests with examples that were not drawn before: make explore ROUNDS=20
explore: setup
	for round in $$(seq $(or $(ROUNDS),3)); do JADEVECTORDB_EXAMPLES=explore $(BIN)/python -m pytest tests/property || exit 1; done

fuzz: setup
	$(BIN)/python -m tests.fuzz --requests 200000

# Simulated clusters: make sim RUNS=500, make sim SEED=17 for everything that happened in one
sim: setup
	PYTHONHASHSEED=0 $(BIN)/python -m jadevectordb.sim --seed $(or $(SEED),1) --runs $(or $(RUNS),1) $(if $(SHORT),--short)

lock: setup
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra parquet --extra embeddings --extra telemetry --extra langchain --extra llama-index --extra dev pyproject.toml --output-file requirements.lock --custom-compile-command "make lock"

clean:
	rm -rf $(VENV) demo-data
