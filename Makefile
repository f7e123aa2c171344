# Each target works on a new machine. The README also has the commands that install, train and test without make.
PYTHON ?= python3
CXX ?= g++
VENV := .venv
BIN := $(VENV)/bin
# constraints.txt has only versions that CI has tested. So a new release of a package cannot break an old clone.
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: train test slow lint bench check docs docs-serve wheel constraints faults sanitize fuzz arm64 test-kernels-gpu clean
.DEFAULT_GOAL := help

help:
	@echo "make train   draw the data set shapes, pretrain on it, evaluate, draw pictures (minutes)"
	@echo "make test    run the test suite"
	@echo "make slow    run the tests that take minutes each"
	@echo "make check   compare the ops on this machine with the reference in NumPy"
	@echo "make bench   time the ops and the training step"
	@echo "make lint    ruff, mypy, clang-format, and a search for phrases that need a second reading"
	@echo "make docs    build the site in build/docs; make docs-serve shows it at http://localhost:8000"
	@echo "make test-kernels-gpu   test every CUDA kernel on a GPU, also under compute-sanitizer (needs nvcc, NumPy, and PyTorch or CuPy)"
	@echo "make faults  try kills, full disks, corrupted runs and damaged inputs, for hours; print every wrong outcome"
	@echo "make wheel   build the wheel and the source distribution in dist, and try the wheel with every Python of this machine"
	@echo "make constraints   write the newest versions of all packages into constraints.txt; then run make test"
	@echo "make sanitize, make fuzz   test the kernels under sanitizers; test them with random shapes and values for ten minutes"
	@echo "make arm64   build for arm64: run the kernels' test drivers under emulation, and build a wheel (Debian's cross compiler)"

# The file .venv/complete is written last. If an installation was interrupted, this file is missing and make installs
# again. --no-build-isolation builds with the setuptools of constraints.txt. The build reads the headers of TensorFlow.
$(VENV)/complete: constraints.txt setup.py build_backend.py pyproject.toml $(wildcard kernels/* kernels/*/*)
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Name a Python, as in  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c '' || \
		{ echo "$(PYTHON) does not start. Repair it, or name another, as in  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), and TensorFlow needs 3.10 to 3.13. Name one, as in  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. Install them with  sudo apt install python3-venv"; exit 1; }
	@command -v $(CXX) >/dev/null || \
		{ echo "There is no C++ compiler ($(CXX)). Install one with  sudo apt install g++"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --quiet pip setuptools tensorflow
	$(INSTALL) --no-build-isolation -e '.[test]'
	@touch $@

.PHONY: $(VENV)
$(VENV): $(VENV)/complete

train: $(VENV)
	$(BIN)/python -m lowlevel_simclr.train
	@echo "The commands above, and lowlevel-simclr, work after   . $(BIN)/activate"

# All tests of a file run in one process (--dist loadfile), so that they can share training runs. On two cores, two files
# run at a time. The files run in the order of their names (--no-loadscope-reorder). By default, files with few tests
# would run last, and some of these few tests take longest. With a GPU, each process takes only as much of its memory as
# it needs (ALLOW_GROWTH), because all processes share it.
test: $(VENV)
	TF_FORCE_GPU_ALLOW_GROWTH=true $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow: $(VENV)
	$(BIN)/python -m pytest -m slow

check: $(VENV)
	$(BIN)/python -m lowlevel_simclr.check

bench: $(VENV)
	$(BIN)/python -m bench.ops.bench_nt_xent
	$(BIN)/python -m bench.ops.bench_lars_update
	$(BIN)/python -m bench.ops.bench_convolution
	$(BIN)/python -m bench.ops.bench_make_views
	$(BIN)/python -m bench.ops.bench_draw_view_params
	$(BIN)/python -m bench.step.bench_input
	$(BIN)/python -m bench.step.bench_step
	$(BIN)/python -m bench.step.bench_step_updates
	$(BIN)/python -m bench.step.bench_step_loop
	$(BIN)/python -m bench.step.bench_step_sizes
	$(BIN)/python -m bench.step.bench_micro_batch
	$(BIN)/python -m bench.step.bench_startup
	$(BIN)/python -m bench.step.bench_distribute

lint: $(VENV)
	$(INSTALL) --quiet -r requirements-lint.txt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin -p lowlevel_simclr
	$(BIN)/mypy --platform win32 -p lowlevel_simclr
	$(BIN)/python -m tests.support.prose
	$(BIN)/clang-format --dry-run -Werror $(shell find kernels -name '*.cc' -o -name '*.h' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh')

# -W makes every warning an error. The option -n is left out: with it, Sphinx would also warn about TensorFlow's own
# types, which have no page on this site.
docs: $(VENV)
	$(INSTALL) --quiet -r requirements-docs.txt
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b linkcheck docs build/linkcheck
	@echo "the site: build/docs/index.html"

docs-serve: docs
	$(BIN)/python -m http.server --directory build/docs 8000

# The wheel is built from the source distribution, with the TensorFlow of .venv. It runs on any x86-64 Linux whose glibc
# is 2.17 or later. The project has no e-mail address, so pyroma skips its test for one.
TENSORFLOW_LIBRARIES := --exclude libtensorflow_framework.so.2 --exclude libtensorflow_cc.so.2
wheel: $(VENV)
	$(INSTALL) --quiet -r requirements-wheel.txt
	rm -rf dist build/unrepaired
	$(BIN)/python -m build --no-isolation --outdir build/unrepaired .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair $(TENSORFLOW_LIBRARIES) --wheel-dir dist build/unrepaired/*.whl
	cp build/unrepaired/*.tar.gz dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/pyroma --min 9 --skip-tests AuthorEmail dist/*.tar.gz
	$(BIN)/python -m tests.installing.verify_wheel --constraint constraints.txt dist/*.whl

constraints: $(VENV)
	$(INSTALL) --quiet -r requirements-wheel.txt
	$(BIN)/python -m bench.report.constraints

sanitize:
	kernels/sanitize.sh address 60
	kernels/sanitize.sh undefined 60
	kernels/sanitize.sh thread 60

fuzz:
	kernels/sanitize.sh none 600

# This needs Debian's cross compiler and qemu-user. kernels/cross_arm64.sh names the packages. The wheel is written to
# build/arm64.
arm64: $(VENV)
	kernels/cross_arm64.sh drivers 60
	PYTHON=$(BIN)/python kernels/cross_arm64.sh wheel build/arm64

# This uses neither .venv nor TensorFlow. PYTHON can be any Python that has NumPy, and PyTorch or CuPy.
test-kernels-gpu:
	$(PYTHON) tests/kernels/gpu_kernels.py --sanitize

clean:
	rm -rf $(VENV) build dist *.egg-info lowlevel_simclr/_native.so

faults: $(VENV)
	$(BIN)/python -m tests.faults.campaign --out build/faults.json
