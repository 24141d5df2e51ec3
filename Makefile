# make setup | demo | test | bench | lint | format | report | clean; `make help` says what each does.
PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# uv does not read pip's settings: a folder of wheels that pip was told of serves uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# The build of torch: a CPU's where no GPU is seen, TORCH=cu128 for CUDA 12.8, TORCH= for what is
# found by itself, as where a folder of wheels is named.
TORCH ?= $(if $(UV_FIND_LINKS),,auto)
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/uv pip install --quiet $(if $(TORCH),--torch-backend $(TORCH))
SNAKEMAKE := $(RUN)/snakemake --profile none --cores $(CORES)
STAMP := $(VENV)/.installed
# Benchmarks also run where there is no .venv, such as a GPU machine with a torch of its own.
BENCH := PYTHONPATH=workflow/scripts $(firstword $(wildcard $(RUN)/python) $(PYTHON)) -m bench

ENVIRONMENTS := lavis open-clip

.PHONY: help setup setup-lavis setup-open-clip setup-llm-compressor demo test test-environments test-slurm test-browser bench bench-gpu bench-deploy bench-peers lint format report clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## install the pinned environment into .venv

$(STAMP): envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python $$($(PYTHON) --version) is too old. Allowed: 3.11 or newer. Name one: make setup PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' envs/lock.txt)
	$(INSTALL) --python $(RUN)/python -r envs/lock.txt
	$(INSTALL) --python $(RUN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)

setup-lavis: .venv-lavis/.installed  ## the environment of BLIP for NLVR2, into .venv-lavis

setup-open-clip: .venv-open-clip/.installed  ## the environment of EVA-CLIP, into .venv-open-clip

setup-llm-compressor: .venv-llm-compressor/.installed  ## llm-compressor, into .venv-llm-compressor

.venv-%/.installed: envs/%.yaml | $(STAMP)
	@$(PYTHON) -c 'import sys; sys.exit("$*" == "lavis" and sys.version_info[:2] != (3, 11))' || \
	  { echo "LAVIS on Python $$($(PYTHON) --version). Allowed: 3.11. Name one: make setup-lavis PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv-$*
	sed -n 's/^ *- \(.*==.*\)/\1/p' $< > .venv-$*/requirements.txt
	$(INSTALL) --python .venv-$*/bin/python -r .venv-$*/requirements.txt
	@touch $@

demo: $(STAMP)  ## all tables and figures on the demo models, one calibration seed
	$(SNAKEMAKE)
	@cat results/tables/demo-table1.md

test: $(STAMP)  ## unit, property and workflow tests
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n $(CORES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-environments: $(STAMP) $(ENVIRONMENTS:%=.venv-%/.installed)  ## models with an environment of their own
	.venv-lavis/bin/python -m pytest -m environments tests/environments/test_blip_nlvr.py
	.venv-open-clip/bin/python -m pytest -m environments tests/environments/test_open_clip.py
	$(RUN)/python -m pytest -m environments tests/workflow/test_other_environments.py

test-slurm: $(STAMP)  ## jobs on a Slurm that starts on this machine, as root (Debian: see .ci/run)
	$(RUN)/python -m pytest -m slurm tests/slurm

test-browser: $(STAMP)  ## the report in headless Chromium (Debian: apt-get install chromium)
	$(RUN)/python -m pytest -m browser tests/workflow/test_report.py

bench:  ## speed and memory on a CPU, into results/benchmarks
	$(BENCH) cpu
	$(BENCH) memory

bench-gpu:  ## BLIP-2 at its real size on a GPU; needs torch, transformers and pandas alone
	$(BENCH) gpu

bench-deploy:  ## 2:4 and unstructured sparsity against dense layers, as torch runs them here
	$(BENCH) deploy

bench-peers: $(STAMP) .venv-llm-compressor/.installed  ## pruning passes beside llm-compressor's
	@test -f "$(DATA)/test.txt" || \
	  { echo "No test.txt in DATA='$(DATA)'. Allowed: a folder with valid.txt and test.txt of WikiText-2. Name one: make bench-peers DATA=folder"; exit 1; }
	$(SNAKEMAKE) results/models/smollm2-135m
	PYTHONPATH=workflow/scripts .venv-llm-compressor/bin/python -m bench peers results/models/smollm2-135m $(DATA)

lint: $(STAMP)  ## ruff, codespell, pyright, import-linter, snakefmt, snakemake --lint
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/codespell *.md config docs workflow
	$(RUN)/pyright
	PYTHONPATH=workflow/scripts $(RUN)/lint-imports --no-cache
	$(RUN)/snakefmt --check Snakefile workflow/rules
	$(RUN)/snakemake --lint

format: $(STAMP)  ## format all code
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	$(RUN)/snakefmt Snakefile workflow/rules

report: $(STAMP)  ## results/report.html, Snakemake's report on the demo, and what it rests on
	$(SNAKEMAKE) all describe_run
	$(SNAKEMAKE) all describe_run --report results/report.html

clean:  ## delete everything that was made; the environment stays
	rm -rf results/* .snakemake .pytest_cache .ruff_cache .hypothesis
