"""Opening Gymnasium environments, and reading off their spaces what a suite promises before the first episode."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grape.core.errors import SettingsError, SimulatorError, did_you_mean, require_known
from grape.core.tasks import ActionSpace
from grape.envs.gymnasium_environment import GymnasiumEnvironment, Layout, entries_of
from grape.envs.gymnasium_options import RENDER, GymnasiumTask

__all__ = ["Description", "check_gymnasium", "describe", "open_environment", "registration_of"]

_MISSING = SettingsError(
    "Suites of Gymnasium environments need the package 'gymnasium'.", "pip install 'grape-vla[gymnasium]'"
)


@dataclass(frozen=True)
class Description:
    """What an environment's spaces and registration say."""

    action_space: ActionSpace
    layout: Layout
    proprio_dim: int
    max_steps: int
    instruction: str


_DESCRIPTIONS: dict[tuple[str, int], tuple[Any, Description]] = {}
"""By options and registration; the registration itself is kept, so that its identity stays its own."""


def check_gymnasium() -> None:
    """Make sure that Gymnasium can be imported, without importing it.

    Raises:
        SettingsError: It is not installed.
    """
    if "gymnasium" not in sys.modules and importlib.util.find_spec("gymnasium") is None:
        raise _MISSING


def open_environment(task: GymnasiumTask) -> GymnasiumEnvironment:
    """New environment.

    Raises:
        SettingsError: As :func:`describe`.
        SimulatorError: ``gymnasium.make`` raises.
    """
    layout = describe(task).layout
    return GymnasiumEnvironment(_make(task, render=layout.image == RENDER), task, layout)


def registration_of(task: GymnasiumTask) -> Any:
    """Gymnasium's registration of an environment.

    Raises:
        SettingsError: Gymnasium, the module or the id is not there.
    """
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise _MISSING from error
    module, _, name = task.id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:
        raise SettingsError(
            f"Module {module!r} of {task.id} cannot be imported: {type(error).__name__}: {error}.",
            "Install its package, or put its folder on PYTHONPATH: workers are processes of their own.",
        ) from error
    try:
        registration = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        close = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.5)
        suggestion = f"Did you mean {' or '.join(map(repr, close))}? " if close and "mean" not in str(error) else ""
        raise SettingsError(
            f"Gymnasium knows no environment {name!r}: {error}",
            f"{suggestion}What a module registers is asked for as gym:MODULE:{name}; gymnasium.pprint_registry() lists "
            "what is known.",
        ) from error
    if getattr(registration.entry_point, "__module__", "") == "__main__":
        raise SettingsError(
            f"{task.id} is registered by this program, and workers are processes of their own.",
            "Register it in a module and ask for gym:MODULE:ID.",
        )
    return registration


def _make(task: GymnasiumTask, *, render: bool) -> Any:
    import gymnasium

    registration_of(task)
    options = {
        **({"render_mode": "rgb_array"} if render else {}),
        **({"max_episode_steps": task.max_steps} if task.max_steps else {}),
        **task.kwargs,
    }
    try:
        return gymnasium.make(task.id, disable_env_checker=True, **options)
    except Exception as error:  # whatever a simulator raises
        raise SimulatorError(
            f"gymnasium.make({task.id!r}) raised {type(error).__name__}: {error}",
            "Try it in Python; what it needs besides may be missing.",
        ) from error


@contextlib.contextmanager
def _made(task: GymnasiumTask, *, render: bool) -> Iterator[Any]:
    env = _make(task, render=render)
    try:
        yield env
    finally:
        env.close()


def describe(task: GymnasiumTask) -> Description:
    """What an environment's spaces and registration say; made once and closed again.

    Raises:
        SettingsError: It is not there, has no image, no known length, or other actions than a bounded vector.
    """
    registration = registration_of(task)
    key = (task.digest, id(registration))
    if key not in _DESCRIPTIONS:
        with _made(task, render=task.image == RENDER) as env:
            _DESCRIPTIONS[key] = (registration, _described(task, env))
    return _DESCRIPTIONS[key][1]


def _described(task: GymnasiumTask, env: Any) -> Description:
    spaces = entries_of(env.observation_space)
    max_steps = task.max_steps or (env.spec.max_episode_steps if env.spec is not None else None)
    if not max_steps:
        raise SettingsError(
            f"{task.id} does not say after how many steps an episode ends.",
            "Register it with max_episode_steps, or give max_steps in a file: gym:FILE.yaml.",
        )
    for camera in task.cameras.values():
        require_known(f"image of {task.id}", camera, spaces)
    vectors = tuple(name for name, space in spaces.items() if _is_vector(space))
    named = tuple(name.strip() for name in task.proprio.split(","))
    names = {"auto": vectors, "none": ()}.get(task.proprio, named)
    for name in names:
        require_known(f"entry of {task.id}'s observations", name, spaces)
    actions = env.action_space
    layout = Layout(
        image=_image_entry(task, spaces, env.metadata.get("render_modes", ())),
        proprio=names,
        low=_bounds(task, actions, "low"),
        high=_bounds(task, actions, "high"),
        dtype=str(actions.dtype),
        cameras=task.cameras,
    )
    return Description(
        action_space=_action_space(task, layout, float(env.metadata.get("render_fps") or 10.0)),
        layout=layout,
        proprio_dim=sum(int(np.prod(spaces[name].shape)) for name in names),
        max_steps=int(max_steps),
        instruction=task.instruction or str(getattr(env.unwrapped, "instruction", "")) or _words(task.id),
    )


def _is_vector(space: Any) -> bool:
    return len(getattr(space, "shape", None) or ()) == 1 and space.dtype is not None and space.dtype.kind == "f"


def _is_image(space: Any) -> bool:
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    return len(shape) == 3 and shape[2] == 3 and space.dtype == np.uint8


def _image_entry(task: GymnasiumTask, spaces: Mapping[str, Any], render_modes: Any) -> str:
    """Entry of the main image.

    Raises:
        SettingsError: There is none, or several of which none is named ``image``.
    """
    images = [name for name, space in spaces.items() if _is_image(space)]
    if task.image:
        if task.image != RENDER and task.image not in images:
            raise SettingsError(
                f"{task.id} has no image {task.image!r} of uint8 (H, W, 3) in its observations.",
                did_you_mean(task.image, [*images, RENDER]),
            )
        return task.image
    free = [name for name in images if name not in task.cameras.values()]
    if len(free) == 1 or "image" in free:
        return "image" if "image" in free else free[0]
    if free:
        raise SettingsError(
            f"{task.id} has several images in its observations: {', '.join(free)}.",
            "Say which is the policy's in a file, e.g. 'image: " + free[0] + "', and give it as gym:FILE.yaml.",
        )
    if "rgb_array" in render_modes:
        return RENDER
    shapes = ", ".join(f"{name or 'the observation'} {space}" for name, space in spaces.items())
    raise SettingsError(
        f"{task.id} gives no image: its observations hold no Box of uint8 (H, W, 3) ({shapes}), and it has no render "
        "mode 'rgb_array'.",
        "Images with the channels first, of floats or of one channel need a wrapper, e.g. TransformObservation.",
    )


def _bounds(task: GymnasiumTask, space: Any, side: str) -> tuple[float, ...]:
    """Lower or upper bounds of the actions.

    Raises:
        SettingsError: Actions are discrete, no vector of floats, or without bounds.
    """
    bounds = getattr(space, side, None)
    if bounds is None or not _is_vector(space):
        raise SettingsError(
            f"{task.id} takes actions of {space}; policies decide vectors of floats.",
            "Use an environment whose action space is a Box of one axis, or wrap it in one.",
        )
    if not np.isfinite(bounds).all():
        raise SettingsError(
            f"{task.id} has actions without bounds: {space}.", "Wrap it, e.g. in gymnasium.wrappers.RescaleAction."
        )
    return tuple(float(bound) for bound in bounds)


def _action_space(task: GymnasiumTask, layout: Layout, control_hz: float) -> ActionSpace:
    dim = len(layout.low)
    last = f"action_{dim - 1}" if task.gripper == "none" else "gripper"
    names = task.action_names or (*(f"action_{number}" for number in range(dim - 1)), last)
    if len(names) != dim:
        raise SettingsError(
            f"{task.id} has actions of {dim} dimensions, action_names names {len(names)}.", "Name each."
        )
    return ActionSpace(
        names=names,
        low=layout.low,
        high=layout.high,
        gripper=task.gripper,  # type: ignore[arg-type]
        rotation=task.rotation,  # type: ignore[arg-type]
        control_hz=task.control_hz or control_hz,
    )


def _words(environment_id: str) -> str:
    """The words of an id, e.g. ``"pick cube"`` of ``"my_package:PickCube-v1"``."""
    name = environment_id.rpartition(":")[2].rpartition("/")[2]
    base = name.rpartition("-v")[0] if name.rpartition("-v")[2].isdigit() else name
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in base)
    return " ".join(spaced.replace("-", " ").replace("_", " ").lower().split())
