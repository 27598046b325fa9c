"""Policies of BridgeData say roll, pitch and yaw; suites take axis-angles."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from grape.collect import CollectSettings, run_collect
from grape.collect.opening import inputs_of
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.tasks import ActionSpace, RotationConvention
from grape.core.trajectories import Observation
from grape.envs.registry import get_suite
from grape.envs.toy import ToySuite
from grape.policies.action_conventions import check_policy, to_env_action
from grape.policies.base import ActionBatch, PolicySpec
from grape.policies.openvla.action_tokens import rotation_of
from grape.store import EpisodeStore

BRIDGE = PolicySpec(
    7, 224, "1 opens, 0 closes", "bridge_orig", "hash", "road", rotation=RotationConvention.ROLL_PITCH_YAW
)
ROLL_PITCH_YAW = RotationConvention.ROLL_PITCH_YAW
WIDOWX = get_suite("simpler_widowx").action_space


def turned_by(roll: float, pitch: float, yaw: float) -> Rotation:
    """About the fixed x axis first, then y, then z."""
    x, y, z = (Rotation.from_rotvec(angle * np.eye(3)[axis]) for axis, angle in enumerate((roll, pitch, yaw)))
    return z * y * x


@pytest.mark.parametrize("angles", [(0.2, 0.2, 0.2), (0.1, -0.7, 1.2), (0.0, 0.0, 0.3), (-1.5, 0.4, 0.0)])
def test_roll_pitch_and_yaw_become_the_axis_angle_of_the_same_rotation(angles: tuple[float, float, float]) -> None:
    action = np.array([0.01, -0.02, 0.03, *angles, 0.9], dtype=np.float32)
    changed = to_env_action(action, BRIDGE, WIDOWX)
    expected = turned_by(*angles)
    assert (Rotation.from_rotvec(changed[3:6]) * expected.inv()).magnitude() < 1e-6
    np.testing.assert_array_equal(changed[[0, 1, 2, 6]], action[[0, 1, 2, 6]])
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(action[3:6], np.array(angles, dtype=np.float32))  # what was given stays


def test_for_rotations_of_bridgedata_the_numbers_differ_by_what_the_documentation_says() -> None:
    corner = np.array([0, 0, 0, 0.2, 0.2, 0.2, 1], dtype=np.float32)
    difference = np.abs(to_env_action(corner, BRIDGE, WIDOWX) - corner).max()
    assert difference == pytest.approx(0.021, abs=0.0005)


@pytest.mark.parametrize(
    ("spec", "space"),
    [
        (dataclasses.replace(BRIDGE, rotation=""), WIDOWX),  # trained on the suite's own demonstrations
        (BRIDGE, dataclasses.replace(WIDOWX, rotation="none")),
    ],
)
def test_everything_else_passes_unchanged(spec: PolicySpec, space: ActionSpace) -> None:
    action = np.array([0, 0, 0, 0.2, 0.2, 0.2, 1], dtype=np.float32)
    assert to_env_action(action, spec, space) is action
    check_policy(spec, space, "policy")


def test_statistics_say_which_words_a_policy_uses() -> None:
    assert rotation_of("bridge_orig") == rotation_of("Simpler") == ROLL_PITCH_YAW
    assert {rotation_of(key) for key in ("simpler_widowx", "libero_spatial", "toy")} == {""}


def test_a_suite_without_a_gripper_convention_says_where_to_state_one() -> None:
    silent = dataclasses.replace(WIDOWX, gripper="none")
    with pytest.raises(CompatibilityError, match="the suite means 'none'") as caught:
        check_policy(BRIDGE, silent, "policy")
    assert "'gym:' suite in its YAML file, e.g. gripper: \"1 opens, 0 closes\"" in caught.value.hint
    with pytest.raises(CompatibilityError) as caught:
        check_policy(BRIDGE, dataclasses.replace(WIDOWX, gripper="+1 closes"), "policy")
    assert "wrong sign" in caught.value.hint


def test_words_that_nobody_can_translate_are_refused() -> None:
    check_policy(BRIDGE, WIDOWX, "policy")
    turner = dataclasses.replace(BRIDGE, rotation=RotationConvention.AXIS_ANGLE)
    angles = dataclasses.replace(WIDOWX, rotation="roll-pitch-yaw")
    with pytest.raises(CompatibilityError, match="axis-angle, the suite takes roll-pitch-yaw"):
        check_policy(turner, angles, "policy")
    with pytest.raises(
        SettingsError, match=r"(?s)Unknown convention of a rotation: 'quaternion'.*Known: .*'axis-angle'"
    ):
        dataclasses.replace(WIDOWX, rotation="quaternion")
    with pytest.raises(SettingsError, match=r"(?s)a gripper: '1 closes'.*Known: '\+1 closes'"):
        dataclasses.replace(WIDOWX, gripper="1 closes")


class Turner:
    """A policy that turns about all axes, in words of its own."""

    def __init__(self, rotation: str) -> None:
        self.spec = PolicySpec(7, 64, "+1 closes", "toy", "hash", "road", rotation=rotation)

    def prompt(self, instruction: str) -> str:
        return instruction

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        actions = np.tile(np.array([0.1, 0, 0, 0.2, -0.3, 0.4, 1], np.float32), (len(observations), 1, 1))
        return ActionBatch(actions, np.zeros(actions.shape, np.int32), np.zeros(actions.shape, np.float32))


def test_what_is_stored_is_what_was_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = dataclasses.replace(ToySuite().action_space, rotation="axis-angle")
    monkeypatch.setattr(ToySuite, "action_space", space)
    settings = CollectSettings(
        out=tmp_path / "run", suite="toy", tasks="0", initial_states="0", workers=1, max_steps=2, policy="turner"
    )
    run_collect(settings, policy=Turner(ROLL_PITCH_YAW))
    store = EpisodeStore.open(tmp_path / "run" / "store")
    (meta,) = store.metas()
    trajectory = store.read(meta.episode_id)
    for actions in (trajectory.actions, trajectory.labels):
        stored = Rotation.from_rotvec(actions[0, 3:6])
        assert (stored * turned_by(0.2, -0.3, 0.4).inv()).magnitude() < 1e-6


def test_a_run_in_other_words_is_another_run() -> None:
    settings = CollectSettings(out=Path("unused"), suite="toy")
    assert "rotation" not in inputs_of(Turner("").spec, settings)
    assert inputs_of(Turner(ROLL_PITCH_YAW).spec, settings)["rotation"] == ROLL_PITCH_YAW
