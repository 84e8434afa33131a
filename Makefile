# Everything runs from a fresh clone on Linux with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3
SEED ?= 1

.PHONY: demo test lint bench ui soak setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: setup
	$(BIN)/causeway demo $(ARGS)

# Most of what the acceptance tests do is wait for servers and workers: three files at once keep two cores busy, and the
# long ones go first, so that no core is idle at the end.
test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks all

ui: setup
	$(BIN)/causeway ui

# Five minutes of damage for each reader and for the loading of contracts. Then a deployed backfill of real data whose
# processes are killed, again and again; adds a line a time to docs/soak.md.
soak: setup
	$(BIN)/python -m tests.data_contracts.fuzzing --seconds 300
	$(BIN)/python -m data_contracts.oracle --cases 10000 --seed $(SEED)
	$(BIN)/python -m tests.acceptance.killing --times 50 --record docs/soak.md $(ARGS)
