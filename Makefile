# make demo   two pictures in, in-betweens out, under demo/
# make test   the tests of everything but the three other Blenders
# make test-blender   the extension inside all four Blenders
# make lint, make bench, make extension

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.run
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: $(VENV)/.run
	$(BIN)/sfserver bench --out bench.json

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install $(PIP_FLAGS) -e '.[test,lint]'
	touch $(VENV)/.run $@

clean:
	rm -rf $(VENV) demo dist bench.json
