# One command for each thing one does with a checkout. `make` alone lists them.
#
# Variables: PYTHON=/path/to/python (which interpreter), TORCH=2.x.y and TORCH_INDEX=URL (which build of torch, see
# scripts/install_python.sh), JOBS=2 (test processes), ARGS="..." (passed on to grape or pytest).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-tf test-lerobot lint imports check format docs packages doctor bench-evidence bench-data bench-train bench-reading bench-costs bench-rollout bench-scaling bench-saturation gpu-check clean distclean

BIN := .venv/bin
JOBS ?= 2
ARGS ?=
# Several processes share few cores: one thread each is faster than all of them contending (and equal runs stay equal).
export OMP_NUM_THREADS ?= 1
# Tests start hundreds of processes, and each would compile GRAPE anew (0.4 s of 1.2) where the environment forbids to keep bytecode.
unexport PYTHONDONTWRITEBYTECODE
export PYTHON TORCH TORCH_INDEX

help: ## list what can be made (the default)
	@echo 'GRAPE: make TARGET'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo '  make demo ARGS="--seed 1"     make test ARGS="tests/core -k seeds"     make install PYTHON=python3.12'

install: ## system packages for off-screen rendering, .venv, GRAPE with all extras (quick when up to date)
	@bash scripts/install_system_packages.sh
	@bash scripts/install_python.sh
	@bash scripts/install_simulator_python.sh
	@ONCE=yes bash scripts/install_simpler_assets.sh

demo: install ## the whole method on a real simulator: demonstrations, SFT, iterations of preferences, report
	@$(BIN)/grape demo $(ARGS)

test: install ## everything that must hold: lint and types, then all tests
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 1200 $(ARGS) || status=$$?; \
	exit $$status

test-tf: install ## what GRAPE exports, read by real TensorFlow Datasets in an environment of its own (.venv-tf, 1.8 GB)
	@bash scripts/install_tensorflow.sh
	@$(BIN)/python -m pytest -q tests/store/rlds/test_tensorflow.py $(ARGS)

test-lerobot: install ## data that real LeRobot writes (v2.1, v3.0), read by GRAPE; an environment of its own (.venv-lerobot, 1.4 GB)
	@bash scripts/install_lerobot.sh
	@$(BIN)/python -m pytest -q tests/store/lerobot/test_written_by_lerobot.py $(ARGS)

lint: install ## ruff (rules and format) and mypy --strict
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

imports: install ## which package may import which, file sizes and names, links in the docs
	@$(BIN)/python -m pytest -q tests/architecture

check: lint imports ## the quick checks before a commit: lint and imports

format: install ## let ruff rewrite the sources
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: install ## the documentation site, where every warning is an error: build/docs/index.html
	@$(BIN)/python -m sphinx -E -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo build/docs/index.html

packages: install ## wheel and source distribution, in dist/
	@rm -rf dist
	@$(BIN)/python -m hatchling build

doctor: install ## look at this machine: interpreter, packages, graphics, a rendered frame, disk, memory, GPU
	@$(BIN)/grape doctor $(ARGS)

bench-evidence: install ## the laboratory's study of Meta-World: seven arms, five seeds, three iterations (an hour; resumable)
	@$(BIN)/grape study --config examples/studies/laboratory/metaworld-middle.yaml --out runs/evidence --jobs $(JOBS) $(ARGS)

bench-data: install ## frames a second of writing and reading RLDS, beside TFDS where `make test-tf` ran
	@$(BIN)/python benchmarks/rlds.py $(ARGS)

bench-train: install ## training beside the first public loop (45 min), with chunks (6 min), then at 7 B (22 GiB, 40 min)
	@$(BIN)/python benchmarks/train_benchmark.py $(ARGS)
	@$(BIN)/python benchmarks/train_chunks.py --out docs/results/train-chunks.json
	@$(BIN)/python benchmarks/openvla_7b_shape.py --out docs/results/openvla-7b-shape.json

bench-reading: install ## what training reads and computes beyond its memory, and what sharded runs send (minutes)
	@$(BIN)/python benchmarks/data_reading.py --out data-reading.json
	@OMP_NUM_THREADS=1 $(BIN)/python -m torch.distributed.run --standalone --nproc-per-node 2 benchmarks/sharded_state.py \
		--out sharded-state.json

bench-costs: install ## hand-written against generated cost specifications on recorded episodes (minutes; no model is asked)
	@$(BIN)/python -m benchmarks.generated_costs $(ARGS)

bench-rollout: install ## decisions a second of rollouts, one environment against workers with a batched policy (minutes)
	@$(BIN)/python benchmarks/rollout.py $(ARGS)

bench-scaling: install ## rollouts, scores, trials of costs and exports by 1, 2, 4 and 8 workers, local and with Ray (ten minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py $(ARGS)

bench-saturation: install ## margins and displacement with whole, cut and stage-wise pairs, on a finished run (ARGS="--run runs/demo")
	@$(BIN)/python benchmarks/saturation.py $(ARGS)

# Installs nothing and needs no network; with PYTHON=... in any environment that has PyTorch.
gpu-check: ## on a machine with a GPU: seconds and memory at OpenVLA-7B's shape, flash attention, 4 bits, EGL (10 minutes)
	@python='$(or $(PYTHON),$(BIN)/python)'; \
	command -v "$$python" >/dev/null || { echo "make: there is no $$python: make install, or PYTHON=/path/to/python" >&2; exit 2; }; \
	export PYTHONPATH="src$${PYTHONPATH:+:$$PYTHONPATH}"; \
	"$$python" -c 'import grape.core.files' || { echo "make: $$python lacks packages of GRAPE's core (pyproject.toml: dependencies)" >&2; exit 2; }; \
	"$$python" benchmarks/gpu_check.py $(ARGS)

clean: ## remove caches and build products; runs/ and .venv stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv, .venv-sim, .venv-tf and .venv-lerobot too
	@rm -rf .venv .venv-sim .venv-tf .venv-lerobot .system-packages-tried
