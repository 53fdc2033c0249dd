"""A task of another package needs one file and one call. It runs wherever ours run, and inherits all tests."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from push_button import PRESSED_HEIGHT, TRAVEL, PushButton

import demos_replay.cli
from oc_residual_gym import cli, register_task
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.settings import EvaluationSettings, resolve_tasks
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.tasks import SHIPPED_TASKS, TASKS, resolve_task
from oc_residual_gym.tasks.base import Waypoint
from oc_residual_gym.tasks.index import INDEX
from oc_residual_gym.tasks.moves import above

pytest_plugins = ("oc_residual_gym.testing.stages",)

FOLDER = Path(__file__).parent
SOURCE = "push_button:PushButton"


@pytest.fixture(autouse=True)
def _registered():
    """Register the task for each test, and remove it for the tests of other files."""
    register_task(PushButton)
    yield
    INDEX.pop("PushButton")
    gym.registry.pop("OCResidual-PushButton-v0")


def everywhere() -> dict[str, str]:
    """Environment variables of a process that can import the task."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, sys.path)])}


def evaluate(out: Path, *options: str) -> dict:
    arguments = ["evaluate", "--task", SOURCE, "--episodes", "3", "--errors", "clean", "--out", str(out), *options]
    assert cli.main([*arguments, "--json", str(out / "result.json")]) == 0
    (cell,) = json.loads((out / "result.json").read_text())["cells"]
    assert cell["task"] == "PushButton"
    return cell


def test_it_is_made_as_ours_are():
    single = gym.make("OCResidual-PushButton-v0", base_policy="expert")
    assert single.unwrapped.core.task is TASKS["PushButton"] is resolve_task(SOURCE) is resolve_task(PushButton)
    assert single.spec.max_episode_steps == 200 and single.spec.kwargs["task"] == SOURCE
    assert gym.make(EnvSpec.from_json(single.spec.to_json())).spec == single.spec
    assert gym.make_vec("OCResidual-PushButton-v0", num_envs=2, base_policy="hold").reset(seed=0)[0].shape[0] == 2
    for task in (SOURCE, PushButton, PushButton()):
        worlds = ResidualWorlds(task, 1, base_policy="hold")
        assert worlds.task.name == "PushButton"
    env = pickle.loads(pickle.dumps(gym.make("OCResidual-Lift-v0", task=PushButton, base_policy="hold").unwrapped))
    assert env.core.task.name == "PushButton"


def test_without_a_base_policy_it_holds_and_says_so_once():
    code = (
        "import gymnasium, oc_residual_gym\n"
        f"id = oc_residual_gym.register_task({SOURCE!r})\n"
        "for i in range(2): print(gymnasium.make(id).unwrapped.core.base_policy.name)\n"
        "gymnasium.make('OCResidual-Lift-v0')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=everywhere())
    assert done.stdout.split() == ["hold", "hold"]
    assert done.stderr.count("There is no base policy for PushButton yet") == 1
    for name in ("bc", "vla", "vla-v0"):
        with pytest.raises(ValueError, match="was not trained for PushButton"):
            load_base_policy(name, TASKS["PushButton"])


def test_the_oracle_does_it_on_a_base_that_holds(tmp_path):
    assert evaluate(tmp_path / "a", "--residual", "oracle")["base"] == "hold"
    assert evaluate(tmp_path / "b", "--base", "hold", "--residual", "oracle")["successes"] == 3
    assert evaluate(tmp_path / "c", "--base", "hold")["successes"] == 0
    assert evaluate(tmp_path / "d", "--base", "expert")["successes"] == 3
    assert evaluate(tmp_path / "e", "--base", "expert", "--residual", "oracle")["successes"] == 3
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    assert settings["base"] == "hold" and settings["outside"]["PushButton"]["source"] == SOURCE


def test_workers_of_an_engine_run_it(tmp_path):
    options = ("--base", "expert", "--episodes", "9")
    here = evaluate(tmp_path / "here", *options)
    there = evaluate(tmp_path / "there", *options, "--workers", "2")
    assert here == there and here["successes"] == 9
    episodes = [(tmp_path / name / "episodes.jsonl").read_bytes() for name in ("here", "there")]
    assert episodes[0] == episodes[1]


def test_all_means_those_with_the_base_policy(capsys):
    assert resolve_tasks("all", "hold") == (*SHIPPED_TASKS, "PushButton")
    assert resolve_tasks("all", "bc") == SHIPPED_TASKS
    assert "left out, as base policy 'bc' was not trained for them: PushButton" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="bc of Lift, hold of PushButton"):
        EvaluationSettings(("Lift", "PushButton"))


def test_render_draws_it(tmp_path):
    out = tmp_path / "button.png"
    code = cli.main(["render", "--task", SOURCE, "--base", "expert", "--step", "40", "--out", str(out)])
    if code == 1:
        pytest.skip("no OpenGL here")
    assert code == 0 and out.stat().st_size > 1000


def test_it_is_recorded_and_replayed(tmp_path, capsys):
    log, demos = str(tmp_path / "log.hdf5"), str(tmp_path / "demos.hdf5")
    record = ["record", "--task", SOURCE, "--operator", "scripted", "--demos", "2", "--domain", "nominal", "--out", log]
    assert demos_replay.cli.main(record) == 0
    assert demos_replay.cli.main(["validate", log]) == 0
    assert "gripper never closes" not in capsys.readouterr().out
    assert demos_replay.cli.main(["replay", log, "--out", demos]) == 0


def test_names_are_not_taken_twice():
    from oc_residual_gym.tasks.lift import Lift

    assert register_task(Lift) == "OCResidual-Lift-v0"

    class Other(PushButton):
        name = "Lift"

    with pytest.raises(SettingsError, match="this package has a task 'Lift'"):
        register_task(Other)
    for wrong in ("push_button:Nothing", "no_such_package:Task", "push_button:np"):
        with pytest.raises(SettingsError, match="task"):
            register_task(wrong)
    with pytest.raises(SettingsError, match="is not a task"):
        register_task(3)


def test_an_instance_with_a_state_is_taken_as_it_is():
    task = PushButton()
    task.max_episode_steps = 7
    assert gym.make(register_task(task), base_policy="hold").spec.max_episode_steps == 7
    assert TASKS["PushButton"] is task and INDEX["PushButton"].source == ""


def test_the_button_springs_back(stopped):
    """A button that is pressed and released is not a success."""
    up = stopped(
        "PushButton",
        lambda state: state.slides["button"][0] < 0.001,
        lambda state: [Waypoint(above(state.target[:7], 0.1), closed=True)],
    )
    assert up.state.slides["button"][0, 0] < 0.001
    up.run_to_the_end()
    assert up.state.slides["button"][0, 0] == pytest.approx(TRAVEL, abs=0.0005)
    assert not up.succeeded


def test_it_passes_the_inherited_tests(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "oc_residual_gym.testing.plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "oc_residual_gym.testing", "--task", SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=everywhere(), check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_a_command_finds_a_task_in_the_current_folder(tmp_path):
    script = tmp_path / "oc-residual"  # as pip writes it: the folder of the script is on the path, not the user's
    script.write_text("import sys\nfrom oc_residual_gym.cli import main\nsys.exit(main())\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script), "evaluate", "--task", SOURCE, "--base", "hold", "--episodes", "1"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_instances_that_differ_are_different_tasks_in_results():
    plain = EvaluationSettings((PushButton(),), "hold").identity
    shorter = PushButton()
    shorter.max_episode_steps = 7
    changed = EvaluationSettings((shorter,), "hold").identity
    register_task(PushButton)
    assert plain["outside"] != changed["outside"]
    assert plain == EvaluationSettings((SOURCE,), "hold").identity


@pytest.mark.parametrize(
    ("name", "value", "told"), [("weights", {}, "weights .*: give some"), ("specs", None, "no specs")]
)
def test_a_task_that_lacks_something_is_refused(name, value, told, monkeypatch):
    if value is None:
        monkeypatch.delattr(PushButton, name)
    else:
        monkeypatch.setattr(PushButton, name, value)
    with pytest.raises(SettingsError, match=told):
        register_task(PushButton())


def test_the_planner_says_what_its_plan_lacks(tmp_path, capsys):
    arguments = ["--base", "hold", "--residual", "planner", "--episodes", "1", "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", "--task", SOURCE, *arguments]) == 2
    assert "its expert reads 'button', which a policy does not see; give the task a method plan" in (
        capsys.readouterr().err
    )


def test_the_planner_does_it_where_the_task_has_a_plan(tmp_path, monkeypatch):
    def plan(self, seen):
        opening = seen.poses["button"][2] - PRESSED_HEIGHT
        return self.expert(replace(seen, slides={"button": np.array([opening, 0.0])}))

    monkeypatch.setattr(PushButton, "plan", plan)
    assert evaluate(tmp_path, "--base", "hold", "--residual", "planner")["successes"] == 3
