# make train: from nothing to a trained recogniser. make test: from nothing to tested. A second call starts at once.
# Both need Python 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV := .venv
VIDEO := .venv-video
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Each checkout compiles for itself: DeepSpeed hangs on a lock that a killed build left in the shared cache.
export TORCH_EXTENSIONS_DIR := $(CURDIR)/$(VENV)/torch_extensions
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: train test test-gpu test-multinode soak bench setup setup-video check format clean

train: setup
	deepspeed launch/train.py --deepspeed_config ds_configs/bf16.json

test: setup
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not multinode"
	@if nvidia-smi -L >/dev/null 2>&1; then $(MAKE) test-gpu; fi

# What a CPU cannot show, and what is to hold on a GPU as well; all other tests leave a GPU alone.
test-gpu: setup
	python -m pytest -m "gpu or any_device"

# Several hosts on this machine, made of network namespaces: needs root, and Debian's packages that .ci/run installs.
test-multinode: setup
	python -m pytest -n auto -m multinode tests/multinode

# Runs that are killed, stopped, damaged and starved, in under 15 minutes: make soak SOAK='--seed 7 --only stall'
soak: setup
	PYTHONPATH=tests python -m soak $(SOAK)

# How fast it is beside its peers, on this machine: make bench BENCH='--only step --rounds 3'; about 20 minutes.
bench: setup
	pip install -q -c constraints.txt --no-build-isolation -e '.[bench]'
	python -m benchmarks $(BENCH)

setup: $(READY)
	@python launch/prepare.py --data default

# An environment of its own for footage: MediaPipe needs numpy below 2, and brings its models.
setup-video: $(VIDEO)/.ready

check: setup
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python -m pytest

format: setup
	ruff format .
	ruff check --fix .

$(READY): constraints.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	pip install -q -c constraints.txt setuptools wheel
	pip install -q -c constraints.txt torch
	# DeepSpeed's build asks the installed torch what to build; in isolation it would fetch another one. Where there is a
	# GPU and no nvcc it fails, unless it is told of no GPU; it builds nothing either way (0.19.8).
	DS_ACCELERATOR=cpu pip install -q -c constraints.txt --no-build-isolation deepspeed
	# A script's first line names no interpreter whose path has a space; pip minds that for scripts that it writes itself.
	case "$(CURDIR)" in *\ *) sed -i "1s|.*|#!/bin/sh\n'''exec' \"$(CURDIR)/$(BIN)/python3\" \"\$$0\" \"\$$@\"\n' '''|" $(BIN)/deepspeed;; esac
	pip install -q -c constraints.txt --no-build-isolation -e '.[demo,dev,export]'
	@touch $@

$(VIDEO)/.ready: constraints-video.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "MediaPipe 0.10.21 needs Python 3.11 or 3.12: make setup-video PYTHON=python3.12")'
	$(PYTHON) -m venv $(VIDEO)
	$(VIDEO)/bin/pip install -q -c constraints-video.txt setuptools wheel
	$(VIDEO)/bin/pip install -q -c constraints-video.txt torch
	DS_ACCELERATOR=cpu $(VIDEO)/bin/pip install -q -c constraints-video.txt --no-build-isolation deepspeed
	$(VIDEO)/bin/pip install -q -c constraints-video.txt --no-build-isolation -e '.[video]'
	@touch $@

clean:
	rm -rf $(VENV) $(VIDEO) build *.egg-info
