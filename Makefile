# make run    serve on port 3000; needs nothing but Python 3.11 or newer and make
# make test   everything that the tests need, then the tests
# make check  formatting, lint, types
# make bench  the figures of benchmarks/RESULTS.md, measured on this machine
# make soak   the long form of the fault tests
# make docs   the tables of settings, written anew from the code
# make clean  away with the environment and what the tools left

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; `make PYTHON=/path/to/python run` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PORT ?= 3000
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test check bench soak docs clean

help:
	@sed -n 's/^# make /  make /p' Makefile

run: $(VENV)/installed
	@echo "Serving on http://localhost:$(PORT) (Ctrl-C ends it)"
	@exec $(BIN)/tornado-rt serve --port $(PORT) $(ARGS)

test: export MAY_INSTALL = yes
test: $(VENV)/installed-dev
	@scripts/system_parts.sh gcc chromium node
	@echo "Running the tests"
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/installed-dev
	@echo "Checking formatting, lint and types"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict tornado_rt

bench: $(VENV)/installed-dev
	@scripts/system_parts.sh gcc node
	@echo "Measuring; this takes a while, and other work on this machine spoils the figures"
	@$(BIN)/python benchmarks/bench.py $(ARGS)

soak: $(VENV)/installed-dev
	@scripts/system_parts.sh gcc
	@echo "Running the long fault tests"
	@$(BIN)/python -m pytest -m soak --timeout=0 --async-test-timeout=7200 $(ARGS)

docs: $(VENV)/installed-dev
	@$(BIN)/python scripts/write_settings_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info .bench .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# The environment: made once, brought up to date when the metadata changes. The code itself is used where it stands.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed and was not found." >&2; exit 1; fi
	@PYTHON="$(PYTHON)" scripts/system_parts.sh venv
	@echo "Making the environment in $(VENV)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing tornado_rt and the libraries it stands on"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing tornado_rt, the libraries it stands on and the developers' tools"
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/installed $@
