# `make repro` and `make test` work on a bare machine; see README.md.
#
# VENV=DIR          where the environment goes (default .venv)
# PYTHON=PATH       use this environment's python instead; nothing is installed
# TORCH_WHEELS=X    index address or folder with other torch builds, such as CPU-only ones
# BOOTSTRAP_PYTHON  the python that makes the environment (default python3)

VENV ?= .venv
BOOTSTRAP_PYTHON ?= python3
ifdef PYTHON
BIN := $(abspath $(dir $(PYTHON)))
SETUP :=
SETUP_DEV :=
else
BIN := $(abspath $(VENV))/bin
SETUP := setup
SETUP_DEV := setup-dev
endif
export PATH := $(BIN):$(PATH)
export TORCH_WHEELS

.PHONY: repro init verdict gate test test-full test-all checkpoints device-test device-faults demo lint types bench bench-serve bench-peers setup setup-dev clean help

repro: $(SETUP) ## make everything, print the verdict and the release folder
	@python -m pipeline.run

init: $(SETUP) ## write params.yaml for a model of your own (CHECKPOINT=... IMAGES=...)
	@edge-vit init $(if $(ARCHITECTURE),--architecture '$(ARCHITECTURE)') $(if $(LABELS),--labels '$(LABELS)') '$(CHECKPOINT)' '$(IMAGES)'

verdict: $(SETUP) ## make everything up to the verdict; nothing is published
	@python -m pipeline.run gate

gate: $(SETUP) ## judge the evidence again, for CHANNEL (default: that of params.yaml)
	@edge-vit gate $(if $(CHANNEL),--channel $(CHANNEL))

# A file's tests stay together, since they share what is made for them; the files with the longest
# tests are not kept for the end.
PYTEST := python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(SETUP_DEV) ## run the quick tests, two at a time
	@$(PYTEST)

test-full: $(SETUP_DEV) ## run the tests that `make test` leaves out: exports, training, attacks, killed runs
	@$(PYTEST) -m "full and not slow"

test-all: $(SETUP_DEV) ## run both in one go, which collects and prepares once
	@$(PYTEST) -m "not slow"

checkpoints: $(SETUP_DEV) ## every kind of checkpoint from `fetch` to the gate, as a table (ROWS=...: only these; hours)
	@python -m benchmarks.checkpoints $(ROWS)

device-test: $(SETUP) ## run the files on every runtime that this machine can (TARGETS=...: only these)
	@python -m device_tests $(TARGETS) $(if $(STRICT),--strict)

device-faults: $(SETUP_DEV) ## plant faults in the files and see each caught by a target
	@python -m pytest device_tests --numprocesses 2 --dist loadfile

demo: $(SETUP) ## serve the page that runs the int8 ONNX file in a browser (PORT=8000)
	@python -m device_tests.web.serve $(if $(PORT),--port $(PORT))

lint: $(SETUP_DEV) ## check style and format
	@ruff check . && ruff format --check .

types: $(SETUP_DEV) ## check types
	@mypy

bench: $(SETUP_DEV) ## wall time and peak memory of each stage, for three sizes of DeiT
	@python -m benchmarks.stages

bench-serve: $(SETUP_DEV) ## what `edge-vit serve` carries here: requests a second, p99, lost ones
	@python -m benchmarks.serve

bench-peers: $(SETUP_DEV) ## our files beside what other tools make of the same weights (PEERS=...: only these)
	@python -m benchmarks.peers $(PEERS) $(if $(ROUNDS),--rounds $(ROUNDS))

setup:
	@$(BOOTSTRAP_PYTHON) scripts/bootstrap.py $(VENV)

setup-dev:
	@$(BOOTSTRAP_PYTHON) scripts/bootstrap.py --dev $(VENV)

clean: ## remove what stages wrote
	@rm -rf artifacts/*/ device_tests/evidence/*.json

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile
