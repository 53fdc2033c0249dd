# The first target you run makes .venv with the pinned versions; later runs start at once.
PYTHON ?= python3
EPISODES ?= 50
PYTEST_ARGS ?= -n auto
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: setup test lint bench compare check

setup: .venv/developer.stamp

test: .venv/developer.stamp
	$(BIN)/oc-residual check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/developer.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/package.stamp
	$(BIN)/oc-residual bench --json results/bench.json

# The base policy "bc" alone and under the oracle residual, in the shifted world, paired on the same episodes.
COMPARED := --base bc --domain twin --errors tracker --episodes $(EPISODES)
compare: .venv/package.stamp
	$(BIN)/oc-residual evaluate $(COMPARED) --residual zero --out results/compare/bc-$(EPISODES)
	$(BIN)/oc-residual evaluate $(COMPARED) --residual oracle --out results/compare/oracle-$(EPISODES)
	$(BIN)/oc-residual compare results/compare/bc-$(EPISODES) results/compare/oracle-$(EPISODES) --out results/compare

check: .venv/package.stamp
	$(BIN)/oc-residual check

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/package.stamp: setup.cfg pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing oc-residual-gym into .venv (a few minutes the first time)"
	$(INSTALL) -e .
	$(BIN)/python -c "import oc_residual_gym.envs.vector_env"
	@touch $@

.venv/developer.stamp: .venv/package.stamp
	@echo "Installing the training and developer tools into .venv"
	$(INSTALL) -e ".[train,datasets,servers,dev]"
	@touch $@
