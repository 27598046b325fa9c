"""Gymnasium environments as suites: what is read off them, what is recorded, and how their faults are told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grape.collect import CollectSettings, run_collect
from grape.collect.plan import PlannedEpisode
from grape.collect.recorder import EpisodeRecorder
from grape.core.errors import DataError, SettingsError, SimulatorError
from grape.core.events import SilentReporter
from grape.core.tasks import ActionSpace, Task
from grape.doctor.frame import describe_frame
from grape.envs.base import Snapshot
from grape.envs.gymnasium_options import GymnasiumTask, task_name
from grape.envs.gymnasium_suite import GymnasiumSuite
from grape.envs.pool import WorkerPool
from grape.envs.registry import get_suite
from grape.evaluation import EvaluateSettings, run_evaluate
from tests.envs.gym_environments import MODULE
from tests.envs.snapshots import assert_same

NAME = f"gym:{MODULE}:Line-v0"


def suite_with(fault: str = "", tells: str = "success", **options) -> GymnasiumSuite:
    task = GymnasiumTask(f"{MODULE}:Line-v0", kwargs={"fault": fault, "tells": tells}, **options)
    return GymnasiumSuite("lines", {"line": task})


def play(suite: GymnasiumSuite, actions, state: int = 0) -> list[Snapshot]:
    environment = suite.make_environment(suite.tasks[0])
    try:
        snapshots = [environment.reset(state)]
        for action in actions:
            if not snapshots[-1].terminated:
                snapshots.append(environment.step(np.array(action, np.float32)))
        return snapshots
    finally:
        environment.close()


def test_a_suite_is_read_off_the_environment():
    suite = get_suite(NAME)
    assert suite.tasks == (Task(NAME, 0, "Line-v0", "go right", 6),)
    assert suite.action_space == ActionSpace(("action_0", "action_1"), (-1, -2), (1, 2), "none", "none", 5.0)
    assert (suite.proprio_dim, suite.cameras, suite.operators) == (2, (), ())
    assert suite.n_initial_states(suite.tasks[0]) == 1_000_000
    versions = suite.versions()
    assert set(versions) == {"gymnasium", "tests"} or set(versions) == {"gymnasium"}
    assert suite.cautions() == ()


def test_constructing_a_suite_imports_no_simulator():
    code = f"""
import sys
from grape.envs.registry import get_suite
suite = get_suite({NAME!r})
print(suite.name, "gymnasium" in sys.modules)
"""
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reply.stdout.split() == [NAME, "False"]


def test_snapshots_hold_what_the_environment_gave():
    start, right = play(get_suite(NAME), [(1, 0)], state=3)
    assert start.image.shape == (24, 32, 3)
    assert right.proprio[0] == pytest.approx(start.proprio[0] + 0.5)
    np.testing.assert_array_equal(right.keypoints["point"], np.array([right.proprio[0], 0, 0], np.float32))
    assert right.signals == {"reward": pytest.approx(float(right.proprio[0])), "speed": 0.5}
    assert (start.success, right.success, right.terminated) == (False, False, False)
    assert_same(play(get_suite(NAME), [], state=3)[0], start)
    assert not np.array_equal(play(get_suite(NAME), [], state=4)[0].proprio, start.proprio)


def test_actions_are_clipped_to_the_space():
    suite = suite_with()
    environment = suite.make_environment(suite.tasks[0])
    environment.reset(0)
    environment.step(np.array([-5, 5], np.float32))
    (action,) = environment._env.unwrapped.actions
    assert action.dtype == np.float32
    assert action.tolist() == [-1, 2]
    environment.close()


@pytest.mark.parametrize(
    ("tells", "actions", "success", "terminated"),
    [
        ("success", [(1, 0)] * 3, True, True),
        ("is_success", [(1, 0)] * 3, True, True),
        ("success", [(-1, 0)] * 3, False, True),  # over without success is a failure
        ("success", [(0, 0)] * 6, False, True),  # out of time as well
        ("", [(1, 0)] * 3, None, True),  # nobody tells: unknown, although it is over
        ("late", [(0, 0)] * 1, None, False),
    ],
)
def test_success_is_what_info_tells(tells, actions, success, terminated):
    snapshots = play(suite_with(tells=tells), actions)
    assert (snapshots[-1].success, snapshots[-1].terminated) == (success, terminated)


def test_success_by_another_key_or_by_the_end_itself():
    assert play(suite_with(tells="done_well", success="done_well"), [(1, 0), (1, 0)])[-1].success is True
    ended = suite_with(tells="", success="terminated")
    assert [snapshot.success for snapshot in play(ended, [(1, 0), (1, 0)])] == [False, False, True]
    timed_out = play(ended, [(0, 0)] * 6)[-1]
    assert (timed_out.success, timed_out.terminated) == (False, True)


def test_no_step_follows_the_end():
    suite = suite_with()
    environment = suite.make_environment(suite.tasks[0])
    environment.reset(0)
    while not environment.step(np.array([1, 0], np.float32)).terminated:
        pass
    with pytest.raises(SimulatorError, match="after the episode's end"):
        environment.step(np.array([1, 0], np.float32))
    assert not environment.reset(0).terminated


def test_an_image_may_be_rendered_resized_and_one_of_several():
    rendered = suite_with("state alone")
    assert rendered.proprio_dim == 2
    assert play(rendered, [])[0].image.shape == (24, 32, 3)
    small = play(suite_with(image_size=16), [])[0]
    assert small.image.shape == (16, 16, 3)
    assert small.display is not None
    assert small.display.shape == (24, 32, 3)
    both = suite_with("two images", image="left", cameras={"wrist": "right"}, proprio="none")
    assert (both.cameras, both.proprio_dim) == (("wrist",), 0)
    (look,) = play(both, [])
    np.testing.assert_array_equal(look.cameras["wrist"], look.image // 2)


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        ("no image", {}, "gives no image"),
        ("two images", {}, "several images in its observations: left, right"),
        ("two images", {"image": "lift"}, "Did you mean 'left'"),
        ("", {"proprio": "stat"}, "Did you mean 'state'"),
        ("discrete", {}, "policies decide vectors of floats"),
        ("unbounded", {}, "actions without bounds"),
        ("", {"action_names": ("x",)}, "action_names names 1"),
        ("", {"gripper": "closes"}, "Unknown convention"),
    ],
)
def test_what_no_policy_can_use_is_refused_before_anything(fault, options, message):
    with pytest.raises(SettingsError, match=message):
        suite_with(fault, **options).check()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:", "No Gymnasium environment is named"),
        (f"gym:{MODULE}:Lime-v0", "Did you mean"),
        ("gym:no_such_module:Line-v0", "no_such_module.*PYTHONPATH"),
        (f"gym:{MODULE}:Endless-v0", "does not say after how many steps"),
        ("gym:CartPole-v1", "Discrete"),
    ],
)
def test_names_that_name_nothing_usable(name, message, tmp_path):
    settings = CollectSettings(out=tmp_path, suite=name, policy=str(tmp_path))
    with pytest.raises(SettingsError, match=f"(?s){message}"):
        run_collect(settings)


def test_a_missing_gymnasium_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SettingsError, match=r"grape-vla\[gymnasium\]"):
        get_suite(NAME).tasks  # noqa: B018


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("step", "step raised ZeroDivisionError: the motor stalls"),
        ("nan", "robot's state in the observation is not finite"),
        ("float image", "is float64"),
        ("lost keypoint", r"has the names \[\] after \['point'\]"),
        ("flat keypoint", r"shape \(2,\)"),
        ("make", "raised OSError: no such robot"),
    ],
)
def test_faults_of_an_environment_are_told_as_such(fault, message):
    with pytest.raises(SimulatorError, match=message):
        play(suite_with(fault), [(0, 0)])


def test_a_look_at_the_environment_warns_of_chance_and_of_silence():
    (chance,) = suite_with("seedless").cautions()
    assert "not deterministic: reset with one seed" in chance
    (silence,) = suite_with(tells="").cautions()
    assert "did not tell success" in silence


def test_options_are_read_from_a_file_and_are_part_of_a_runs_identity(tmp_path):
    file = tmp_path / "line.yaml"
    file.write_text(f"id: {MODULE}:Endless-v0\nmax_steps: 9\ninstruction: go\nkwargs: {{tells: is_success}}\n")
    suite = get_suite(f"gym:{file}")
    (task,) = suite.tasks
    assert (task.name, task.instruction, task.max_steps) == ("Endless-v0", "go", 9)
    before = suite.versions()
    file.write_text(file.read_text().replace("go", "go on"))
    assert get_suite(f"gym:{file}").versions() != before
    for text, message in (("id: x\ncontrol: 3\n", "control"), ("id: 3\n", "id"), ("- a\n", "line.yaml")):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            get_suite(f"gym:{file}")
    file.write_text("id: x\nmax_steps: -1\n")
    with pytest.raises(SettingsError, match="max_steps is -1"):
        get_suite(f"gym:{file}")


def test_tasks_of_a_suite_are_of_one_robot():
    tasks = {
        "a": GymnasiumTask(f"{MODULE}:Line-v0"),
        "b": GymnasiumTask(f"{MODULE}:Line-v0", proprio="none"),
    }
    GymnasiumSuite("lines", {"a": tasks["a"], "c": tasks["a"]}).check()
    with pytest.raises(Exception, match="Task b of suite lines has other actions"):
        GymnasiumSuite("lines", tasks).check()


def test_names_of_tasks_are_names_of_files():
    assert task_name("ale_py:ALE/Pong-v5") == "ALE-Pong-v5"
    assert task_name("///").startswith("task-")


def test_a_worker_plays_until_the_environment_ends_the_episode():
    suite = get_suite(NAME)
    actions = np.array([[[-1, 0]] * 6, [[1, 0]] * 6], np.float32)
    with WorkerPool(NAME, 1, 2, 120.0) as pool:
        pool.start(0, suite.tasks[0], [0, 1], None)
        (reply,) = pool.wait()
        assert reply.failure is None
        pool.play(0, actions, [6, 6], "last-step")
        (reply,) = pool.wait()
    ends = [reply.states(lane)[-1] for lane in range(2)]
    assert [(end.success, end.terminated) for end in ends] == [(False, True), (True, True)]
    assert all(len(reply.states(lane)) < 6 for lane in range(2))


def test_an_unknown_outcome_is_recorded_as_unknown():
    suite = suite_with(tells="")
    start, *states = play(suite, [(-1, 0)] * 3)
    planned = PlannedEpisode("line-i000000-k00", 0, 0, 0, "")
    recorder = EpisodeRecorder(suite.tasks[0], planned, display=False)
    recorder.record_state(start)
    zero = np.zeros(2, np.float32)
    for state in states:
        assert not recorder.over
        recorder.record_decision(zero, zero, np.zeros(2, np.int32), zero)
        recorder.record_state(state)
    assert recorder.over
    trajectory = recorder.trajectory(actor="policy")
    assert trajectory.meta.success is None
    assert np.isnan(trajectory.signals["success"]).all()


def test_the_doctor_draws_it():
    answer = describe_frame(get_suite(NAME))
    assert (answer["task"], answer["shape"], answer["cautions"]) == ("Line-v0", [24, 32, 3], [])


class Listener(SilentReporter):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


@pytest.mark.slow
def test_evaluation_of_an_unknown_outcome_says_so(tmp_path):
    pytest.importorskip("torch")
    file = tmp_path / "line.yaml"
    file.write_text(f"id: {MODULE}:Line-v0\nkwargs: {{tells: ''}}\n")
    policy = _checkpoint(tmp_path, dim=2)
    settings = EvaluateSettings(
        out=tmp_path / "out", suite=f"gym:{file}", policy=str(policy), episodes=2, workers=1, device="cpu"
    )
    listener = Listener()
    with pytest.raises(DataError, match=r"outcome of episode .* is unknown"):
        run_evaluate(settings, listener)
    assert any("did not tell success" in warning for warning in listener.warnings)
    with pytest.raises(Exception, match="decides 3 dimensions, the suite takes 2"):
        run_collect(
            CollectSettings(out=tmp_path / "other", suite=NAME, policy=str(_checkpoint(tmp_path, dim=3)), workers=1)
        )


def _checkpoint(folder: Path, dim: int) -> Path:
    from grape.policies.registry import get_policy_type
    from grape.policies.statistics import compute_norm_stats
    from grape.policies.types import NewPolicy

    actions = np.linspace(-1, 1, 20 * dim).reshape(20, dim)
    policy = get_policy_type("openvla").create(
        NewPolicy(
            seed=0,
            norm_stats={"lines": compute_norm_stats(actions, [f"a{number}" for number in range(dim)])},
            gripper="none",
            instructions=("go right",),
            action_dim=dim,
        )
    )
    out = folder / f"policy-{dim}"
    out.mkdir()
    policy.save(out)
    return out
