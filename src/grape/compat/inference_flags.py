"""Flags of SimplerEnv's evaluation script (``simpler_env/main_inference.py``), which the first public GRAPE uses, too.

Names are that script's, and so are the short forms that its users write: ``--robot-init-x`` for
``--robot-init-x-range``. Its defaults describe another robot, so a flag that was not given takes the suite's value.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from grape.compat.flag_parser import FlagParser, finite_number, meanings_of, whole_number

__all__ = ["InferenceFlags", "parse_flags"]


@dataclass(frozen=True)
class InferenceFlags:
    """Values of the flags; None where a flag was not given.

    Attributes:
        env_name: The task's class in the simulator.
        policy_model: Kind of policy.
        policy_setup: Robot that the policy was trained for.
        ckpt_path: The checkpoint, a folder or a name on the hub.
        robot: The robot and its camera.
        scene_name: The scene around the task.
        rgb_overlay_path: Image that is laid over the background.
        control_freq: Decisions a second.
        sim_freq: Steps of the physics a second.
        max_episode_steps: Decisions after which an episode ends.
        robot_init_x: Lowest and highest position of the robot and how many, meters.
        robot_init_y: The same, the other axis.
        robot_init_rot_quat_center: Orientation of the robot.
        robot_init_rot_rpy_range: Variations of it.
        obj_variation_mode: What varies between episodes.
        obj_episode_range: First episode, and the one after the last.
        obj_init_x: Positions of a single object, meters.
        obj_init_y: The same, the other axis.
        obs_camera_name: The policy's camera.
        action_scale: Factor on the policy's movements.
        enable_raytracing: Draw with ray tracing.
        additional_env_build_kwargs: Further arguments of the simulator's class.
        additional_env_save_tags: Added to names of files.
        logging_dir: Folder of results.
        tf_memory_limit: Memory of TensorFlow.
        octo_init_rng: Seed of another kind of policy.
    """

    env_name: str = ""
    policy_model: str | None = None
    policy_setup: str | None = None
    ckpt_path: str | None = None
    robot: str | None = None
    scene_name: str | None = None
    rgb_overlay_path: str | None = None
    control_freq: int | None = None
    sim_freq: int | None = None
    max_episode_steps: int | None = None
    robot_init_x: tuple[float, ...] | None = None
    robot_init_y: tuple[float, ...] | None = None
    robot_init_rot_quat_center: tuple[float, ...] | None = None
    robot_init_rot_rpy_range: tuple[float, ...] | None = None
    obj_variation_mode: str | None = None
    obj_episode_range: tuple[int, ...] | None = None
    obj_init_x: tuple[float, ...] | None = None
    obj_init_y: tuple[float, ...] | None = None
    obs_camera_name: str | None = None
    action_scale: float | None = None
    enable_raytracing: bool | None = None
    additional_env_build_kwargs: tuple[str, ...] | None = None
    additional_env_save_tags: str | None = None
    logging_dir: str | None = None
    tf_memory_limit: int | None = None
    octo_init_rng: int | None = None


_NUMBERS = {
    "robot_init_x": (3, finite_number),
    "robot_init_y": (3, finite_number),
    "robot_init_rot_quat_center": (4, finite_number),
    "robot_init_rot_rpy_range": (9, finite_number),
    "obj_episode_range": (2, whole_number),
    "obj_init_x": (3, finite_number),
    "obj_init_y": (3, finite_number),
}
_KINDS = {
    "control_freq": whole_number,
    "sim_freq": whole_number,
    "max_episode_steps": whole_number,
    "action_scale": finite_number,
    "tf_memory_limit": whole_number,
    "octo_init_rng": whole_number,
}


def parse_flags(words: Sequence[str]) -> InferenceFlags:
    """Read the command line.

    Raises:
        SettingsError: A flag is unknown, has too few values, or one of the wrong kind; or ``--env-name`` is missing.
    """
    parser = FlagParser(
        prog="python -m grape.compat.main_inference",
        description="Evaluates as 'grape evaluate' does, from the flags of SimplerEnv's evaluation script.",
        epilog="Flags after a '--' go to 'grape evaluate' as they are and win, e.g. -- --temperature 1 --samples 2",
        allow_abbrev=False,
    )
    names = [item.name for item in fields(InferenceFlags)]
    meanings = meanings_of(InferenceFlags)
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        facts: dict[str, Any] = {"dest": name, "help": meanings[name], "default": argparse.SUPPRESS}
        if name == "enable_raytracing":
            parser.add_argument(flag, action="store_true", **facts)
            continue
        if name == "additional_env_build_kwargs":
            parser.add_argument(flag, nargs="+", metavar="KEY=VALUE", **facts)
            continue
        count, kind = _NUMBERS.get(name, (None, _KINDS.get(name, str)))
        others = [f"{flag}-range"] if name.startswith(("robot_init_x", "robot_init_y", "obj_init")) else []
        parser.add_argument(flag, *others, nargs=count, type=kind, required=name == "env_name", metavar="X", **facts)
    values: dict[str, Any] = vars(parser.read(words, [name.replace("_", "-") for name in names]))
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return InferenceFlags(**values)
