# The commands of imgflow for people and CI; each sets up what it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
TESTS ?= not faults and not long
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run install test faults check bench soak outdated format clean

run: $(VENV)/.installed  ## all set-up, then imgflow with sample input, until Ctrl-C
	@exec $(BIN)/imgflow up --samples

install: $(VENV)/.installed  ## all set-up, and nothing is started

test: $(VENV)/.installed-dev  ## all set-up, then the tests; TESTS="not faults" adds those of whole systems, as in CI
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "$(TESTS) and not alone"
	$(BIN)/python -m pytest -m "$(TESTS) and alone"

check: $(VENV)/.installed-dev  ## lint, format, types, definitions load
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

bench: $(VENV)/.installed-dev  ## the benchmarks, each a ratio measured side by side
	$(BIN)/python -m benchmarks

faults: $(VENV)/.installed-dev  ## what becomes of a cluster whose parts are killed, cut off or full
	$(BIN)/python -m pytest -m faults imgflow_tests/cluster

soak: $(VENV)/.installed-dev  ## 20,000 images through a cluster whose workers are killed; SOAK="--images 2000 --minutes 2"
	$(BIN)/python -m imgflow_tests.cluster.soak $(SOAK)

outdated: $(VENV)/.installed-dev  ## what has a newer release: packages, and images of containers
	@$(BIN)/python deploy/outdated.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "imgflow needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=python3.x"; exit 1; }
	@echo "Creating the environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing imgflow; the first time takes about a minute …"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing imgflow with its development tools …"
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed
