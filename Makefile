# Each target prepares what it needs: the first call installs into .venv, later calls cost a second.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Two processes with one thread each are faster on a small machine than one with two threads.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench docs site results clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with 'make PYTHON=/path/to/python3 ...'."; exit 2; }
	@test -x $(PY) || { echo "Making an environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is needed; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }; }
	@echo "Installing PyTorch (the largest part) ..."
	@$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt torch
	@echo "Installing everything else ..."
	@$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(STAMP)  ## install into .venv

demo: $(STAMP)  ## probe the bundled model, train FeRA and LoRA, write a report (options: DEMO="--fresh")
	@$(ONE_THREAD) $(PY) -m cli.demo $(DEMO)

test: $(STAMP)  ## the whole test suite but the slow tests
	$(ONE_THREAD) $(PY) -m pytest -q -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(STAMP)  ## the slow tests
	$(ONE_THREAD) $(PY) -m pytest -q -n $(WORKERS) -m slow $(ARGS)

lint: $(STAMP)  ## ruff (rules and format) and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP)  ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(STAMP)  ## ratios against other implementations; prints tables, writes JSON
	@$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@for file in benchmarks/*.py; do echo "== $$file"; $(ONE_THREAD) $(PY) $$file || exit 1; done

docs: $(STAMP)  ## run the pages of docs/, renew their pictures and build the site in site/
	@$(ONE_THREAD) $(PY) docs/run.py docs/tour.md docs/howto/*.md docs/concepts/*.md --pictures docs/images
	@$(ONE_THREAD) $(PY) docs/figures.py docs/images
	@$(PY) docs/hooks.py
	@$(MAKE) --no-print-directory site

site: $(STAMP)  ## build the site alone
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

results: $(STAMP)  ## docs/results.md from the runs of the experiment (benchmarks/quality)
	@$(ONE_THREAD) $(PY) -m benchmarks.quality.results --runs runs/quality

clean:  ## remove the environment, caches and what the demo wrote (not other runs)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site runs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
