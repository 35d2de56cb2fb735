PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install lint test clean

help: ## explain the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.txt requirements-dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

install: .venv/.installed ## make the virtual environment

lint: install ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

test: install ## run the tests
	@$(BIN)/python -m pytest -n 2

clean: ## remove the virtual environment
	@rm -rf .venv
