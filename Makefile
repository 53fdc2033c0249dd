# The first target you run makes .venv with the pinned versions; later runs start at once.
PYTHON ?= python3
EPISODES ?= 50
BASE ?= bc
PYTEST_ARGS ?= -n auto
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: setup test lint bench compare check

setup: .venv/developer.stamp

test: .venv/developer.stamp
	$(BIN)/oc-residual check
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not rig"
	$(BIN)/python -m pytest -m rig

lint: .venv/developer.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/package.stamp
	$(BIN)/oc-residual bench --json results/bench.json

# The base policy alone, under the trained residual and under the oracle, on all tasks, in both worlds.
compare: .venv/package.stamp
	$(BIN)/python -m baselines compare --base $(BASE) --episodes $(EPISODES) --out results/compare$(if $(filter-out bc,$(BASE)),-$(BASE))

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
	$(INSTALL) -e ".[train,datasets,servers,real,step,cluster,leaderboard,dev]"
	@touch $@
