# Everything that is done with this repository. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check bench stop clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Make this machine ready (harmless to repeat)
	@scripts/setup

demo: setup ## Run the main job on the example project, for real; leaves the platform running
	@BRANCHLINE_HOME="$$(scripts/demo-home)" .venv/bin/python scripts/demo

test: ## Run every test
	@scripts/setup tests
	@.venv/bin/pytest $(ARGS)

check: setup ## Lint, format, types, layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup ## Print figures and ratios; NAME=push_to_live runs one bench
	@for bench in $(if $(NAME),bench/$(NAME).py,$$(grep -l __main__ bench/*.py)); do \
	    PYTHONPATH=. .venv/bin/python "$$bench" || exit 1; \
	done

stop: ## Stop the demo's platform
	@scripts/stop

clean: ## Stop the demo's platform and remove all of its state
	@scripts/clean
