# `make compare` and `make test` need Python 3.11 to 3.13, make and a package index, and nothing else.
# PYTHON chooses the interpreter, ARGS goes to the experiment or to pytest.
# compare, evidence and test use an NVIDIA GPU where there is one; CUDA= turns that off, CUDA=12 or CUDA=13 chooses.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# What is installed into $(VENV) and for which device: cpu, cuda12 or cuda13, extras of pyproject.toml.
BUILD := cpu
ifneq ($(filter compare evidence test,$(MAKECMDGOALS)),)
CHOICE := $(shell $(PYTHON) tools/jax_build.py $(if $(filter undefined,$(origin CUDA)),,'$(CUDA)'))
BUILD := $(firstword $(CHOICE))
$(if $(BUILD),$(info $(wordlist 2,99,$(CHOICE))),$(error the line above says why))
endif
ifeq ($(BUILD),cpu)
JAX_PLATFORMS ?= cpu
export JAX_PLATFORMS
endif
OTHER_CUDA := $(if $(filter cuda%,$(BUILD)),$(filter-out $(BUILD),cuda12 cuda13))
INSTALLED = $(VENV)/installed-$(VERSION)-$(BUILD)

.PHONY: help compare evidence test check package format docs clean
help:
	@echo 'make compare [ARGS="--source meld --data-dir DIR"]  what padding costs: fixed, exact, bucketed, planned, packed'
	@echo 'make evidence [ARGS="--quick --data-dir DIR"]       every claim and every rival, measured: one page to read'
	@echo 'make test    [ARGS="-k padding"]                    the tests'
	@echo 'make check                                          format, lint, types, doctests'
	@echo 'make package                                        wheel and source distribution, built and tried without JAX'
	@echo 'make format                                         mend format and imports'
	@echo 'make docs                                           the documentation, with its notebook run, to build/docs/site/'
	@echo 'make clean                                          remove the virtual environment, the site and caches'
	@echo 'compare, evidence and test use an NVIDIA GPU where there is one: CUDA= for the CPU, CUDA=12 or CUDA=13 to choose'

compare: $(INSTALLED)-experiments
	$(BIN)/python -m experiments.compare $(ARGS)

evidence: $(INSTALLED)-experiments
	$(BIN)/python -m experiments.evidence $(ARGS)

test: $(INSTALLED)-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

check: $(INSTALLED)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q --doctest-modules multimodal_pad experiments

package: $(INSTALLED)-dev
	$(BIN)/python tools/check_package.py $(ARGS)

format: $(INSTALLED)-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Beside the site lie what Sphinx has read, and the notebook as it was run.
docs: $(INSTALLED)-docs
	rm -rf build/docs
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --doctree-dir build/docs/doctrees docs build/docs/site

# One install per Python version, build of JAX and set of extras; another version of Python or of CUDA starts afresh.
$(INSTALLED)-%: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "%s is Python %d.%d; this project needs 3.11 to 3.13: make PYTHON=python3.12 ..." % (sys.executable, *v))'
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" || rm -rf $(VENV)
	@test -z "$(and $(OTHER_CUDA),$(wildcard $(VENV)/installed-*-$(OTHER_CUDA)-*))" || rm -rf $(VENV)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'Installing the $* set with JAX for $(BUILD) into $(VENV) (once; a minute or two, longer with CUDA)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*,$(BUILD)]'
	@touch $@

clean:
	rm -rf $(VENV) build/docs .pytest_cache .ruff_cache .hypothesis
	find multimodal_pad experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
