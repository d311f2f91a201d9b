# Each target does its own set-up into .venv. Needs Python 3.11 or newer, make, gcc and a Python package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
CONFIG ?= config/config.yaml

.PHONY: demo test test-fast lint format docs bench bench-trainer bench-features bench-interventions bench-quality bench-owners bench-products bench-gpu bench-gpu-wheels clean help

help:
	@echo "make demo       run the embedded study: pictures to causal figures, under 6 minutes on 2 cores"
	@echo "make test       all tests        make test-fast  those under 3 minutes"
	@echo "make lint       ruff, snakefmt, snakemake --lint, mypy, import-linter, pylint's duplicate code"
	@echo "make format     format the code  make docs       write the generated parts of docs"
	@echo "make bench      compare with peers from PyPI; the tables in docs are its output"
	@echo "make bench-trainer  training speed beside other packages"
	@echo "make bench-features  describing latents beside saev and DuckDB"
	@echo "make bench-interventions  arms of edits beside a full forward pass an arm"
	@echo "make bench-owners  how far timm and the owners of weights are apart where they differ"
	@echo "make bench-products  matrix products on this machine's processor by both of torch's libraries"
	@echo "make bench-quality  reconstruction beside other packages at equal sparsity; goes on where it was stopped"
	@echo "make bench-gpu  what one GPU does, under 8 minutes; needs torch, timm and bench/wheels, and no network"
	@echo "make bench-gpu-wheels  get bench/wheels, for Python GPU_PYTHON (3.12) on x86-64"

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

demo: $(VENV)/.ready
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG) --quiet rules host --rerun-incomplete
	@$(BIN)/python -m visae headline --configfile $(CONFIG)

# Test files run side by side, one a core, so each process computes on one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: $(VENV)/.ready-dev
	$(PYTEST)

test-fast: $(VENV)/.ready-dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile $(CONFIG)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pylint src/visae scripts

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

docs: $(VENV)/.ready
	$(BIN)/python -m visae config docs > docs/config.md
	$(BIN)/python -m bench.write_docs

bench: $(VENV)/.ready-dev
	$(BIN)/python -m bench.store

bench-trainer: $(VENV)/.ready-dev
	$(BIN)/python -m bench.trainer

bench-features: $(VENV)/.ready-dev
	$(BIN)/python -m bench.features

bench-interventions: $(VENV)/.ready-dev
	$(BIN)/python -m bench.interventions

bench-quality: $(VENV)/.ready-dev
	$(BIN)/python -m bench.quality

# The machine may be bare: its own Python where nothing is set up.
bench-gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.gpu $(GPU_OPTIONS)

GPU_PYTHON ?= 3.12
bench-gpu-wheels:
	rm -rf bench/wheels
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version $(GPU_PYTHON) --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		--dest bench/wheels --requirement bench/gpu/wheels.txt
	du -sh bench/wheels

bench-owners: $(VENV)/.ready-dev
	$(BIN)/python -m bench.owners

bench-products: $(VENV)/.ready-dev
	$(BIN)/python -m bench.products

clean:
	rm -rf results/* logs benchmarks .snakemake
	git checkout -- results/README.md
