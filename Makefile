# Two commands for a fresh machine with python3 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: setup demo test lint wheel

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

# Two processes, each with one thread: torch's threads would wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# dist/*.whl: `pip install` it anywhere.
wheel: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
