PYTHON ?= python3
PROFILE ?= quick
BIN = .venv/bin

.PHONY: report test test-all lint lab

report: .venv/installed
	$(BIN)/python -m nnlib_report.build --profile $(PROFILE) $(if $(RETRAIN),--retrain)

test: .venv/tested
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/tested
	$(BIN)/python -m pytest

lint: .venv/tested
	$(BIN)/ruff check . && $(BIN)/mypy

lab: .venv/installed
	$(BIN)/jupyter lab notebooks

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q -r requirements.txt -e . && touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test,dev]" && touch $@
