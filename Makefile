# The two commands of a newcomer are `make demo` and `make test`; `make help` lists the rest.
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
# What one test process has compiled the others read, also where the environment says that nobody writes bytecode.
export PYTHONDONTWRITEBYTECODE :=
# Tests wait for processes and signals a good part of their time: one worker more than cores, of at most 7.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); expr $$(( n < 7 ? n : 7 )) + 1)
export TOKENIZERS_PARALLELISM ?= true
ANNOUNCED = [ -d $(VENV) ] || echo "● install    Python packages into $(VENV): some minutes, the first time" >&2

.PHONY: help demo test lint types imports check test-oldest soak bench scale docs docs-test site dev

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo:  ## text in, a trained and measured model out, in minutes
	@$(ANNOUNCED)
	@scripts/install.sh $(VENV) fast
	@$(BIN)/lmtrain demo

test: dev  ## the whole test suite: no network, no GPU (one is emulated)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -q

lint: dev  ## ruff: style and formatting
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .

types: dev  ## mypy
	$(BIN)/mypy

imports: dev  ## the architecture as import contracts
	$(BIN)/lint-imports

check: lint types imports test  ## style, types, import contracts, tests

# Tests in which code of transformers, accelerate and PEFT runs that another version may have otherwise: arguments, the
# trainer's loop and what it calls, models, tokenizers, a command from end to end. Torch is the same in both.
OLDEST = tests/models tests/parity tests/config/test_training_arguments.py tests/e2e/test_commands.py \
	tests/engine/checkpoints tests/engine/batches \
	$(patsubst %,tests/engine/%.py,distributed/test_ddp speed/test_compiling speed/test_scoring) \
	$(patsubst %,tests/engine/test_%.py,attention_cost evaluation guarding loop_parts looking meter muon own_datasets \
	progress saving trainer training_fields) \
	$(patsubst %,tests/invariant/test_%.py,adapters packed_examples packed_pairs padding resumed_runs stopped_runs)

test-oldest:  ## the parts that touch transformers, on the oldest version supported
	@scripts/install.sh .venv-oldest test constraints-oldest.txt
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist loadgroup -q $(OLDEST)

soak: dev  ## a run killed 200 times at random moments (LMTRAIN_SOAK_KILLS), which must end in the same bits
	LMTRAIN_SOAK_KILLS=$${LMTRAIN_SOAK_KILLS:-200} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/faults/test_killed.py

bench: dev  ## every benchmark beside its peer; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py

scale: dev  ## write docs/scale.md anew from benchmarks/scale.json (python benchmarks/scale.py measures that)
	$(BIN)/python benchmarks/scale_page.py benchmarks/scale.json > docs/scale.md

docs: dev  ## write docs/options.md and src/lmtrain/typed_keywords.py anew from the code
	$(BIN)/python -m lmtrain.cli.options_page > docs/options.md
	$(BIN)/python scripts/typed_keywords.py src/lmtrain/typed_keywords.py

docs-test: dev  ## every command of README.md and docs/ executed on a miniature, and the site built
	LMTRAIN_DOCS=all OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q tests/docs

site: dev  ## the docs as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

dev:
	@$(ANNOUNCED)
	@scripts/install.sh $(VENV) dev
