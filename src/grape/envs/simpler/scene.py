"""ManiSkill's scenes with the objects that a task asks for, without changes to ManiSkill's files.

ManiSkill builds each of the four tasks by a class of its own over one common class. What differs here from one to the
other is put between the two, so that a task's rules (where things start, what success is) stay ManiSkill's while
models, sizes and poses are ours. Three faults of ManiSkill 3.0.1 are kept out on the way: backgrounds and masks are
shared by all environments of a process, so that another task's background and hidden objects show; the
eggplant's target plane is drawn; an observation is rendered at every environment step, needed or not.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.core.errors import SimulatorError
from grape.core.files import read_json_mapping
from grape.core.images import area_average
from grape.envs.simpler.installation import ManiSkill, load_maniskill, render_device
from grape.envs.simpler.tasks import Arrangement

__all__ = ["CAMERA", "MODEL_TABLES", "make_scene"]

CAMERA = "3rd_view_camera"
"""ManiSkill's name of the camera over the robot's shoulder."""

MODEL_TABLES = ("info_bridge_custom_v0.json", "info_bridge_custom_baked_tex_v0.json")
"""ManiSkill's tables of models; each task reads one of them, variations need models of both."""

_FLAT_TURNS = 45.0 * np.arange(8)  # degrees by which an exchanged source starts turned in the sink

Float64 = npt.NDArray[np.float64]


class _Rearrangement:
    """What stands between a task's class and the common one; a mixin of classes that ManiSkill defines."""

    arrangement: Arrangement
    models: dict[str, Any]
    tangled: bool
    size: tuple[int, int] | None
    places: Float64
    turns: Float64

    def __init__(self, obj_names: list[str], xyz_configs: Any, quat_configs: Any, **settings: Any) -> None:
        # Class attributes in ManiSkill, filled in place.
        self._rgb_overlay_images: dict[str, Any] = {}
        self._objects_to_remove_from_greenscreen: list[Any] = []
        arrangement, native = self.arrangement, obj_names[0]
        assert obj_names[1] == arrangement.target
        places, turns = (
            np.array(configurations.numpy(), dtype=np.float64) for configurations in (xyz_configs, quat_configs)
        )
        places[:, 0, :2] += arrangement.shift
        places[:, 0, 2] += _half_height(self.models[arrangement.source]) * arrangement.scale - _half_height(
            self.models[native]
        )
        if (
            arrangement.exchanged and arrangement.hidden_target
        ):  # the eggplant's poses in the sink are those of its own shape
            turns = np.repeat(turns[:1], len(_FLAT_TURNS), axis=0)
            turns[:, 0] = [_quaternion(Rotation.from_euler("z", angle, degrees=True)) for angle in _FLAT_TURNS]
        if arrangement.turn:
            about = Rotation.from_euler("z", arrangement.turn, degrees=True)
            turns[:, 0] = [_quaternion(about * Rotation.from_quat(turn, scalar_first=True)) for turn in turns[:, 0]]
        self.places, self.turns = places, turns
        parent: Any = super()
        parent.__init__(
            obj_names=[arrangement.source, arrangement.target], xyz_configs=places, quat_configs=turns, **settings
        )

    def _load_agent(self, options: dict[str, Any]) -> None:
        if self.tangled:  # without its list of links that may overlap, the hand's own parts hold the fingers
            scene: Any = self
            scene.robot_uids = type("Untangled", (scene.robot_uids,), {"disable_self_collisions": True})
        parent: Any = super()
        parent._load_agent(options)

    def _load_scene(self, options: dict[str, Any]) -> None:
        scene: Any = self
        scene.model_db = self.models
        parent: Any = super()
        parent._load_scene(options)
        if self.arrangement.hidden_target:  # ManiSkill's own way of hiding refuses things that can be touched
            for component in scene.objs[self.arrangement.target]._objs[0].components:
                if hasattr(component, "visibility"):
                    component.visibility = 0.0

    def _build_actor_helper(self, model_id: str, scale: float = 1.0, **settings: Any) -> Any:
        parent: Any = super()
        factor = self.arrangement.scale if model_id == self.arrangement.source else 1.0
        return parent._build_actor_helper(model_id, scale=scale * factor, **settings)

    def _setup_sensors(self, options: dict[str, Any]) -> None:
        scene: Any = self
        if self.size is not None:
            scene._custom_sensor_configs = {
                camera.uid: _resized(camera, *self.size) for camera in scene.agent._sensor_configs
            }
        parent: Any = super()
        parent._setup_sensors(options)

    def _after_reconfigure(self, options: dict[str, Any]) -> None:
        background = self._rgb_overlay_images.get(CAMERA)
        if self.size is not None and isinstance(background, np.ndarray):  # else ManiSkill skips pixels to shrink it
            self._rgb_overlay_images[CAMERA] = area_average(background, *self.size)
        parent: Any = super()
        parent._after_reconfigure(options)

    def _initialize_episode(self, env_idx: Any, options: dict[str, Any]) -> None:
        """As ManiSkill's; ``options`` may bring a placement, see :mod:`~grape.envs.simpler.initial_states`."""
        scene: Any = self
        recorded = scene.xyz_configs, scene.quat_configs
        if "placement" in options:
            scene.xyz_configs, scene.quat_configs = (
                recorded[0].new_tensor(numbers[None]) for numbers in options["placement"]
            )
        parent: Any = super()
        try:
            parent._initialize_episode(env_idx, options)
        finally:
            scene.xyz_configs, scene.quat_configs = recorded

    def get_obs(self, info: Any = None, unflattened: bool = False) -> dict[str, Any]:
        """The robot's joints only: images are taken when they are asked for."""
        scene: Any = self
        return {"agent": scene._get_obs_agent()}


def make_scene(arrangement: Arrangement, images: bool, size: tuple[int, int] | None = None) -> Any:
    """New ManiSkill environment of an arrangement (up to 20 s the first time in a process with images).

    Args:
        arrangement: The scene.
        images: Whether it can draw; without, no graphics driver is needed.
        size: Height and width of images in pixels, of the same view; None is ManiSkill's.

    Raises:
        SettingsError: ManiSkill is not installed.
        DataError: Its assets are missing.
        SimulatorError: There is no Vulkan device that draws, or ManiSkill cannot build the scene.
    """
    maniskill = load_maniskill()
    if images:
        render_device()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ManiSkill's, about its own sources
            return _scene_class(maniskill, arrangement, images, size)(
                obs_mode="rgb+segmentation",
                sim_backend="physx_cpu",
                render_backend="gpu" if images else "none",  # without CUDA ManiSkill takes what Vulkan offers
            )
    except Exception as error:  # loading runs through several packages, and each fails in its own way
        raise SimulatorError(
            f"ManiSkill cannot build {arrangement.environment}: {type(error).__name__}: {error}",
            "Are its assets complete? 'grape doctor --suite simpler_widowx' looks at the whole installation.",
        ) from error


def _scene_class(maniskill: ManiSkill, arrangement: Arrangement, images: bool, size: tuple[int, int] | None) -> Any:
    task: Any = getattr(maniskill.scenes, arrangement.environment)
    between = type("Rearranged", (_Rearrangement, maniskill.base), {})
    facts: dict[str, Any] = {
        "arrangement": arrangement,
        "models": _models(maniskill.assets, arrangement),
        "tangled": not (maniskill.assets / "robots" / "widowx" / "wx250s.srdf").is_file(),
        "rgb_overlay_mode": "background" if images else "none",
        "size": size,
    }
    if arrangement.exchanged:
        excluded = [arrangement.source] if arrangement.hidden_target else [arrangement.source, arrangement.target]
        facts["objects_excluded_from_greenscreening"] = excluded
    return type(f"Rearranged{arrangement.environment}", (task, between), facts)


def _resized(camera: Any, height: int, width: int) -> dict[str, Any]:
    """What changes in a camera's configuration when it takes the same view with other numbers of pixels."""
    scale = np.array([width / camera.width, height / camera.height, 1.0])
    return {"height": height, "width": width, "intrinsic": scale[:, None] * np.asarray(camera.intrinsic)}


def _models(assets: Path, arrangement: Arrangement) -> dict[str, Any]:
    """ManiSkill's tables of models in one, with the source scaled as the task asks."""
    folder = assets / "tasks" / "bridge_v2_real2sim_dataset" / "custom"
    models: dict[str, Any] = {}
    for name in MODEL_TABLES:
        models |= read_json_mapping(folder / name, hint="Install ManiSkill's assets again.")
    models[arrangement.source] = models[arrangement.source] | {"scales": [arrangement.scale]}
    return models


def _half_height(model: dict[str, Any]) -> float:
    """Half of a model's height as it lies, meters."""
    return float(model["bbox"]["max"][2] - model["bbox"]["min"][2]) / 2.0


def _quaternion(rotation: Rotation) -> Float64:
    """``(w, x, y, z)``."""
    return np.asarray(rotation.as_quat(scalar_first=True))
