# `make demo` and `make test` set everything up on a fresh machine (Python 3.11 to 3.13, gcc, make, the package registry) and run.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v) 2>/dev/null)) python3)
# To build upstream Detectron2 with its compiled operators instead of the in-tree package, give a pip requirement:
#   make setup DETECTRON2="git+https://github.com/facebookresearch/detectron2@a59f05630a8f205756064244bf5beb8661f96180"
DETECTRON2 ?= ./third_party/detectron2
export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE ?= copy
UV = $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: help setup demo test check bench campaign lock clean
help:
	@echo "make demo   set up, pre-train, convert, detect, segment and report on the embedded data"
	@echo "make test   set up and run the tests"
	@echo "make check  set up and run the linter, type checker, import contracts and link check"
	@echo "make bench  set up and run the speed measurements; a figure that is not met is red and ends with an error"
	@echo "make campaign  set up and try hostile files and kills; anything not clean ends with an error"
	@echo "make setup  set up only (warm: a few seconds)"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml hatch_build.py third_party/detectron2/pyproject.toml third_party/detectron2/repack.py
	@command -v uv >/dev/null || test -x .tools/bin/uv || tools/install_uv.sh "$(PYTHON)"
	@test -x $(RUN) || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	$(UV) pip sync --quiet --python $(RUN) --require-hashes requirements.txt
	$(UV) pip install --quiet --python $(RUN) --no-deps $(if $(findstring git+,$(DETECTRON2)),--no-build-isolation) "$(DETECTRON2)" --editable .
	@touch $@

demo: setup
	$(RUN) tools/demo.py

test: setup
	$(RUN) -m pytest -n 2 --dist loadfile -rfEs

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy core pretrain transfer masktransfer tools
	$(VENV)/bin/lint-imports
	$(RUN) -m pytest -q tests/docs

# Every script runs; one that misses a figure, or fails, fails the target in the end.
BENCHMARKS = pretrain_step input_pipeline coco_evaluation features wrappers start_up report_scale conversion gpu_step scaling
bench: setup
	@status=0; \
	for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(RUN) benchmarks/$$name.py || { status=1; echo "$$name: not all figures are met"; }; \
	done; \
	$(RUN) benchmarks/cost_model.py || status=1; \
	$(RUN) benchmarks/write_speed.py || status=1; \
	exit $$status

# Hostile files and kills of the real frameworks, from a seed; prints the table of docs/tested-on.md.
campaign: setup
	PYTHONPATH=tests $(RUN) -W ignore tests/campaign/campaign.py

lock:
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-package detectron2 --extra dev pyproject.toml -o requirements.txt

clean:
	rm -rf .venv* .tools
