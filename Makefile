# make demo: set up without PyTorch, reconstruct pictures from the subject that ships with the package, print where the
# report is: within a minute. make demo-full: set up with PyTorch, and the whole path: simulate, fit, reconstruct, export.
# make test: set up, run the tests, in one process more than there are cores, since tests of streams wait for them (at most
# 4: each takes 2 GB).
# make docs: set up, build the documentation as a site in build/site, its notebook run.
# A second run skips what is set up. One file: .venv/bin/python -m pytest tests/test_docs.py
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
# NOTEBOOKS=off: do not run the notebooks, which takes most of the time.
NOTEBOOKS ?= on
# More options for the tests: make test PYTEST=--durations=15. The long ones, which are left out: PYTEST="-m long"
PYTEST ?=
BIN = $(VENV)/bin

.PHONY: demo demo-full test lint docs check clean

demo: $(VENV)/ready-edge
	$(BIN)/md-reconstruct demo --out $(RUN)

demo-full: $(VENV)/ready-export
	$(BIN)/md-reconstruct demo --full --out $(RUN)-full

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest --numprocesses $$($(BIN)/python -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))') \
		--dist loadfile --no-loadscope-reorder $(PYTEST)

# The repository's root is the package, so the type checker needs to see it under the package's name.
lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/tree && ln -sfn "$(CURDIR)" $(VENV)/tree/minddiffuser
	cd $(VENV)/tree && ../bin/mypy --config-file $(CURDIR)/pyproject.toml -p minddiffuser.runtime -p minddiffuser.training -p minddiffuser.export -p minddiffuser.streaming

# The documentation as a site: build/site/index.html. A link that leads nowhere, and an error in a notebook, end it.
docs: $(VENV)/ready-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" NOTEBOOKS=$(NOTEBOOKS) $(BIN)/python -m sphinx -q -W --keep-going docs build/site
	@echo build/site/index.html

# Everything that CI runs.
check:
	bash .ci/run

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "venv is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

# The stamp carries the extra's name; it is remade when the dependencies change.
$(VENV)/ready-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
