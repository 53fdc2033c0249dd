# The first target you run makes .venv with the measured versions; later runs start at once.
PYTHON ?= python3
EPISODES ?= 50
BASE ?= auto
# Workers steal tests from each other's ends, so that those that share worlds and rigs stay together.
PYTEST_ARGS ?= -n auto --dist worksteal
# A rig keeps two cores busy in real time: beside another one it is late, and its robot stops.
RIG_ARGS ?= -n $(shell expr \( $$(getconf _NPROCESSORS_ONLN) + 1 \) / 2) --dist worksteal
BIN := .venv/bin
NEWEST := .venv-newest/bin
PIP := -m pip install --disable-pip-version-check --quiet
INSTALL := $(BIN)/python $(PIP) -c constraints.txt
EXTRAS := train,datasets,servers,real,step,cluster,leaderboard,dev

.PHONY: setup test fast test-newest lint bench compare check

setup: .venv/developer.stamp

# Beside each other: the tests have moments in which they leave a core idle.
test: setup
	$(MAKE) -j2 lint fast
	$(BIN)/python -m pytest $(RIG_ARGS) -m rig tests/real

fast: setup check
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not rig"

# The same tests on the newest versions (numpy 2, MuJoCo 4), without robosuite, in an environment of their own.
test-newest: .venv-newest/stamp
	$(NEWEST)/python -m pytest $(PYTEST_ARGS) -m "not rig"
	$(NEWEST)/python -m pytest $(RIG_ARGS) -m rig tests/real

lint: .venv/developer.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/package.stamp
	$(BIN)/oc-residual bench --json results/bench.json

# The base policy alone, with the trained residual, with the planner and with the oracle, on all tasks, in both worlds.
# BASE=auto is "vla", or the default base policy where no OpenGL library works.
compare: .venv/package.stamp
	$(BIN)/python -m baselines compare --base $(BASE) --episodes $(EPISODES) --out results/compare$(if $(filter-out auto,$(BASE)),-$(BASE))

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
	$(INSTALL) -e ".[robosuite,openpi,$(EXTRAS)]"
	@touch $@

.venv-newest/stamp: setup.cfg pyproject.toml constraints-newest.txt
	$(PYTHON) -m venv .venv-newest
	@echo "Installing the newest versions into .venv-newest"
	$(NEWEST)/python $(PIP) -c constraints-newest.txt -e ".[$(EXTRAS)]"
	@touch $@
