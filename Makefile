# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The index that torch comes from, where the default one is not wanted (a CUDA or CPU build).
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off -q -c constraints.txt
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check lint bench docs reports clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"harness needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# One stamp per set of packages; a changed pin or dependency installs again.
$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing harness into $(VENV) (a few minutes the first time)"
	$(PIP) $(TORCH)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing what the tests compare against"
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.core ## run the main job: 36 cells on the embedded corpus, then reports/demo/
	$(BIN)/harness sweep experiment=demo

test: $(VENV)/.dev ## the whole test-suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile tests harness/conformance

test-slow: $(VENV)/.dev ## what CI runs besides: many rounds of kills, clusters, measured speeds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile --ignore=tests/benchmarks tests harness/conformance
	$(BIN)/python -m pytest -m slow tests/benchmarks

check: lint test ## what CI asks of a change: format, lint, types, import rules, tests

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=plugins $(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure speed against peers, as ratios in one run, and print the tables
	$(BIN)/python -m pytest -s tests/benchmarks

docs: $(VENV)/.core ## regenerate docs/ from the registry
	$(BIN)/python -m harness.docs

reports: $(VENV)/.core ## run the shipped mini experiments and rebuild reports/
	@for question in $$(ls reports); do $(BIN)/harness sweep experiment=$$question || exit 1; done

clean: ## remove the environment and caches; the store stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
