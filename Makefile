# Everything starts from a bare checkout: each target makes what it needs and starts within seconds the second time.
# Needs: Debian or Ubuntu (others: install the named packages by hand), Python 3.11, a C compiler, make, bash.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-rest lint format types wheel setup compiler arm chromium postgresql libemg clean distclean

PYTHON ?= python3.11
# Two workers are what the continuous integration has; more bring little, because a few tests take most of the time.
WORKERS ?= 2
DEMO ?= build/demo

# Paths are relative throughout, so that the folder's name may hold anything. An environment is not movable, hence pwd.
VENV := .venv
RUN := $(VENV)/bin/python
INPUTS := $(shell { cat pyproject.toml constraints.txt; pwd -P; } | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(INPUTS)
# The TensorFlow converter's environment, which its tests make when it is not there (export/environments.py).
export EMBRIDGE_ENVIRONMENTS ?= $(CURDIR)/build/environments
# One thread per worker: torch and BLAS would otherwise start as many threads as there are cores in each of them.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST = $(ONE_THREAD) $(RUN) -m pytest -n $(WORKERS) --dist loadfile

help: ## Say what can be made (the default).
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	echo "  Variables: PYTHON=$(PYTHON)  WORKERS=$(WORKERS)  DEMO=$(DEMO)"

demo: $(STAMP) ## Simulated recordings to a checked bundle: build/demo/report.html and manifest.json.
	@mkdir -p "$(DEMO)"
	[ -d "$(DEMO)-recordings" ] || $(RUN) -m embridge_edge synth --out "$(DEMO)-recordings" --wearers 6 --seconds 120
	$(RUN) -m embridge_edge deploy --data "$(DEMO)-recordings" --recipe demo --out "$(DEMO)"
	echo "Open $(DEMO)/report.html; $(DEMO)/manifest.json lists what was made."

test: $(STAMP) compiler arm chromium postgresql lint types ## The fast suite: ruff, mypy on the installed wheel, quick tests; no shared data.
	@$(PYTEST) -m "not slow and not data"

test-all: test test-rest ## Everything, with EMBRIDGE_DATA or ../shared/data; a skip is an error.

test-rest: $(STAMP) compiler arm chromium postgresql libemg ## What `make test` leaves out of `make test-all`.
	@EMBRIDGE_NO_SKIP=1 $(PYTEST) -m "slow or data"

lint: $(STAMP) ## ruff: rules and layout.
	@$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(STAMP) ## Lay the code out with ruff and mend what it can mend.
	@$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# mypy does not follow the hooks of an editable install, so it reads the wheel, unpacked where nothing else lies.
types: wheel ## mypy --strict on the installed wheel.
	@rm -rf build/installed
	$(RUN) -m pip install --quiet --no-deps --no-compile --target build/installed build/wheel/*.whl
	cd build/installed
	../../$(RUN) -m mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p embridge_edge

# setuptools never removes a vanished module from build/lib, and would pack it again.
wheel: $(STAMP) ## The wheel, into build/wheel.
	@rm -rf build/wheel build/lib build/bdist.*
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .

setup: $(STAMP) ## The environment in .venv, pinned by constraints.txt.

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
	  echo "make: Python 3.11 is needed and $(PYTHON) is not one; install it (apt-get install python3.11 python3.11-venv) or say make PYTHON=/path/to/python3.11." >&2
	  exit 2
	}
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || {
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3.11-venv
	  else
	    echo "make: Python's venv module is missing; run: sudo apt-get install python3.11-venv" >&2
	    exit 2
	  fi
	}
	$(RUN) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || rm -rf $(VENV)
	rm -f $(VENV)/.installed-*
	echo "make: installing into $(VENV); the first time this takes some minutes" >&2
	"$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 setuptools
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[all,dev]'
	$(RUN) -m pip check
	touch $@

# The library that users know, which the features are compared with. It wants an older numpy, so it lives by itself.
LIBEMG := build/libemg/.installed-$(shell sha256sum constraints-libemg.txt | cut -c1-16)
libemg: $(LIBEMG) ## LibEMG in an environment of its own, for comparisons.

$(LIBEMG): $(STAMP)
	@rm -rf build/libemg
	"$(PYTHON)" -m venv build/libemg
	build/libemg/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-libemg.txt libemg
	touch $@

compiler:
	@command -v cc >/dev/null && exit 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends build-essential
	else
	  echo "make: a C compiler is missing; run: sudo apt-get install build-essential" >&2
	  exit 2
	fi

# Firmware is compiled for Cortex-M and AArch64, run on emulated boards, in QEMU and by Java, and looked through by cppcheck.
# Without these tools such tests skip, which only test-all forbids. Debian packs newlib, whose headers the compiler needs, apart.
arm:
	@have_all() {
	  for tool in arm-none-eabi-gcc qemu-system-arm cppcheck cmake ninja g++ aarch64-linux-gnu-gcc qemu-aarch64-static java javac; do
	    "$$tool" --version >/dev/null 2>&1 || return 1
	  done
	  [ -e "$$(arm-none-eabi-gcc -print-file-name=libc.a)" ] && [ -e "$$(aarch64-linux-gnu-gcc -print-file-name=libc.a)" ]
	}
	have_all && exit 0
	install="apt-get install -y --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm cppcheck cmake ninja-build g++ gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static openjdk-17-jdk-headless"
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "make: installing compilers, emulators and build tools for firmware and phones" >&2
	  export DEBIAN_FRONTEND=noninteractive
	  { $$install -qq || { apt-get update -qq && $$install -qq; }; } >/dev/null 2>&1 || true
	  have_all && exit 0
	  echo "make: $$install failed; firmware is not tested on emulated boards." >&2
	else
	  echo "make: firmware is not tested on emulated boards; for that run: sudo $$install" >&2
	fi

# The report's page is opened in headless Chromium by a test. Without it that test skips, which only test-all forbids.
chromium:
	@for browser in chromium chromium-browser google-chrome; do
	  "$$browser" --version >/dev/null 2>&1 && exit 0
	done
	install="apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "make: installing chromium for the report's test" >&2
	  export DEBIAN_FRONTEND=noninteractive
	  { $$install -qq || { apt-get update -qq && $$install -qq; }; } >/dev/null 2>&1 || true
	  chromium --version >/dev/null 2>&1 && exit 0
	  echo "make: chromium could not be installed ($$install failed, or what it installed does not start); the report's page is not opened in a browser." >&2
	else
	  echo "make: the report's page is not opened in a browser; for that run: sudo $$install" >&2
	fi

# Sweeps keep studies in PostgreSQL among others; tests start a server of their own. Without it they skip, which only test-all forbids.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && exit 0
	install="apt-get install -y --no-install-recommends postgresql"
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "make: installing PostgreSQL for the sweeps' tests" >&2
	  export DEBIAN_FRONTEND=noninteractive
	  { $$install -qq || { apt-get update -qq && $$install -qq; }; } >/dev/null 2>&1 || true
	  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && exit 0
	  echo "make: $$install failed; sweeps are not tested with PostgreSQL." >&2
	else
	  echo "make: sweeps are not tested with PostgreSQL; for that run: sudo $$install" >&2
	fi

clean: ## Remove what was built; the environment stays.
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment as well.
	@rm -rf $(VENV)
