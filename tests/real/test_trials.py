"""Trials: what is recorded, what a crash leaves, and the blind order in which both policies run."""

from __future__ import annotations

import json
import os
import pty
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
from logs import read_logs

from demos_replay.cli import main as demos_replay
from demos_replay.log import Log
from demos_replay.readers import Skipped
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RobotStopped, SettingsError, StopReason
from oc_residual_gym.perception.sources import TrackedPose
from oc_residual_gym.real import settings as trial_settings
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.operator import ScriptedOperator, TerminalOperator
from oc_residual_gym.real.run import BLIND_FILE, PLAN_FILE, TRIALS, prepare, run_trials
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.starts import write_starts
from oc_residual_gym.real.tracking import TrackedObjects
from oc_residual_gym.real.trials import (
    READING_STATES,
    TrialRecorder,
    Verdict,
    executed,
    measured,
    read_trials,
    recover,
)
from oc_residual_gym.real.world import FR3World
from oc_residual_gym.registration import env_id
from oc_residual_gym.states import Readings
from oc_residual_gym.tasks import TASKS

CELL = Cell("bench", Robot("172.16.0.2"), Poses("tcp://camera:5555"), operator="A. Person")
SETTINGS = TrialSettings("CloseDrawer", CELL, base="hold", residual="zero", starts=2, rehearsal=True)
STEPS = 4


class Camera:
    """A pose source that sees every object where it is planned to stand, and never the same twice."""

    frame, calibration = "base", "hand-eye 3"

    def __init__(self, poses: dict[str, list[float]]):
        self._poses, self._rng = poses, np.random.default_rng(0)
        self.silent, self.offset = False, np.zeros(3)

    def latest(self) -> dict[str, TrackedPose]:
        now = time.monotonic() - (10.0 if self.silent else 0.01)
        noise = np.concatenate([self.offset + self._rng.normal(0.0, 1e-4, 3), np.zeros(4)])
        return {name: TrackedPose(pose + noise, now, "tracking") for name, pose in self._poses.items()}

    def problem(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing to stop."""


class Cells:
    """Makes the environment on a cell whose arm only prints its targets, and whose objects stand where seed 0 has them.

    Args:
        operator: who judges; one who has nothing to judge by default.
        settings: of the trials.
        steps: time limit.
        options: of the environment, in place of what ``settings`` say.
    """

    def __init__(
        self,
        operator: ScriptedOperator | None = None,
        settings: TrialSettings = SETTINGS,
        steps: int = STEPS,
        **options: object,
    ):
        self.operator, self.settings, self.steps, self.options = operator, settings, steps, options
        self.camera = Camera(first_poses(settings.task, settings.split))

    def __call__(self) -> gym.Env:
        task = self.settings.task
        tracker = TrackedObjects(TASKS[task].objects, self.camera, CELL.poses)
        verdict = self.operator.verdict if self.operator else None
        world = FR3World(CELL, task, tracker, verdict, dry_run=True)
        options = {"base_policy": self.settings.base, "split": self.settings.split} | self.options
        return gym.make(env_id(task), world=world, errors="clean", max_episode_steps=self.steps, **options)


@cache
def first_poses(task: str, split: str) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        return write_starts(TASKS[task], split, [0], Path(folder), pictures=False)[0]["objects"]


def dry_cell(operator: ScriptedOperator, **options: object) -> gym.Env:
    return Cells(operator, **options)()


def noting(stops: list) -> Callable[[], gym.Env]:
    """Makes environments whose world notes in ``stops`` why it was told to stop."""

    def factory() -> gym.Env:
        env = Cells()()
        world = env.get_wrapper_attr("core").world
        stop = world.stop
        world.stop = lambda number, reason, detail="": (stops.append(reason), stop(number, reason, detail))
        return env

    return factory


def run(out: Path, operator: ScriptedOperator, settings: TrialSettings = SETTINGS, **options: object) -> dict:
    return run_trials(settings, Cells(operator, settings, **options), operator, out, pictures=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a comparison in which every other trial succeeded."""
    out = tmp_path_factory.mktemp("trials")
    verdicts = [Verdict("success"), Verdict("fail", "pushed past it")] * SETTINGS.starts
    assert run(out, ScriptedOperator(verdicts)) == {"trials": 4, "judged": 4, "open": 0}
    return out


def test_both_policies_run_from_each_start_in_the_order_written_beforehand(finished: Path) -> None:
    plan = json.loads((finished / PLAN_FILE).read_text())["trials"]
    conditions = json.loads((finished / BLIND_FILE).read_text())["conditions"]
    assert [trial["seed"] for trial in plan] == [0, 0, 1, 1]
    assert sorted(conditions[:2]) == sorted(conditions[2:]) == ["base", "residual"]
    trials = read_trials(finished / TRIALS)
    assert [trial["condition"] for trial in trials] == conditions
    assert [trial["seed"] for trial in trials] == [0, 0, 1, 1]
    assert [trial["verdict"] for trial in trials] == ["success", "fail"] * 2
    assert {t["reason"] for t in trials if t["verdict"] == "fail"} == {"pushed past it"}


def test_the_operator_is_not_told_which_policy_runs(tmp_path: Path) -> None:
    said: list[str] = []
    run(tmp_path, ScriptedOperator(show=said.append))
    words = "\n".join([*said, (tmp_path / PLAN_FILE).read_text(), *os.listdir(tmp_path / TRIALS)])
    assert "Trial 4 of 4" in words and "cabinet at x" in words and "mm" in words
    assert not any(word in words for word in ("residual", "base", "zero"))


def test_the_order_differs_from_run_to_run(tmp_path: Path) -> None:
    settings = TrialSettings("CloseDrawer", CELL, base="hold", residual="zero", starts=40)
    orders = set()
    for i in range(2):
        prepare(settings, tmp_path / str(i), pictures=False)
        orders.add((tmp_path / str(i) / BLIND_FILE).read_text())
    assert len(orders) == 2


def test_starts_are_drawn_and_described_for_every_task(task: str, tmp_path: Path) -> None:
    settings = TrialSettings(task, CELL, base="hold", residual="zero", starts=1)
    (first, _) = prepare(settings, tmp_path, pictures=task == "StandCup")
    assert set(first["objects"]) == {item.name for item in TASKS[task].objects}
    assert all(re.search(r"at x \d+ mm, y -?\d+ mm|open by \d+ mm", line) for line in first["place"])
    if task == "StandCup":
        assert (tmp_path / first["picture"]).read_bytes().startswith(b"\x89PNG")
        assert "lying, its top towards" in first["place"][0]


def test_a_trial_holds_what_was_measured_and_done(finished: Path) -> None:
    trial = read_trials(finished / TRIALS)[0]
    with h5py.File(trial["path"]) as file:
        demo = file["demos"][trial["path"].stem]
        rows = {name: len(demo[name]) for name in ("time", "target", "tcp_pose", "joint_positions", "wrench")}
        assert set(rows.values()) == {STEPS}
        assert demo["trial/action"].shape == (STEPS, 7) and demo["trial/base_target"].shape == (STEPS, 8)
        assert {"cabinet"} <= set(demo["objects"]) and set(demo["objects"]) == set(demo["trial/age"])
        # The base policy holds: what was executed is where the arm stood.
        np.testing.assert_allclose(demo["target"][:, :3], demo["trial/base_target"][:, :3], atol=1e-4)
    known = {"cell": "bench", "supervisor": "A. Person", "base": "hold", "pose_source": "tracker", "stop_reason": ""}
    assert known.items() <= trial.items()
    assert trial["ended_monotonic"] > trial["started_monotonic"]
    assert json.loads(trial["versions"])["mujoco"]


def test_demos_replay_reads_and_replays_trials(tmp_path: Path) -> None:
    core = ResidualWorlds("CloseDrawer", 1, base_policy="expert", split="val", errors="clean")
    count = len(core.task.objects)
    unseen = Readings(np.full((count, 7), np.nan), np.full(count, np.nan), np.zeros(count, bool), ("missing",) * count)
    head = HEAD | {"task": "CloseDrawer", "pose_source": "tracker"}
    recorder = TrialRecorder(tmp_path, "trial_0001", head, synthetic=True)
    core.reset(np.zeros(1, np.int64), [0])
    while not core.terminated[0]:
        row, action = measured(core, unseen, core.steps[0] / 20.0), np.zeros((1, 7))
        core.step(action)
        recorder.add(row | executed(core, action[0], 0.05))
    core.close()
    recorder.finish(Verdict("success"))
    (trial,) = read_trials(tmp_path)
    (log,) = read_logs(trial["path"])
    assert isinstance(log, Log)
    assert log.task == "CloseDrawer" and log.synthetic and set(log.objects) == {"cabinet", "drawer"}
    assert any("tracker" in fact for fact in log.facts)
    out = tmp_path / "replayed.hdf5"
    assert demos_replay(["replay", str(trial["path"]), "--out", str(out)]) == 0
    report = json.loads(out.with_suffix(".report.json").read_text())
    assert [demo["status"] for demo in report["demos"]] == ["success"]


def test_verdicts_are_not_asked_again_and_invalid_trials_are(tmp_path: Path) -> None:
    class Quitter(ScriptedOperator):
        goes = 4  # two a trial: to clear the zone, and to place the objects

        def wait_for_go(self, text: str) -> bool:
            self.goes -= 1
            return self.goes >= 0

    invalid = Verdict("invalid", "somebody walked by")
    assert run(tmp_path, Quitter([invalid, Verdict("success")]))["judged"] == 1
    before = {path.name: path.read_bytes() for path in (tmp_path / TRIALS).iterdir()}
    assert set(before) == {"trial_0001.hdf5", "trial_0001_2.hdf5"}
    order = (tmp_path / BLIND_FILE).read_bytes()
    assert run(tmp_path, ScriptedOperator())["open"] == 0
    assert (tmp_path / BLIND_FILE).read_bytes() == order
    after = {path.name: path.read_bytes() for path in (tmp_path / TRIALS).iterdir()}
    assert before.items() <= after.items() and len(after) == 5
    assert [t["attempt"] for t in read_trials(tmp_path / TRIALS)] == [1, 2, 1, 1, 1]


def test_a_trial_that_stays_invalid_does_not_hold_up_the_others(tmp_path: Path) -> None:
    operator = ScriptedOperator([Verdict("invalid", "no light")] * 3)
    assert run(tmp_path, operator) == {"trials": 4, "judged": 3, "open": 1}


def test_another_comparison_does_not_go_into_the_same_folder(finished: Path) -> None:
    other = TrialSettings("CloseDrawer", CELL, base="hold", residual="zero", starts=3, rehearsal=True)
    with pytest.raises(SettingsError, match="starts: 2 there, 3 now"):
        run(finished, ScriptedOperator(), other)
    (finished / BLIND_FILE).rename(finished / "elsewhere")
    with pytest.raises(SettingsError, match=BLIND_FILE):
        run(finished, ScriptedOperator())
    (finished / "elsewhere").rename(finished / BLIND_FILE)


def test_who_supervises_and_how_it_was_calibrated_may_change(tmp_path: Path) -> None:
    poses = replace(CELL.poses, source="tcp://camera:6666", calibration="anew.yaml")
    again = replace(SETTINGS, cell=replace(CELL, operator="Another Person", poses=poses))
    assert prepare(SETTINGS, tmp_path, pictures=False) == prepare(again, tmp_path, pictures=False)
    slower = replace(SETTINGS, cell=replace(CELL, robot=replace(CELL.robot, speed_cap=0.05)))
    with pytest.raises(SettingsError, match="other settings"):
        prepare(slower, tmp_path, pictures=False)


def test_policies_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counting(load: Callable) -> Callable:
        return lambda name, *arguments: loaded.append(name) or load(name, *arguments)

    for name in ("load_base_policy", "load_residual"):
        monkeypatch.setattr(f"oc_residual_gym.real.settings.{name}", counting(getattr(trial_settings, name)))
    settings = TrialSettings("CloseDrawer", CELL, base="hold", residual="zero", starts=1, rehearsal=True)
    env = Cells(settings=settings, base_policy=settings.base_policy)()
    assert env.get_wrapper_attr("core").base_policy is settings.base_policy
    run_trials(settings, lambda: env, ScriptedOperator(), tmp_path, pictures=False)
    assert sorted(loaded) == ["hold", "zero"]


def test_the_environment_must_be_that_of_the_trials(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="split is 'train'"):
        run(tmp_path, ScriptedOperator(), split="train")
    with pytest.raises(SettingsError, match="base policy is 'bc"):
        run(tmp_path, ScriptedOperator(), base_policy="bc")
    simulated = gym.make(env_id("CloseDrawer"), base_policy="hold", split="test")
    with pytest.raises(SettingsError, match="is simulated"):
        run_trials(SETTINGS, lambda: simulated, ScriptedOperator(), tmp_path, pictures=False)
    with pytest.raises(SettingsError, match="unknown residual"):
        TrialSettings("CloseDrawer", CELL, residual="no such")


@pytest.mark.parametrize("command", ["stop", "invalid", "quit"])
def test_the_operator_can_end_a_trial(tmp_path: Path, command: str) -> None:
    stops: list[str] = []

    run_trials(SETTINGS, noting(stops), ScriptedOperator(commands=["", "", command]), tmp_path, pictures=False)
    assert stops == [StopReason.OPERATOR_STOP]
    first = read_trials(tmp_path / TRIALS)[0]
    assert first["verdict"] == ("fail" if command == "stop" else "invalid")
    with h5py.File(first["path"]) as file:
        assert len(file["demos"]["trial_0001/time"]) == 2
    assert (len(list((tmp_path / TRIALS).iterdir())) == 1) == (command == "quit")


def test_a_stopped_trial_is_kept_with_its_reason(tmp_path: Path) -> None:
    class Failing:
        """Holds for two steps, and has no target from then on."""

        name, hash, horizon, needs = "hold", None, 1, frozenset()
        calls = 0

        def reset(self, worlds: object, generators: object) -> None:
            self.calls = 0

        def predict(self, view: object) -> np.ndarray:
            self.calls += 1
            return view.previous_target[:, None] * (1.0 if self.calls < 3 else np.nan)

    asked: list[str] = []
    operator = ScriptedOperator(show=asked.append)
    run(tmp_path, operator, base_policy=Failing())
    for trial in read_trials(tmp_path / TRIALS):
        assert (trial["verdict"], trial["stop_reason"]) == ("fail", "base_policy_failed")
    assert any("stopped" in text and "base_policy_failed" in text for text in asked)


def test_an_arm_that_does_not_start_leaves_an_invalid_trial(tmp_path: Path) -> None:
    class Stuck(gym.Wrapper):
        resets = 0

        def reset(self, **options: object) -> tuple:
            self.resets += 1
            if self.resets == 1:
                raise RobotStopped(StopReason.POSES_SILENT, "no camera")
            return self.env.reset(**options)

    result = run_trials(SETTINGS, lambda: Stuck(Cells()()), ScriptedOperator(), tmp_path, pictures=False)
    assert result["open"] == 0
    first = read_trials(tmp_path / TRIALS)[0]
    assert (first["verdict"], first["stop_reason"]) == ("invalid", "poses_silent")
    assert "no camera" in first["reason"]


def test_ctrl_c_stops_the_arm_and_keeps_the_trial(tmp_path: Path) -> None:
    stops: list[str] = []

    class Interrupted(ScriptedOperator):
        steps = 0

        def command(self) -> str:
            self.steps += 1
            if self.steps == 3:
                raise KeyboardInterrupt
            return ""

    with pytest.raises(KeyboardInterrupt):
        run_trials(SETTINGS, noting(stops), Interrupted(), tmp_path, pictures=False)
    assert stops == [StopReason.OPERATOR_STOP]
    (trial,) = read_trials(tmp_path / TRIALS)
    assert (trial["verdict"], trial["reason"]) == ("invalid", "interrupted")
    with h5py.File(trial["path"]) as file:
        assert len(file["demos/trial_0001/time"]) == 2
    assert run(tmp_path, ScriptedOperator())["open"] == 0


def test_an_error_of_our_program_has_a_reason_of_its_own(tmp_path: Path) -> None:
    stops: list[str] = []

    class Broken(ScriptedOperator):
        def command(self) -> str:
            raise ZeroDivisionError("by nought")

    with pytest.raises(ZeroDivisionError):
        run_trials(SETTINGS, noting(stops), Broken(), tmp_path, pictures=False)
    assert stops == [StopReason.PROGRAM_ERROR]
    (trial,) = read_trials(tmp_path / TRIALS)
    assert (trial["verdict"], trial["reason"]) == ("invalid", "ZeroDivisionError: by nought")


def test_the_time_limit_proposes_a_failure(tmp_path: Path) -> None:
    proposals: list[Verdict | None] = []

    class Person(ScriptedOperator):
        def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
            proposals.append(proposed)
            return super().ask_verdict(text, proposed, may_succeed)

    run(tmp_path, Person())
    assert proposals == [Verdict("fail")] * 4


@pytest.mark.parametrize("way", ["Ctrl+C", "q"])
def test_a_trial_that_is_over_waits_for_its_verdict(tmp_path: Path, way: str) -> None:
    class Away(ScriptedOperator):
        def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
            if way == "Ctrl+C":
                raise KeyboardInterrupt
            return None

    if way == "q":
        assert run(tmp_path, Away()) == {"trials": 4, "judged": 0, "open": 4}
        assert run(tmp_path, Away()) == {"trials": 4, "judged": 0, "open": 4}
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Away())
    assert [path.name for path in (tmp_path / TRIALS).iterdir()] == ["trial_0001.journal"]
    # A torn line: the machine went down while a verdict was written.
    journal = tmp_path / TRIALS / "trial_0001.journal"
    journal.write_text(journal.read_text() + '{"verdict": {"res')
    said: list[str] = []
    operator = ScriptedOperator([Verdict("success")], show=said.append)
    assert run(tmp_path, operator) == {"trials": 4, "judged": 4, "open": 0}
    assert "Trial 1, begun at 20" in said[0] and "no verdict yet" in said[0]
    first = read_trials(tmp_path / TRIALS)[0]
    assert (first["verdict"], first["attempt"], first["stop_reason"]) == ("success", 1, "")
    assert first["judged"] > first["started"]
    with h5py.File(first["path"]) as file:
        assert len(file["demos/trial_0001/time"]) == STEPS


def test_a_script_does_not_say_go_for_ever() -> None:
    operator = ScriptedOperator()
    assert [operator.wait_for_go("the arm is stopped") for _ in range(4)] == [True, True, True, False]


def test_a_real_world_runs_without_its_robot(tmp_path: Path) -> None:
    """The dry run of a robot: its own clock, readings, stops and rests, but for an arm that prints its targets."""

    class Judge(ScriptedOperator):
        """Calls the first trial a success in its fifth step; in the second one the camera is silent."""

        steps, prompts = 0, 0

        def verdict(self) -> bool | None:
            self.steps += 1
            return True if self.steps == 5 else None

        def command(self) -> str:
            cells.camera.silent = self.steps >= 8
            return ""

        def wait_for_go(self, text: str) -> bool:
            cells.camera.silent = False
            self.prompts += "may move again" in text
            return self.prompts == 0

    operator = Judge()
    cells = Cells(operator, steps=12)
    run_trials(SETTINGS, cells, operator, tmp_path, pictures=False)
    done, stopped = read_trials(tmp_path / TRIALS)
    assert (done["verdict"], done["stop_reason"], done["calibration"]) == ("success", "", "hand-eye 3")
    assert max(done["placement_error"]) < 0.005 and done["wrench_bias"] == [0.0] * 6
    with h5py.File(done["path"]) as file:
        demo = file["demos/trial_0001"]
        assert len(demo["time"]) == 5
        assert np.isnan(demo["trial/period"][0]) and (demo["trial/period"][1:] > 0.04).all()
        assert (np.diff(demo["time"]) > 0.04).all()
        readings = demo["trial/readings/cabinet"]
        assert readings["pose"].shape == (5, 7) and (readings["state"][()] == READING_STATES.index("used")).all()
        ages = readings["age"][()]  # the camera's 10 ms, and what a busy machine adds to some readings
        assert (ages > 0.0099).all() and ages.min() < 0.015
    assert (stopped["verdict"], stopped["stop_reason"]) == ("fail", "poses_silent")
    assert "cabinet" in stopped["stop_detail"] and stopped["stopped_monotonic"] >= stopped["stop_seen_monotonic"]
    # Nobody let it move again: the third trial did not begin.
    assert operator.prompts == 1


class Wrapped(gym.Wrapper):
    """Notes when an environment and its robot are reset."""

    def __init__(self, env: gym.Env, events: list[str]):
        super().__init__(env)
        self._events, world = events, env.get_wrapper_attr("core").world
        home = world.reset

        def reset(*arguments: object) -> None:
            events.append("start" if arguments else "home")
            home(*arguments)

        world.reset = reset

    def reset(self, **options: object) -> tuple:
        self._events.append("episode")
        return self.env.reset(**options)


def test_the_arm_is_home_before_anything_is_placed_under_it(tmp_path: Path) -> None:
    events: list[str] = []

    class Person(ScriptedOperator):
        def wait_for_go(self, text: str) -> bool:
            events.append("clear" if "clear the zone" in text else "place" if "cabinet at" in text else text)
            return len(events) < 6

    operator = Person()
    env = Wrapped(dry_cell(operator), events)
    run_trials(SETTINGS, lambda: env, operator, tmp_path, pictures=False)
    assert events == ["clear", "home", "place", "episode", "start", "clear"]


@pytest.mark.parametrize(("key", "prompts"), [("stop", ["clear", "again", "clear", "place"]), ("quit", ["clear"])])
def test_the_operator_can_stop_the_way_home(tmp_path: Path, key: str, prompts: list[str]) -> None:
    seen: list[str] = []

    class Person(ScriptedOperator):
        def wait_for_go(self, text: str) -> bool:
            words = {"clear": "clear the zone", "again": "may move again", "place": "cabinet at"}
            seen.extend(name for name, part in words.items() if part in text)
            return seen[-1] != "place"

    operator = Person(commands=[key])
    env = dry_cell(operator)
    world = env.get_wrapper_attr("core").world
    home = world.reset

    def reset(*arguments: object) -> None:
        if operator.wants_stop():  # as a real arm asks on its way
            world.stop(0, StopReason.OPERATOR_STOP)
            raise RobotStopped(StopReason.OPERATOR_STOP, "on the way home")
        home(*arguments)

    world.reset = reset
    run_trials(SETTINGS, lambda: env, operator, tmp_path, pictures=False)
    assert seen == prompts
    assert not list((tmp_path / TRIALS).glob("*"))


@pytest.mark.parametrize("answer", ["again", "start", "quit"])
def test_an_object_out_of_its_place_is_asked_about(tmp_path: Path, answer: str) -> None:
    asked: list[str] = []

    class Person(ScriptedOperator):
        trials = 0

        def wait_for_go(self, text: str) -> bool:
            self.trials += "cabinet at" in text
            return self.trials < 2

        def ask_placement(self, text: str) -> str:
            asked.append(text)
            if answer == "again" and len(asked) == 2:
                cells.camera.offset[:] = 0.0
            return answer

    operator = Person()
    cells = Cells(operator)
    cells.camera.offset[:] = [0.03, -0.01, 0.0]
    run_trials(SETTINGS, cells, operator, tmp_path, pictures=False)
    assert "cabinet is 32 mm and 0 degrees from its place: move it by x -30, y +10 mm" in asked[0]
    assert len(asked) == (2 if answer == "again" else 1)
    (trial,) = read_trials(tmp_path / TRIALS)
    assert trial["verdict"] == ("invalid" if answer == "quit" else "fail")
    assert trial["placement_accepted"] == (answer != "again")
    assert max(trial["placement_error"]) == pytest.approx(0.0 if answer == "again" else 0.032, abs=0.003)


def test_a_success_in_the_step_of_a_fault_is_none(tmp_path: Path) -> None:
    asked: list[tuple] = []

    class Person(ScriptedOperator):
        def verdict(self) -> bool | None:
            env.get_wrapper_attr("core").world.stop(0, StopReason.LINK_LOST)
            return True

        def wait_for_go(self, text: str) -> bool:
            return not asked

        def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
            asked.append((proposed, may_succeed))
            return super().ask_verdict(text, proposed, may_succeed)

    operator = Person([Verdict("success")])
    env = dry_cell(operator)
    run_trials(SETTINGS, lambda: env, operator, tmp_path, pictures=False)
    assert asked == [(None, False)]
    (trial,) = read_trials(tmp_path / TRIALS)
    assert (trial["verdict"], trial["stop_reason"]) == ("fail", "link_lost")


def test_a_step_that_failed_has_no_period(tmp_path: Path) -> None:

    class Person(ScriptedOperator):
        steps = 0

        def command(self) -> str:
            self.steps += 1
            if self.steps == 4:  # the hand fails in this step: it is never measured
                env.get_wrapper_attr("core").world._hand.fault = (StopReason.GRIPPER_BLOCKED, "stuck")
            return ""

        def wait_for_go(self, text: str) -> bool:
            return not self.steps

    operator = Person()
    env = dry_cell(operator, steps=12)
    run_trials(SETTINGS, lambda: env, operator, tmp_path, pictures=False)
    (trial,) = read_trials(tmp_path / TRIALS)
    assert trial["stop_reason"] == "gripper_blocked"
    with h5py.File(trial["path"]) as file:
        np.testing.assert_array_equal(np.isnan(file["demos/trial_0001/trial/period"]), [True, False, False, True])


def rows(count: int) -> Iterator[dict]:
    pose = [0.4, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0]
    for t in range(count):
        yield {
            "time": t / 20,
            "target": [*pose, 1.0],
            "tcp_pose": pose,
            "joint_positions": np.zeros(7),
            "gripper_width": 0.08,
            "objects/block": pose if t else np.full(7, np.nan),
            "objects_valid/block": t > 0,
        }


HEAD = {"trial": 1, "attempt": 1, "condition": "base", "task": "Lift", "rate": 20.0, "seed": 0}


@pytest.mark.parametrize("cut", ["between rows", "within a row", "within the head"])
def test_what_a_crash_leaves_becomes_an_invalid_trial(tmp_path: Path, cut: str) -> None:
    recorder = TrialRecorder(tmp_path, "trial_0001", HEAD, synthetic=False)
    for row in rows(5):
        recorder.add(row)
    # A kill: nothing is closed, and what was written is there.
    journal = tmp_path / "trial_0001.journal"
    content = journal.read_bytes()
    head = content.index(b"\n") + 1
    journal.write_bytes(content[: {"between rows": len(content), "within a row": len(content) - 9}.get(cut, head - 9)])
    (path,) = recover(tmp_path)
    (trial,) = read_trials(tmp_path)
    assert (trial["trial"], trial["verdict"], trial["reason"]) == (1, "invalid", "interrupted")
    assert not journal.exists() and recover(tmp_path) == []
    (log,) = read_logs(path)
    if cut == "within the head":
        assert isinstance(log, Skipped)
        return
    assert isinstance(log, Log) and len(log.time) == (5 if cut == "between rows" else 4)
    assert np.isfinite(log.objects["block"].poses).all()


def test_a_verdict_survives_a_crash_while_its_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = TrialRecorder(tmp_path, "trial_0001", HEAD, synthetic=False)
    for row in rows(3):
        recorder.add(row)
    with monkeypatch.context() as patch:

        def full(path: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device", str(path))

        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            recorder.finish(Verdict("success"), stop_reason="")
    assert not list(tmp_path.glob("*.hdf5"))
    recover(tmp_path)
    (trial,) = read_trials(tmp_path)
    assert trial["verdict"] == "success" and trial["success"] is True


def test_a_trial_is_never_recorded_over(tmp_path: Path) -> None:
    TrialRecorder(tmp_path, "trial_0001", HEAD, synthetic=False).finish(Verdict("fail"))
    with pytest.raises(SettingsError, match="never recorded over"):
        TrialRecorder(tmp_path, "trial_0001", HEAD, synthetic=False)


class Keyboard:
    """A terminal whose keys a test presses."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.source = os.fdopen(slave, "r")
        self.shown = open(os.devnull, "w")  # noqa: SIM115

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())
        time.sleep(0.02)


def test_keys_count_without_enter() -> None:
    keyboard = Keyboard()
    with TerminalOperator(keyboard.source, keyboard.shown) as operator:
        assert operator.verdict() is None and operator.command() == ""
        keyboard.press("zxi")
        assert [operator.command() for _ in range(3)] == ["stop", "invalid", ""]
        keyboard.press("f")
        assert operator.verdict() is False
        keyboard.press("S")
        assert operator.verdict() is True
        # A verdict before the trial is none; a wish to stop is not forgotten, and looking at it does not use it up.
        assert not operator.wants_stop()
        keyboard.press("sx")
        assert operator.wants_stop() and operator.wants_stop()
        operator.trial_begins()
        assert operator.verdict() is None and operator.command() == "stop"


@pytest.mark.parametrize(
    ("keys", "proposed", "may_succeed", "expected"),
    [
        ("s", None, True, Verdict("success")),
        ("\n", Verdict("success"), True, Verdict("success")),
        ("f", Verdict("success"), True, Verdict("fail")),
        ("sf", None, False, Verdict("fail")),
        ("\nf", None, True, Verdict("fail")),
        ("q", Verdict("success"), True, None),
    ],
)
def test_the_verdict_is_asked_for(
    keys: str, proposed: Verdict | None, may_succeed: bool, expected: Verdict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyboard = Keyboard()
    # What was typed before a question is thrown away; here the keys are pressed after it.
    monkeypatch.setattr("termios.tcflush", lambda source, queue: keyboard.press(keys))
    with TerminalOperator(keyboard.source, keyboard.shown) as operator:
        assert operator.ask_verdict("over", proposed, may_succeed) == expected


def test_an_invalid_trial_needs_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = Keyboard()
    monkeypatch.setattr("termios.tcflush", lambda source, queue: keyboard.press("i\n  \nlight went out\n"))
    with TerminalOperator(keyboard.source, keyboard.shown) as operator:
        assert operator.ask_verdict("over", None, True) == Verdict("invalid", "light went out")
    monkeypatch.setattr("termios.tcflush", lambda source, queue: keyboard.press("q"))
    with TerminalOperator(keyboard.source, keyboard.shown) as operator:
        assert operator.wait_for_go("next") is False


@pytest.mark.parametrize(("keys", "expected"), [("\n", "again"), ("xs", "start"), ("q", "quit")])
def test_a_placement_is_asked_about(keys: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = Keyboard()
    monkeypatch.setattr("termios.tcflush", lambda source, queue: keyboard.press(keys))
    with TerminalOperator(keyboard.source, keyboard.shown) as operator:
        assert operator.ask_placement("the block is elsewhere") == expected


def test_trials_need_a_terminal() -> None:
    with open(os.devnull) as nowhere, pytest.raises(SettingsError, match="terminal"):
        TerminalOperator(nowhere)
