import shlex
from pathlib import Path

import pytest
import tyro

from grape.compat.evaluate_call import command_line, keys_of
from grape.compat.inference_flags import parse_flags
from grape.compat.inference_translation import TASKS, translate
from grape.compat.main_inference import main
from grape.core.errors import SettingsError
from grape.evaluation import EvaluateSettings
from tests.training.recordings import write_policy

CALL = (
    "--policy-model openvla --ckpt-path {policy} --robot {robot} --policy-setup widowx_bridge --control-freq 5"
    " --sim-freq 500 --max-episode-steps 100 --env-name {env} --scene-name {scene}"
    " --rgb-overlay-path ./ManiSkill2_real2sim/data/real_inpainting/{overlay} --robot-init-x {x} {x} 1"
    " --robot-init-y {y} {y} 1 --obj-variation-mode episode --obj-episode-range 0 {end}"
    " --robot-init-rot-quat-center 0 0 0 1 --robot-init-rot-rpy-range 0 0 1 0 0 1 0 0 1"
)
TABLE = {"robot": "widowx", "scene": "bridge_table_1_v1", "overlay": "bridge_real_eval_1.png", "x": 0.147, "y": 0.028}
SINK = {
    "robot": "widowx_sink_camera_setup",
    "scene": "bridge_table_1_v2",
    "overlay": "bridge_sink.png",
    "x": 0.127,
    "y": 0.06,
}
# The four calls in the first public implementation's instructions.
PUBLISHED = {
    "carrot-on-plate": {"env": "PutCarrotOnPlateInScene-v0", "end": 50, **TABLE},
    "stack-cubes": {"env": "StackGreenCubeOnYellowCubeBakedTexInScene-v0", "end": 20, **TABLE},
    "spoon-on-cloth": {"env": "PutSpoonOnTableClothInScene-v0", "end": 20, **TABLE},
    "eggplant-in-basket": {"env": "PutEggplantInBasketScene-v0", "end": 20, **SINK},
}


def call(task: str = "carrot-on-plate", policy: str = "tpo/model") -> list[str]:
    return shlex.split(CALL.format(policy=policy, **PUBLISHED[task]))


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_calls_become_calls_of_evaluate(task: str) -> None:
    translation = translate(parse_flags(call(task)))
    settings = tyro.cli(EvaluateSettings, args=list(translation.arguments))
    assert (settings.suite, settings.tasks, settings.policy) == ("simpler_widowx", task, "tpo/model")
    assert settings.initial_states == ("0-23" if task == "carrot-on-plate" else "0-19")
    assert (settings.until, settings.max_steps, settings.temperature) == ("last-step", 100, 0.0)
    assert any("50 episodes are rollouts of 24 states" in note for note in translation.notes) == (
        task == "carrot-on-plate"
    )


def test_simplerenvs_own_call_has_the_tasks_limit() -> None:
    words = [{"100": "60", "50": "24"}.get(word, word) for word in call()]
    settings = tyro.cli(EvaluateSettings, args=list(translate(parse_flags(words)).arguments))
    assert (settings.max_steps, settings.initial_states) == (0, "0-23")
    long_names = [f"{word}-range" if word in ("--robot-init-x", "--robot-init-y") else word for word in call()]
    assert parse_flags(long_names) == parse_flags(call())


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--robot", "widowx_sink_camera_setup"),
        ("--scene-name", "bridge_table_1_v2"),
        ("--rgb-overlay-path", "mine.png"),
        ("--control-freq", "3"),
        ("--sim-freq", "513"),
        ("--robot-init-x", "0.1 0.2 5"),
        ("--robot-init-rot-quat-center", "1 0 0 0"),
        ("--obj-variation-mode", "xy"),
        ("--policy-model", "rt1"),
        ("--policy-setup", "google_robot"),
        ("--action-scale", "2"),
        ("--additional-env-build-kwargs", "urdf_version=x"),
    ],
)
def test_another_setup_is_refused_rather_than_ignored(flag: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{flag} .*cannot be used"):
        translate(parse_flags([*call(), flag, *value.split()]))


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"--env-name": "PutCarotOnPlateInScene-v0"}, "Unknown environment", "'PutCarrotOnPlateInScene-v0'"),
        ({"--robots": "widowx"}, "Unknown flag '--robots'", "'robot'"),
        ({"--control-freq": "five"}, "invalid int value", "--help"),
        ({"--obj-episode-range": "9 3"}, "names no episode", "0 24"),
        ({"--ckpt-path": "None"}, "--ckpt-path is missing", "checkpoint"),
    ],
)
def test_mistakes_are_sentences(change: dict[str, str], message: str, hint: str) -> None:
    words = [*call(), *(word for flag, value in change.items() for word in (flag, *value.split()))]
    with pytest.raises(SettingsError, match=message) as error:
        translate(parse_flags(words))
    assert hint in error.value.hint


def test_statistics_are_those_that_the_script_or_its_instructions_name() -> None:
    def key(*names: str) -> str:
        return tyro.cli(
            EvaluateSettings, args=list(translate(parse_flags(call()), (), lambda _: names).arguments)
        ).unnorm_key

    assert key("Simpler", "bridge_orig") == "Simpler"
    assert key("bridge_orig", "fractal20220817_data") == "bridge_orig"
    assert key("other") == ""


def test_the_original_simulator_and_a_folder() -> None:
    words = [*call(), "--logging-dir", "results", "--additional-env-save-tags", "mine"]
    translation = translate(parse_flags(words), ["--env-python", "/opt/simpler/bin/python"])
    assert translation.arguments[:2] == ("--suite", "simpler_widowx-v0")
    assert translation.arguments[-2:] == ("--env-python", "/opt/simpler/bin/python")
    assert "results/model-carrot-on-plate-mine" in translation.arguments
    assert not any("original SimplerEnv's" in note for note in translation.notes)


def test_it_prints_the_command_explains_and_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr("grape.cli.main.main", lambda words: ran.append(words) or 0)
    policy = write_policy(tmp_path / "policy")
    assert main([*call(policy=str(policy)), "--", "--workers", "1"]) == 0
    output = capsys.readouterr()
    assert shlex.split(output.out) == ["grape", *ran[0]]
    assert ran[0][-2:] == ["--workers", "1"]
    assert "the task has them" in output.err
    assert main([*call(), "--sim-freq", "1"]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert command_line(translate(parse_flags(call()))).startswith("grape evaluate --suite simpler_widowx")
    assert keys_of(str(tmp_path / "nothing")) == ()


def test_every_task_of_the_benchmark_is_known() -> None:
    assert {facts.task for facts in TASKS.values()} == set(PUBLISHED)
