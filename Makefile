# Everything runs in $(VENV), which the first target that needs it creates.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin
READY = $(VENV)/.installed
KERNELS = $(VENV)/share/hf_models/kernels/.built
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help demo gallery test test-slow test-browser test-clients test-transformers fuzz lint docs tables wheel space clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(KERNELS)  ## classify the sample photo with the embedded checkpoint
	$(BIN)/hf-models classify examples/sample.jpg

gallery: $(KERNELS)  ## draw examples/gallery anew
	$(BIN)/python examples/gallery.py

test: $(KERNELS)  ## run the tests
	$(PYTEST) -m "not slow"

test-slow: $(KERNELS)  ## run the tests that need minutes or gigabytes
	$(PYTEST) -m slow

fuzz: $(READY)  ## feed 100,000 damaged files to the readers (half an hour)
	$(BIN)/python tests/fuzz/fuzz.py --runs 100000

test-browser: $(KERNELS)  ## run the tests of the demo in the Chromium of this machine
	$(BIN)/python -m pip install --editable '.[demo]' playwright
	$(PYTEST) tests/cli/test_demo.py

test-clients: $(KERNELS)  ## run exported models in optimum, transformers.js and the Chromium of this machine
	$(PYTHON) -m venv build/optimum
	build/optimum/bin/pip install optimum-onnx==0.1.0 transformers==4.57.6 onnxruntime
	cd examples/browser && npm install --ignore-scripts
	$(BIN)/python -m pip install playwright
	HF_MODELS_OPTIMUM_PYTHON=$(CURDIR)/build/optimum/bin/python $(PYTEST) tests/conversion/test_export_clients.py

test-transformers: $(KERNELS)  ## run transformers' own common tests against every family
	$(BIN)/python tests/transformers_suite/run.py

lint: $(READY)  ## check style, format and the contracts between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/lint .
	cd build/lint && PYTHONPATH=. $(abspath $(BIN))/lint-imports $(CURDIR)/pyproject.toml --no-cache

docs: $(READY)  ## build the documentation into build/docs; a broken link fails
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

tables: $(READY)  ## render the tables of the README, the documentation and the kernels' cards anew
	$(BIN)/python docs/site/tables.py

wheel: $(READY)  ## build the source distribution, and the wheel from it, into dist/
	rm -rf dist
	$(BIN)/python -m build

space: wheel  ## lay out all that a Space of the Hub needs, in dist/space
	$(BIN)/python -m zipfile -e dist/*.whl dist/space
	cp examples/space/* dist/space

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

# without a C++ compiler this fails and is passed over: the models run on the PyTorch reference
$(KERNELS): $(READY) $(wildcard kernels_src/*.py kernels_src/common/*.* kernels_src/*/build.toml kernels_src/*/*/*.* kernels_src/*/*/*/*.py)
	-$(BIN)/hf-models kernels build
	mkdir -p $(@D)
	touch $@
