# Two commands for a fresh machine with python3 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: setup demo test lint

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# A small network on drawn faces, in about a minute.
demo: setup
	$(BIN)/python train.py experiment=demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests of exported files run in a process of their own: with OpenVINO, NNCF and ONNX Runtime loaded, torch 2.15
# crashes in later tests that have nothing to do with them.
EXPORT_TESTS := tests/export tests/inference/test_runtimes.py

test: lint
	$(BIN)/pytest $(EXPORT_TESTS)
	$(BIN)/pytest $(addprefix --ignore=,$(EXPORT_TESTS))
