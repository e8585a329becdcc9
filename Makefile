# make demo and make test each work as the first command in a fresh clone: they create .venv themselves.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	if command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(not ((3, 11) <= sys.version_info < (3, 15)))' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   compare eight losses on real data and write a report (about five minutes)"
	@echo "make test   run the test suite"
	@echo "make lint   ruff and mypy"
	@echo "make bench  the benchmarks"

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "infoloss needs Python 3.11 to 3.14 with venv; found: $$(python3 --version 2>&1 || true)."; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; fi
	@echo "using $$($(PYTHON) --version) ($(PYTHON))"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/infoloss demo

test: $(READY)
	$(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
