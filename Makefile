# Stillroom. `make help` lists the targets.

PYTHON  ?= python3.11
BACKEND ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
CONFIG  ?= configs/quickstart.yaml
# Overrides of the configuration, separated by spaces: make distill SET="students.kd.stages.0.steps=60". One that holds
# spaces goes into ARGS, which the shell reads as it stands: ARGS="--set 'data.train.path=my dir/train.jsonl'"
SET     ?=
ARGS    ?=

# What somebody wrote is one word of the shell, whatever is in it: a name with spaces, quotes or dollars stays a name.
quoted = '$(subst ','\'',$(1))'
THE_CONFIG = --config $(call quoted,$(value CONFIG)) $(foreach one,$(value SET),--set $(call quoted,$(one)))

UV_VERSION := 0.13.8
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed-$(BACKEND)
BENCH_STAMP := $(VENV)/.installed-bench
# uv does not read pip's settings. Where pip is told to look for wheels in a folder, uv is told too; elsewhere uv
# knows by itself where the CPU builds of torch are.
TORCH_cpu = $(if $(PIP_FIND_LINKS),$(foreach one,$(PIP_FIND_LINKS),--find-links $(call quoted,$(one))),--torch-backend cpu)
TORCH_gpu =
COMPILE = $(BIN)/uv pip compile --quiet --no-config --python-version 3.11 --no-header --no-annotate \
          --no-emit-index-url --no-emit-find-links --override requirements/overrides.txt

.DEFAULT_GOAL := help
.PHONY: help setup lock distill plan test test-slow check format bench ui clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  Variables: CONFIG='$(call quoted,$(value CONFIG))'  SET="a.b=c d.e=f"  BACKEND=cpu|gpu (found: $(BACKEND))'

setup: $(STAMP) ## install the locked requirements into .venv (once)

$(STAMP): requirements/$(BACKEND).txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "make: $(PYTHON) is not installed. Install Python 3.11, or name one with PYTHON=..."; exit 2; }
	@echo "Setting up $(VENV) for the $(BACKEND) backend (once; about half a minute on a fast line) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --no-deps $(TORCH_$(BACKEND)) -r requirements/$(BACKEND).txt
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --no-deps --editable .
	@touch $@

lock: ## make requirements/{cpu,gpu,bench}.txt anew
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(COMPILE) --upgrade $(TORCH_cpu) requirements/cpu.in --output-file requirements/cpu.txt
	$(COMPILE) --upgrade --python-platform x86_64-manylinux_2_28 requirements/gpu.in --output-file requirements/gpu.txt
	$(COMPILE) --upgrade --no-deps requirements/bench.in --output-file requirements/bench.txt

distill: setup ## run an experiment: fill the cache, train, evaluate, compare
	@$(BIN)/distill run $(THE_CONFIG) $(ARGS)

plan: setup ## print what an experiment would cost, and stop
	@$(BIN)/distill plan $(THE_CONFIG) $(ARGS)

ui: setup ## open the MLflow UI on loopback
	@$(BIN)/distill ui $(THE_CONFIG) $(ARGS)

test: setup ## the test suite, with a true end-to-end run (about twelve minutes on 2 cores)
	@$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## kills, matrices and statistics (up to an hour)
	@$(BIN)/python -m pytest -m slow --timeout 1800

check: setup ## ruff, mypy --strict, import-linter, deptry
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: setup ## let ruff format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup $(BENCH_STAMP) ## print measured ratios (never asserted)
	@$(BIN)/python -m benchmarks

# What the benchmarks compare with. It needs nothing that the project does not install; without it a line is missing.
$(BENCH_STAMP): requirements/bench.txt $(STAMP)
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --no-deps -r requirements/bench.txt \
	    && touch $@ || echo "make: requirements/bench.txt could not be installed; going on without"

clean: ## remove the virtual environment (runs, models and the cache stay)
	rm -rf $(VENV)
