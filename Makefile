# Everything that is needed is installed into .venv by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A torch and a torchvision that belong together: pip alone may pair a CPU build with a CUDA build.
TORCH := torch==2.14.1 torchvision==0.29.1

.PHONY: demo test test-random test-all test-timm lint format types clean

$(VENV)/.installed: pyproject.toml runtime/pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) -e "./runtime[serve]" -e ".[dev]"
	touch $@

demo: $(VENV)/.installed  ## Train on 1,797 handwritten digits, evaluate, predict: the whole way in a few minutes
	$(BIN)/python examples/demo.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed
	$(BIN)/mypy

test: lint types  ## What CI runs: a process of tests for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

test-random: $(VENV)/.installed  ## The quick tests in random order; -p randomly says the seed, which repeats an order
	$(BIN)/python -m pytest -v -p randomly

test-all: lint types test-timm  ## With the slow ones; those of the page need npm and Chromium
	-$(BIN)/python -m supertokenvit.exporting.browser_runtime
	$(BIN)/python -m pytest -m ""

test-timm: $(VENV)/.installed  ## timm's own model tests, from its source distribution, on every stt_* model
	$(BIN)/python tests/timm_suite.py

clean:
	rm -rf $(VENV) runs
