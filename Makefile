# `make compare` and `make test` need Python 3.11 to 3.13, make and a package index, and nothing else.
# PYTHON chooses the interpreter, ARGS goes to the experiment or to pytest.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: help compare evidence test check format docs clean
help:
	@echo 'make compare [ARGS="--source meld --data-dir DIR"]  what padding costs: fixed, exact, bucketed, planned'
	@echo 'make evidence [ARGS="--quick --data-dir DIR"]       every claim and every rival, measured: one page to read'
	@echo 'make test    [ARGS="-k padding"]                    the tests'
	@echo 'make check                                          format, lint, types, doctests'
	@echo 'make format                                         mend format and imports'
	@echo 'make docs                                           the documentation, with its notebook run, to site/'
	@echo 'make clean                                          remove the virtual environment, the site and caches'

compare: $(VENV)/installed-$(VERSION)-experiments
	$(BIN)/python -m experiments.compare_padding $(ARGS)

evidence: $(VENV)/installed-$(VERSION)-experiments
	$(BIN)/python -m experiments.evidence $(ARGS)

test: $(VENV)/installed-$(VERSION)-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/installed-$(VERSION)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q --doctest-modules multimodal_pad experiments

format: $(VENV)/installed-$(VERSION)-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-$(VERSION)-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# One install per Python version and set of extras; another version of Python starts afresh.
$(VENV)/installed-$(VERSION)-%: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "%s is Python %d.%d; this project needs 3.11 to 3.13: make PYTHON=python3.12 ..." % (sys.executable, *v))'
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" || rm -rf $(VENV)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'Installing the $* set into $(VENV) (a minute or two, once)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis
	find multimodal_pad experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
