# make demo   two pictures in, in-betweens out, under demo/
# make animatic-demo   five drawn panels as an OTIO storyboard, filled and rendered, under demo/animatic
# make test   the tests of everything but the three other Blenders
# make test-blender   the extension inside all four Blenders
# make extension      the extension's zips, under dist/
# make bench-blender  what the extension takes of a window's time, in Blender 4.2 and 5.2, beside what was promised
# make walk-kdenlive  what Kdenlive's own window makes of a filled project, each frame counted
# make walk-blender   what a stranger does with the zip alone, in windows of both, with pictures
# make torture   what should never happen to a server, done to one; QUICK=1: in less than three minutes
# make test-ray       workers that Ray places, on a cluster on this machine
# make cluster-demo   Ray on this machine, a node killed in the middle, six gaps filled, under demo/cluster
# make scale          the figures of docs/scale.md
# make lint, make bench, make bench-world
# make node-client    the libraries of the client in JavaScript, so that its test runs
# make bench-files    codecs: errors, tags as ffprobe reads them
# make speed    docs/speed.md from the figures in docs/figures
# make strategies     table and picture of the README's strategy section, under demo/strategies
# make bench-draft    the draft engine against true in-betweens, sheets under demo/draft

PYTHON ?= python3
PYTHON_FOR_BLENDER_5_2 ?= PYENV_VERSION=3.13.0 python3.13
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --disable-pip-version-check --quiet -c constraints.txt
BPY_42 := 4.2.23
BPY_45 := 4.5.15
BPY_50 := 5.0.1
BPY_52 := 5.2.3
# Each bpy wants a numpy of its own, so the constraints are not for these.
BLENDER_TESTS := $(shell grep -E "^pytest(-timeout)?==" constraints.txt)
INSIDE_BLENDER := -m pytest tests/addon --timeout 300

.PHONY: strategies scale cluster-demo test-ray demo animatic-demo node-client test test-server test-blender libraries lint bench bench-blender walk-blender walk-kdenlive speed bench-draft bench-files bench-world torture extension clean

demo: $(VENV)/.run
	$(BIN)/python examples/demo.py

node-client: examples/clients/node/node_modules/.ready

examples/clients/node/node_modules/.ready: examples/clients/node/package-lock.json
	npm ci --prefix examples/clients/node --ignore-scripts --no-audit --no-fund
	touch $@

cluster-demo: $(VENV)/.ray
	$(BIN)/python examples/cluster/demo.py

animatic-demo: $(VENV)/.run
	$(BIN)/python examples/animatic.py

test: libraries test-server test-blender-50

test-server: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/addon

test-ray: $(VENV)/.dev $(VENV)/.ray
	timeout 900 $(BIN)/python -m pytest -m ray tests/cluster

test-blender: test-blender-42 test-blender-45 test-blender-50 test-blender-52

test-blender-52: INSIDE_BLENDER += -W error::DeprecationWarning

libraries:
	tests/addon/libraries.sh

test-blender-%: libraries $(VENV)/.dev .venv-bpy%/.ready extension
	timeout 1200 .venv-bpy$*/bin/python $(INSIDE_BLENDER)

# A window of a bpy wheel needs a tool that opens one: WINDOW names it, a Python script that runs another inside.
bench-blender: bench-blender-42 bench-blender-52

walk-blender: walk-blender-42 walk-blender-52

bench-blender-% walk-blender-%: SCRIPT = $(if $(findstring bench,$@),bench,animatic)
bench-blender-% walk-blender-%: libraries $(VENV)/.dev .venv-bpy%/.ready extension
	test -n "$(WINDOW)" || { echo "WINDOW=... names the tool that opens a bpy wheel with its window"; exit 1; }
	timeout 1800 .venv-bpy$*/bin/python $(WINDOW) tests/addon/window/$(SCRIPT).py

walk-kdenlive: $(VENV)/.dev
	$(BIN)/python tests/animatic/kdenlive.py $(ARGS)

extension: $(VENV)/.dev .venv-bpy50/.ready
	$(BIN)/python blender_addon/build.py

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: $(VENV)/.run
	$(BIN)/sfserver bench --out bench.json

bench-files: $(VENV)/.run
	$(BIN)/python -m sfserver.bench.files examples

strategies: $(VENV)/.run
	$(BIN)/sfserver compare examples/world_start.png examples/world_end.png --engines draft,small-world --frames 18 \
	  --prompt "a red ball jumps over" --vary anchor_strength=-30,0,2 --out demo/strategies
	cat demo/strategies/table.md

scale: $(VENV)/.run
	$(BIN)/python -m sfserver.bench.scale

speed: $(VENV)/.run
	$(BIN)/python -m sfserver.bench.speed $(sort $(wildcard docs/figures/*.json)) > docs/speed.md

bench-draft: $(VENV)/.run
	$(BIN)/python -m sfserver.bench.draft examples --sheets demo/draft

bench-world: $(VENV)/.run
	$(BIN)/sfserver bench --world --out bench-world.json

torture: $(VENV)/.torture
	$(BIN)/python -m tests.torture $(if $(QUICK),--quick) $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install $(PIP_FLAGS) -e '.[test,lint,editors]'
	touch $(VENV)/.run $@

$(VENV)/.ray: pyproject.toml constraints.txt | $(VENV)/.run
	$(BIN)/pip install $(PIP_FLAGS) -e '.[ray]'
	touch $@

$(VENV)/.torture: pyproject.toml constraints.txt | $(VENV)/.dev
	$(BIN)/pip install $(PIP_FLAGS) -e '.[torture]' || echo "no atheris for this Python: messages are mutated by chance alone"
	touch $@

.venv-bpy52/.ready: python-of-blender = $(PYTHON_FOR_BLENDER_5_2)
.venv-bpy%/.ready: python-of-blender = $(PYTHON)
.venv-bpy%/.ready: constraints.txt
	$(python-of-blender) -m venv .venv-bpy$*
	.venv-bpy$*/bin/pip install --disable-pip-version-check --quiet bpy==$(BPY_$*) $(BLENDER_TESTS)
	touch $@

.SECONDARY:  # make would delete what only a pattern asks for

clean:
	rm -rf $(VENV) .venv-bpy* .wheels build demo dist bench*.json torture.json
