# `make` lists the verbs. Each sets up what it needs, once.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
ARGS ?=
-include .env
export

.DEFAULT_GOAL := help

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch first and alone, so that nothing asks for another version of it. PyPI's build for Linux brings CUDA along.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

setup: $(READY) ## make the virtual environment and install everything into it

train: $(READY) ## the main job: TP4 x EP4 x PP4 on 16 ranks at laptop size; make train ARGS="trainer.max_steps=100"
	$(RUN) project/train.py +experiment=tp4_ep4_pp4 model=small $(ARGS)

test: lint unit ## everything that has to hold

# Two files at a time, and then, by themselves, those that hold a limit of seconds. Status 5: none of them was asked for.
unit: $(READY) ## the tests; make unit ARGS="-k router"
	$(RUN) -m pytest -n 2 --dist loadfile -m "not alone" $(ARGS) || test $$? = 5
	$(RUN) -m pytest -m alone $(ARGS) || test $$? = 5

parity: $(READY) ## many more layouts, models and routings against one rank than `make test` has; an hour or more
	$(RUN) -m pytest tests/parity --parity-cases=400 --hypothesis-profile=parity $(ARGS)

mutations: $(READY) ## put known bugs in, one at a time, and name the tests that notice: tests/parity/README.md
	PYTHONPATH=. $(RUN) tests/parity/mutations.py $(ARGS)

soak: $(READY) ## kill processes of 16-rank runs at random moments, 60 times, and resume; an hour
	PYTHONPATH=. $(RUN) tests/soak/soak.py $(ARGS)

two-hosts: $(READY) ## as root: two network namespaces for hosts, torchrun in each, one of which dies; ten minutes
	PYTHONPATH=. $(RUN) tests/two_hosts/two_hosts.py $(ARGS)

# An environment of its own, beside the one that everything else runs in.
TORCH ?= 2.11.0
OTHER := .venvs/torch-$(TORCH)
compat: ## another torch trains the same: make compat TORCH=2.11.0
	test -x $(OTHER)/bin/pip || $(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(OTHER)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(OTHER)/bin/python -m pytest tests/test_imports.py tests/compat tests/preflight tests/engine \
		tests/parity/test_layouts.py tests/state/checkpoint/test_exact_resume.py $(ARGS)
	$(OTHER)/bin/python project/train.py +experiment=tp4_ep4_pp4 model=small trainer.max_steps=3 logger=csv

# PyPI's build for Linux has CUDA; a C compiler builds what stands in for the driver.
CUDA_TORCH ?= 2.14.1
PRETENDED := .venvs/gpu-check
gpu-check: ## the same training on GPUs that are not there: docs/gpu_check.md
	test -x $(PRETENDED)/bin/pip || $(PYTHON) -m venv $(PRETENDED)
	$(PRETENDED)/bin/pip install --quiet --disable-pip-version-check torch==$(CUDA_TORCH)
	$(PRETENDED)/bin/pip install --quiet --disable-pip-version-check -e . pytest hypothesis
	$(PRETENDED)/bin/python -m pytest tests/gpu_check --pretend-gpus $(ARGS)

fuzz: $(READY) ## 2,000 configurations that nobody would write, through every command; an hour
	$(RUN) -m pytest tests/fuzz --fuzz-configs=2000 -x $(ARGS)

lint: $(READY) ## ruff, mypy and the order of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(READY) ## put the code into its form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY) ## seconds per full-size step, against transformers' model in one process
	$(RUN) -m benchmarks.step $(ARGS)

scoreboard: $(READY) ## the planner against measured runs of others: benchmarks/planner_scoreboard.md
	$(RUN) -m benchmarks.planner_scoreboard $(ARGS)

bench-planner: $(READY) ## calibrate this machine, then predicted against measured steps of layouts of 1 to 16 ranks
	$(RUN) -m benchmarks.planner_layouts --calibrate $(ARGS)

clean: ## remove the environment and the caches
	rm -rf $(VENV) .venvs .pytest_cache .mypy_cache .ruff_cache *.egg-info

.PHONY: help setup train test unit parity mutations soak two-hosts compat gpu-check fuzz lint format bench scoreboard bench-planner clean
