# Everything the project can do, one target each. `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# What is installed is held to the versions the tests ran against; `make CONSTRAINTS= ...` lifts that.
CONSTRAINTS ?= -c constraints.txt
WORKERS ?= 2

# Compiled imports are kept whatever the caller's setting: without them every start takes four seconds longer.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
DEV := .[test,dev]
BOOK := .[docs,metrics,robots,paligemma,lab]
# A folder of wheels named by pip's own variable serves uv as well; a named folder that isn't there is no error.
UV_INSTALL = UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install --python $(BIN)/python
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
# The tests call the installed command. One thread each: a second one slows a small network down. Each worker begins
# with a part of its own, so that what a file's tests share is made once.
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Import the heavy libraries and list the tables once, so that the first command doesn't pay for it.
WARM = $(BIN)/python -c "import accelerate, matplotlib.pyplot, scipy.optimize, scipy.stats, torch" && $(BIN)/ebbtide list >/dev/null

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(VENV)/.installed ## Make .venv and install ebbtide in it

.PHONY: install-dev
install-dev: $(VENV)/.installed-dev ## The same, with what tests and checks need

.PHONY: demo
demo: install ## Train diffusion and flow matching side by side; the report goes to runs/demo
	$(BIN)/ebbtide compare --data three_gaussians --out runs/demo --overwrite

.PHONY: test
test: install-dev ## Run the tests
	$(PYTEST) -m "not slow"

.PHONY: test-slow
test-slow: install-dev ## Run the tests that take long: more than an hour in all
	$(PYTEST) -m slow

.PHONY: mutants
mutants: install-dev ## Plant slips in the core one at a time; the tests must find every one
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/mutants.py

.PHONY: lint
lint: install-dev ## Check format, style, types and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

.PHONY: format
format: install-dev ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.installed-bench ## Time ebbtide beside other libraries on points
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.points

.PHONY: bench-samplers
bench-samplers: $(VENV)/.installed-bench ## Hold ebbtide's samplers against those of other libraries
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m benchmarks.samplers --choices benchmarks/samplers.json

.PHONY: bench-scale
bench-scale: install-dev ## Time image and episode sets on the disk beside the same in memory
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale images --out benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale episodes --out benchmarks

.PHONY: bench-tables
bench-tables: install-dev ## Judge generated tables beside cheap bars and peers
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.tables --out benchmarks

.PHONY: bench-unet
bench-unet: install-dev ## Time ebbtide's U-Net beside diffusers'
	$(BIN)/python -m benchmarks.unet

.PHONY: docs
docs: $(VENV)/.installed-docs ## Build the book, running every chapter; docs/_build/html/index.html opens it
	$(BIN)/python -m sphinx -W --keep-going -q -j $(WORKERS) -b html docs docs/_build/html
	@echo "The book: docs/_build/html/index.html"

.PHONY: clean
clean: ## Remove .venv and every cache; runs/ stays
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, made once. uv resolves in seconds; where it can't be had, pip does the same more slowly.
$(BIN)/python:
	@v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) \
	  || { echo "ebbtide needs Python 3.11 or newer, but '$(PYTHON)' is $${v:-not found}; name another one, as in: make PYTHON=python3.12 demo" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "'$(PYTHON)' can't make an environment; on Debian and Ubuntu, install python3-venv." >&2; exit 2; }
	@$(PIP_INSTALL) uv || echo "uv can't be installed here; going on with pip." >&2

# $(call pip,ARGUMENTS): uv's errors are shown, then pip tries; only pip's failure is final.
pip = $(UV_INSTALL) $(1) || { echo "uv did not manage; trying pip." >&2; $(PIP_INSTALL) $(1); }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ebbtide in $(VENV)"
	@$(call pip,$(CONSTRAINTS) -e .)
	@$(WARM)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ebbtide in $(VENV), with what tests and checks need"
	@$(call pip,$(CONSTRAINTS) -e "$(DEV)")
	@$(WARM)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ebbtide in $(VENV), with what builds its book"
	@$(call pip,$(CONSTRAINTS) -e "$(BOOK)")
	@$(WARM)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: benchmarks/requirements.txt $(VENV)/.installed-dev
	@echo "Installing the libraries we compare with"
	@$(call pip,--no-deps -r benchmarks/requirements.txt)
	@$(call pip,$(CONSTRAINTS) einops pandas scikit-learn torchdiffeq)
	@touch $@
