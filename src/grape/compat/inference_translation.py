"""What each flag of SimplerEnv's evaluation script means for ``grape evaluate``, and what to tell its user."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from grape.compat.evaluate_call import EvaluateCall
from grape.compat.inference_flags import InferenceFlags
from grape.core.errors import SettingsError, did_you_mean
from grape.core.selections import format_numbers

__all__ = ["TASKS", "OriginalTask", "translate"]

_STATES = 24
_KEYS = ("Simpler", "bridge_orig")
"""Statistics that the first public GRAPE's script took, and those that its instructions name for other checkpoints."""


@dataclass(frozen=True)
class OriginalTask:
    """What SimplerEnv's scripts say for a task, and what the suite therefore has.

    Attributes:
        task: Name in the suites ``simpler_widowx`` and ``simpler_widowx-v0``.
        robot: The robot with its camera.
        scene: The scene.
        overlay: File name of the image laid over the background.
        place: Position of the robot, x and y in meters.
        limit: Decisions after which an episode ends in the benchmark.
    """

    task: str
    robot: str
    scene: str
    overlay: str
    place: tuple[float, float]
    limit: int


def _on_table(task: str) -> OriginalTask:
    return OriginalTask(task, "widowx", "bridge_table_1_v1", "bridge_real_eval_1.png", (0.147, 0.028), 60)


TASKS = {
    "PutCarrotOnPlateInScene": _on_table("carrot-on-plate"),
    "StackGreenCubeOnYellowCubeBakedTexInScene": _on_table("stack-cubes"),
    "PutSpoonOnTableClothInScene": _on_table("spoon-on-cloth"),
    "PutEggplantInBasketScene": OriginalTask(
        "eggplant-in-basket", "widowx_sink_camera_setup", "bridge_table_1_v2", "bridge_sink.png", (0.127, 0.06), 120
    ),
}
"""Tasks by the simulator's class, without its version."""


def translate(
    flags: InferenceFlags,
    further: Sequence[str] = (),
    keys_of: Callable[[str], Sequence[str]] = lambda policy: (),
) -> EvaluateCall:
    """Translate a call.

    Args:
        flags: The flags.
        further: Arguments of ``grape evaluate`` to add; later ones win.
        keys_of: Names of a checkpoint's normalization statistics.

    Raises:
        SettingsError: Something is asked for that the suite cannot do; silently doing something else would change the
            figures.
    """
    task = _task(flags)
    _refuse_other_setups(flags, task)
    first, end = flags.obj_episode_range or (0, _STATES)
    if not 0 <= first < end:
        raise SettingsError(f"--obj-episode-range {first} {end} names no episode.", "Give e.g. 0 24.")
    states = tuple(sorted({episode % _STATES for episode in range(first, min(end, first + _STATES))}))
    if flags.ckpt_path in (None, "None"):
        raise SettingsError("--ckpt-path is missing.", "Give a checkpoint folder, or a name on the hub.")
    words = ["--policy", str(flags.ckpt_path), "--tasks", task.task, "--initial-states", format_numbers(states)]
    if not _among("suite", further):
        words = ["--suite", "simpler_widowx-v0" if _among("env-python", further) else "simpler_widowx", *words]
    words += ["--until", "last-step"]
    if flags.max_episode_steps not in (None, task.limit):
        words += ["--max-steps", str(flags.max_episode_steps)]
    key = next((name for name in _KEYS if name in keys_of(str(flags.ckpt_path))), None)
    if key is not None:
        words += ["--unnorm-key", key]
    if flags.logging_dir is not None:
        tags = [PurePath(str(flags.ckpt_path)).name, task.task, flags.additional_env_save_tags]
        words += ["--out", str(PurePath(flags.logging_dir) / "-".join(tag for tag in tags if tag))]
    return EvaluateCall((*words, *further), _notes(flags, task, end - first, len(states), further))


def _task(flags: InferenceFlags) -> OriginalTask:
    name, _, version = flags.env_name.rpartition("-v")
    if name not in TASKS or version not in ("0", "1"):
        names = [f"{names}-v0" for names in TASKS]
        raise SettingsError(f"Unknown environment {flags.env_name!r}.", did_you_mean(flags.env_name, names))
    return TASKS[name]


def _refuse_other_setups(flags: InferenceFlags, task: OriginalTask) -> None:
    """Compare with the one setup that the task has."""
    overlay = None if flags.rgb_overlay_path is None else PurePath(flags.rgb_overlay_path).name
    x, y = task.place
    fixed_values: dict[str, tuple[object, object]] = {
        "policy-model": (flags.policy_model, "openvla"),
        "policy-setup": (flags.policy_setup, "widowx_bridge"),
        "robot": (flags.robot, task.robot),
        "scene-name": (flags.scene_name, task.scene),
        "rgb-overlay-path": (overlay, task.overlay),
        "control-freq": (flags.control_freq, 5),
        "sim-freq": (flags.sim_freq, 500),
        "robot-init-x": (flags.robot_init_x, (x, x, 1)),
        "robot-init-y": (flags.robot_init_y, (y, y, 1)),
        "robot-init-rot-quat-center": (flags.robot_init_rot_quat_center, (0, 0, 0, 1)),
        "robot-init-rot-rpy-range": (flags.robot_init_rot_rpy_range, (0, 0, 1) * 3),
        "obj-variation-mode": (flags.obj_variation_mode, "episode"),
        "obj-init-x": (flags.obj_init_x, None),
        "obj-init-y": (flags.obj_init_y, None),
        "obs-camera-name": (flags.obs_camera_name, "3rd_view_camera"),
        "action-scale": (flags.action_scale, 1.0),
        "enable-raytracing": (flags.enable_raytracing, None),
        "additional-env-build-kwargs": (flags.additional_env_build_kwargs, None),
    }
    for flag, (value, expected) in fixed_values.items():
        if value is not None and not _same(value, expected):
            value_text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            only = " ".join(map(str, expected)) if isinstance(expected, tuple) else expected
            raise SettingsError(
                f"--{flag} {value_text} cannot be used with {flags.env_name}: "
                + (
                    "there is nothing like it here." if expected is None else f"the suite has {only}, as the benchmark."
                ),
                f"Leave --{flag} out. The script as it was: SimplerEnv itself.",
            )


def _among(flag: str, words: Sequence[str]) -> bool:
    return any(word.split("=")[0].replace("_", "-") == f"--{flag}" for word in words)


def _same(value: object, expected: object) -> bool:
    if isinstance(value, tuple) and isinstance(expected, tuple):
        return len(value) == len(expected) and all(map(math.isclose, value, expected))
    return value == expected


_MEANINGS = {
    "robot": "--robot, --scene-name, --rgb-overlay-path, --robot-init-*: the task has them; another value is refused.",
    "control_freq": "--control-freq 5, --sim-freq 500: the suite's; another value is refused.",
    "policy_model": "--policy-model openvla, --policy-setup widowx_bridge: what the suite's convention of actions is.",
    "tf_memory_limit": "--tf-memory-limit has no effect: there is no TensorFlow.",
    "octo_init_rng": "--octo-init-rng has no effect on this kind of policy; see -- --seed.",
    "logging_dir": "--logging-dir, --additional-env-save-tags: the folder of --out.",
}
"""What to say about flags that were given, by the first of a group."""


def _notes(
    flags: InferenceFlags, task: OriginalTask, episodes: int, states: int, further: Sequence[str]
) -> tuple[str, ...]:
    notes = [text for name, text in _MEANINGS.items() if getattr(flags, name) is not None]
    notes.append(
        "--obj-episode-range counts initial states: --initial-states. "
        + (
            f"There are {_STATES}, and episode 24 is 0 again: {episodes} episodes are rollouts of {states} states."
            if episodes > states
            else f"{states} of {_STATES}."
        )
    )
    if task.task == "eggplant-in-basket" and flags.obj_episode_range and flags.obj_episode_range[1] > _STATES:
        notes.append(
            "ManiSkill 3 has 64 initial states of the eggplant; the benchmark's 24 are the first, and the suite has no "
            "others. Episodes from 24 on are counted as repetitions here, but would be other states there."
        )
    if flags.max_episode_steps not in (None, task.limit):
        notes.append(
            f"--max-episode-steps {flags.max_episode_steps}: --max-steps. The benchmark's limit is {task.limit}, so "
            "success rates are not comparable with its published ones."
        )
    notes.append(
        "Success is that of the last decision, as in SimplerEnv's script; whether it was ever reached is also "
        "reported. The first public GRAPE stopped after three successful decisions in a row."
    )
    notes.append(
        "Decoding is greedy; the first public GRAPE sampled at temperature 1, which swings from run to run: "
        "-- --temperature 1, and --samples N for several rollouts of each state."
    )
    if not _among("env-python", further) and flags.env_name.endswith("-v0"):
        notes.append(
            f"{flags.env_name} is the original SimplerEnv's. Here the same task runs in ManiSkill 3; for the original: "
            "-- --env-python /path/to/its/python"
        )
    notes.append("All four tasks as a published protocol: grape evaluate --protocol simpler-widowx-24x3")
    return tuple(notes)
