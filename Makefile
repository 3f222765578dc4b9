# Stillroom. `make help` lists the targets.

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

# The versions that the requirements are locked for. PYTHON names one (PYTHON=python3.13); else the first that is here.
PYTHONS := 3.11 3.12 3.13
FIND_PYTHON := sh requirements/find-python.sh
ifeq ($(origin PYTHON),undefined)
PYTHON = $(shell $(FIND_PYTHON) $(PYTHONS:%=python%))
else
# Whoever names a Python means it, also where .venv is there with another.
override PYTHON := $(or $(shell $(FIND_PYTHON) $(call quoted,$(value PYTHON))),$(value PYTHON))
VERSION_OF := -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
OTHER_PYTHON := $(filter-out $(shell $(BIN)/python $(VERSION_OF)), \
                $(shell $(call quoted,$(PYTHON)) $(VERSION_OF) || echo unknown))
endif
MAKE_VENV = { $(if $(OTHER_PYTHON),,test -x $(BIN)/python ||) \
              sh requirements/make-venv.sh $(VENV) $(call quoted,$(PYTHON)) $(PYTHONS); } && \
            $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# uv does not read pip's settings. Where pip is told to look for wheels in a folder, uv is told too; elsewhere uv
# knows by itself where the CPU builds of torch are.
TORCH_cpu = $(if $(PIP_FIND_LINKS),$(foreach one,$(PIP_FIND_LINKS),--find-links $(call quoted,$(one))),--torch-backend cpu)
TORCH_gpu =
INSTALL = $(BIN)/uv pip install --quiet --no-config --python $(BIN)/python
# That folder may have the CPU build for one Python alone; for another, the build for GPUs works as well.
define install_requirements
if test $(BACKEND) = cpu && test -n "$(PIP_FIND_LINKS)" && \
    ! $(INSTALL) --dry-run --no-deps $(TORCH_cpu) $$(grep ^torch== requirements/cpu.txt) 2>/dev/null; \
then \
    echo "make: no CPU build of torch for this Python in $(PIP_FIND_LINKS); the one for GPUs is taken, which takes 4 GB more"; \
    $(INSTALL) --constraint requirements/gpu.txt torch \
    && grep -v -e ^torch== -e ^triton== requirements/cpu.txt | $(INSTALL) --no-deps --requirements -; \
else \
    $(INSTALL) --no-deps $(TORCH_$(BACKEND)) --requirements requirements/$(BACKEND).txt; \
fi
endef

COMPILE = $(BIN)/uv pip compile --quiet --no-config --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
          --override requirements/overrides.txt
# lock(name, how): one list holds for every Python. It is made for the lowest; the others must find all that they ask for
# in it. (Torch is left out there: the folder of wheels again.)
define lock
	$(COMPILE) --python-version $(firstword $(PYTHONS)) --upgrade $(2) requirements/$(1).in --output-file requirements/$(1).txt
	@for version in $(wordlist 2,9,$(PYTHONS)); do \
	    wanted=$$(echo "torch ; sys_platform == 'never'" | $(COMPILE) --python-version $$version $(2) --override - \
	        --constraint requirements/$(1).txt requirements/$(1).in) || exit 2; \
	    if echo "$$wanted" | grep -vxFf requirements/$(1).txt; \
	    then echo "make: Python $$version needs these too: name them in requirements/$(1).in"; exit 2; fi; \
	done
endef

.DEFAULT_GOAL := help
.PHONY: help setup lock distill plan test test-slow test-pythons other-python check format bench bench-gpu serve ui clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  Variables: CONFIG='$(call quoted,$(value CONFIG))'  SET="a.b=c d.e=f"  BACKEND=cpu|gpu (found: $(BACKEND))'

setup: $(STAMP) ## install the locked requirements into .venv (once)

$(STAMP): requirements/$(BACKEND).txt pyproject.toml $(if $(OTHER_PYTHON),other-python)
	@$(MAKE_VENV)
	@echo "Setting up $(VENV) for the $(BACKEND) backend (once; about half a minute on a fast line) ..."
	@$(install_requirements)
	@$(INSTALL) --no-deps --editable .
	@touch $@

other-python:

lock: ## make requirements/{cpu,gpu,bench}.txt anew
	@$(MAKE_VENV)
	$(call lock,cpu,$(TORCH_cpu))
	$(call lock,gpu,--python-platform x86_64-manylinux_2_28)
	$(call lock,bench,--no-deps)

distill: setup ## run an experiment: fill the cache, train, evaluate, compare
	@$(BIN)/distill run $(THE_CONFIG) $(ARGS)

plan: setup ## print what an experiment would cost, and stop
	@$(BIN)/distill plan $(THE_CONFIG) $(ARGS)

ui: setup ## open the MLflow UI on loopback
	@$(BIN)/distill ui $(THE_CONFIG) $(ARGS)

serve: setup ## open a door to the teacher, for many who ask (docs/service.md)
	@$(BIN)/distill serve $(THE_CONFIG) $(ARGS)

# Two files of tests at a time, whole runs first; the tests of one file share what they have started.
test: setup ## the test suite, with a true end-to-end run (about a quarter of an hour on 2 cores)
	@$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: setup ## kills, matrices and statistics (an hour; two and more on slow cores)
	@$(BIN)/python -m pytest -m slow --timeout 1800

# Each in an environment of its own, .venv-3.12 and so on: what starts no engine, worker group or cluster, and one whole
# run with all of them.
PYTHONS_TESTS = -m "not slow and not engine and not group" tests/unit
PYTHONS_RUN = tests/end_to_end/test_pipeline.py -k the_terminal_tells
test-pythons: ## the unit tests and one tiny run under each of Python 3.11, 3.12 and 3.13 that is found
	@try() { \
	    if ! python=$$($(FIND_PYTHON) python$$1); then verdict="not found"; \
	    elif $(MAKE) --no-print-directory setup PYTHON="$$python" VENV=.venv-$$1 \
	        && .venv-$$1/bin/python -m pytest $(PYTHONS_TESTS) && .venv-$$1/bin/python -m pytest $(PYTHONS_RUN); \
	    then verdict=passed; else verdict=FAILED; fi; \
	    verdicts="$${verdicts}Python $$1: $$verdict\n"; \
	}; \
	for version in $(PYTHONS); do try $$version; done; \
	printf "\n$$verdicts"; \
	case "$$verdicts" in *FAILED*) exit 1;; *passed*) ;; *) exit 2;; esac

check: setup ## ruff, mypy --strict, import-linter, deptry
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: setup ## let ruff format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup $(BENCH_STAMP) ## one table: what, measured, target, peers (never asserted)
	@$(BIN)/python -m benchmarks

bench-gpu: setup ## losses, steps and feed against the device's own floors (six minutes on a GPU)
	@$(BIN)/python -m benchmarks.gpu

# What the benchmarks compare with. It needs nothing that the project does not install; without it a line is missing.
$(BENCH_STAMP): requirements/bench.txt $(STAMP)
	@$(INSTALL) --no-deps --requirements requirements/bench.txt \
	    && touch $@ || echo "make: requirements/bench.txt could not be installed; going on without"

clean: ## remove the virtual environments (runs, models and the cache stay)
	rm -rf $(VENV) $(PYTHONS:%=.venv-%)
