"""Libraries and frames, with probes that answer as a broken machine would."""

import json

import numpy as np
import pytest

from grape.core.errors import SimulatorError
from grape.core.tasks import ActionSpace, Task
from grape.doctor import frame, graphics
from grape.doctor.findings import ProbeReply
from grape.envs.base import Snapshot, SuiteBase

GOOD = {
    "task": "reach",
    "shape": [64, 64, 3],
    "mean": 99.0,
    "spread": 40.0,
    "create_seconds": 1.0,
    "step_seconds": 0.01,
}


@pytest.fixture(autouse=True)
def headless_linux(monkeypatch):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(graphics.sys, "platform", "linux")


def machine_with(monkeypatch, *backends, frames=None):
    """A machine on which these backends' libraries load; ``frames`` maps MUJOCO_GL to a frame probe's reply."""

    def reply(arguments, timeout, environment=None):
        if arguments[0] == "-c":
            backend = next(name for name, files in graphics.BACKENDS.items() if files[0] in arguments)
            loaded = backend in backends
            return ProbeReply({"loaded": arguments[2] if loaded else "", "why": "" if loaded else "no such file"})
        chosen = (environment or {}).get("MUJOCO_GL", graphics.os.environ.get("MUJOCO_GL", ""))
        return frames[chosen]

    monkeypatch.setattr(graphics, "probe", reply)


def levels(findings):
    return {finding.name: finding.level for finding in findings}


def test_a_name_that_does_not_load_is_reported():
    reply = graphics.probe(("-c", graphics._LIBRARY_PROBE, "libNoSuchThing.so.1"), 30)
    assert reply.data["loaded"] == ""
    assert "libNoSuchThing.so.1" in reply.data["why"]


def test_one_library_is_enough(monkeypatch):
    machine_with(monkeypatch, "egl")
    assert levels(graphics.check_libraries(1)) == {"gl osmesa": "ok", "gl egl": "ok"}


def test_no_library(monkeypatch):
    machine_with(monkeypatch)
    findings = list(graphics.check_libraries(1))
    assert {finding.level for finding in findings} == {"error"}
    assert all("apt-get install" in finding.fix for finding in findings)


def test_chosen_library_missing(monkeypatch):
    machine_with(monkeypatch, "egl")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    osmesa, egl = graphics.check_libraries(1)
    assert (osmesa.level, egl.level) == ("error", "ok")
    assert "export MUJOCO_GL=egl" in osmesa.fix


@pytest.mark.parametrize(
    ("choice", "display", "level"),
    [("osmesa", "", None), ("EGL", "", None), ("glfw", "", "error"), ("glfw", ":0", "warn"), ("off", ":0", "error"),
     ("elg", ":0", "error")],
)  # fmt: skip
def test_choice_of_backend(monkeypatch, choice, display, level):
    machine_with(monkeypatch, "egl", "osmesa")
    monkeypatch.setenv("MUJOCO_GL", choice)
    monkeypatch.setenv("DISPLAY", display)
    assert levels(graphics.check_libraries(1)).get("MUJOCO_GL") == level


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(graphics.sys, "platform", "darwin")
    assert levels(graphics.check_libraries(1)) == {"gl": "ok"}


def frame_finding(monkeypatch, frames, *backends):
    machine_with(monkeypatch, *backends, frames=frames)
    (finding,) = graphics.check_frame("metaworld", 1)
    return finding


def test_good_frame(monkeypatch):
    finding = frame_finding(monkeypatch, {"": ProbeReply(GOOD)})
    assert finding.level == "ok"
    assert "64x64" in finding.found
    assert "10 ms" in finding.found


def test_black_frame(monkeypatch):
    finding = frame_finding(monkeypatch, {"": ProbeReply({**GOOD, "mean": 0.0, "spread": 0.0})})
    assert finding.level == "error"
    assert "empty" in finding.found


def test_slow_frame(monkeypatch):
    assert frame_finding(monkeypatch, {"": ProbeReply({**GOOD, "step_seconds": 1.4})}).level == "warn"


def test_crash_finds_a_backend_that_works(monkeypatch):
    crash = ProbeReply(failure="crashed with SIGSEGV")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = frame_finding(monkeypatch, {"egl": crash, "osmesa": ProbeReply(GOOD)}, "egl", "osmesa")
    assert finding.level == "error"
    assert "SIGSEGV" in finding.found
    assert finding.fix.endswith("export MUJOCO_GL=osmesa")


def test_backend_with_black_frames_is_not_recommended(monkeypatch):
    crash, black = ProbeReply(failure="crashed with SIGSEGV"), ProbeReply({**GOOD, "spread": 0.0})
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = frame_finding(monkeypatch, {"egl": crash, "osmesa": black}, "egl", "osmesa")
    assert "apt-get install" in finding.fix


def test_missing_extra_keeps_its_own_hint(monkeypatch):
    missing = ProbeReply({"failure": "metaworld is missing", "hint": "pip install it", "graphics": False})
    assert frame_finding(monkeypatch, {"": missing}, "egl").fix == "pip install it"


class OneTaskSuite(SuiteBase):
    """A suite that draws one gray level, or refuses to."""

    name = "one"
    tasks = (Task("one", 0, "stand", "stand still", 1),)
    action_space = ActionSpace(("x",), (-1.0,), (1.0,), "none", "none", 10.0)

    def __init__(self, problem=None):
        self.problem = problem
        self.closed = False

    def n_initial_states(self, task):
        return 1

    def versions(self):
        return {"greys": "1.0"}

    def cautions(self):
        return ("grays 1.0 draws too dark.",)

    def make_environment(self, task):
        return self

    def reset(self, initial_state):
        assert initial_state == 0

    def step(self, action):
        assert action.shape == (1,)
        if self.problem:
            raise self.problem
        return Snapshot(np.full((4, 6, 3), 50, np.uint8), np.zeros(0, np.float32), {}, {}, False)

    def close(self):
        self.closed = True


def test_description_of_a_frame():
    suite = OneTaskSuite()
    data = frame.describe_frame(suite)
    assert (data["task"], data["shape"], data["mean"], data["spread"]) == ("stand", [4, 6, 3], 50.0, 0.0)
    assert suite.closed
    assert data["step_seconds"] >= 0
    assert data["versions"] == {"greys": "1.0"}
    assert data["cautions"] == ["grays 1.0 draws too dark."]


def test_cautions_of_a_suite_are_warnings_of_their_own(monkeypatch):
    reply = ProbeReply({**GOOD, "versions": {"mujoco": "9.0"}, "cautions": ["mujoco 9.0 was not compared."]})
    monkeypatch.setattr(graphics, "_render", lambda *arguments: reply)
    frame_finding_, caution = graphics.check_frame("libero_goal", 1.0)
    assert (frame_finding_.level, caution.level) == ("ok", "warn")
    assert frame_finding_.found.endswith("mujoco 9.0")
    assert "not compared" in caution.found


def test_a_suite_of_another_interpreter_says_how_it_is_run(capsys):
    assert frame.main(["simpler_widowx-v0"]) == 0
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "runs in the original SimplerEnv" in data["failure"]
    assert "--env-python" in data["hint"]
    assert data["graphics"] is False


@pytest.mark.parametrize(
    ("problem", "failure", "graphics_at_fault"),
    [(SimulatorError("no GL", "install it"), "no GL", True), (OSError("driver"), "OSError: driver", True)],
)
def test_problems_become_answers(monkeypatch, capsys, problem, failure, graphics_at_fault):
    suite = OneTaskSuite(problem)
    monkeypatch.setattr("grape.envs.registry.get_suite", lambda name: suite)
    assert frame.main(["one"]) == 0
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (data["failure"], data["graphics"]) == (failure, graphics_at_fault)
    assert data["hint"]
    assert suite.closed


@pytest.mark.parametrize("suite", ["toy", "metaworld"])
def test_a_suite_for_real(suite):
    if suite == "metaworld":
        pytest.importorskip("metaworld", reason="needs the extra metaworld")
    (finding,) = graphics.check_frame(suite, 120)
    assert finding.level in ("ok", "warn"), finding  # "warn": slow, on a busy machine
