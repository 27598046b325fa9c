"""Import of ManiSkill: without prompts on stdin, after a check of its assets and of a Vulkan device.

ManiSkill reads where its assets are when it is imported, asks on stdin whether to download what is missing, and says
"failed to find a rendering device" where there is no driver. All of that is checked here first.
"""

import functools
import gc
import importlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError, SimulatorError

__all__ = ["ASSETS", "DOWNLOAD", "VULKAN_HINT", "ManiSkill", "asset_folder", "load_maniskill", "render_device"]

ASSETS = ("bridge_v2_real2sim", "widowx250s")
"""ManiSkill's names of what these tasks need."""

DOWNLOAD = " && ".join(f"python -m mani_skill.utils.download_asset {name} -y" for name in ASSETS)
"""ManiSkill's own commands that download what these tasks need."""

VULKAN_HINT = (
    "A graphics card's driver brings Vulkan. Without a card Mesa draws on the processor (lavapipe) from release 25 on: "
    "packages mesa-vulkan-drivers and libvulkan1, on Debian 12 from the backports suite. 'make install' in a checkout, "
    "or 'bash scripts/install_system_packages.sh', installs it."
)
"""What to do where no Vulkan device draws."""

_PACKAGE_HINT = "pip install 'grape-vla[simpler]'"
_BRIDGE = Path("tasks") / "bridge_v2_real2sim_dataset"
_NEEDED = (
    Path("robots") / "widowx" / "wx250s.urdf",
    _BRIDGE / "custom" / "info_bridge_custom_v0.json",
    _BRIDGE / "custom" / "info_bridge_custom_baked_tex_v0.json",
    _BRIDGE / "real_inpainting" / "bridge_real_eval_1.png",
    _BRIDGE / "real_inpainting" / "bridge_sink.png",
    _BRIDGE / "stages" / "bridge_table_1_v1.glb",
    _BRIDGE / "stages" / "bridge_table_1_v2.glb",
)
_LOGGERS = ("mani_skill ", "mani_skill")  # the blank is ManiSkill's


@dataclass(frozen=True)
class ManiSkill:
    """The installed simulator.

    Attributes:
        scenes: ManiSkill's module with the four tasks.
        base: The class that the four have in common.
        assets: Its folder of assets.
    """

    scenes: Any
    base: Any
    assets: Path


def asset_folder() -> Path:
    """Where ManiSkill looks for assets: ``data`` in ``MS_ASSET_DIR``, or else in ``~/.maniskill``.

    Raises:
        DataError: What these tasks need is not there; the hint has ManiSkill's own command.
    """
    asset_root = os.environ.get("MS_ASSET_DIR") or os.path.expanduser("~/.maniskill")
    folder = Path(asset_root) / "data"
    for path in _NEEDED:
        if not os.path.isfile(folder / path):  # in contrast to Path.is_file, False wherever the system refuses to look
            raise DataError(
                f"ManiSkill's assets of the WidowX tasks are not in {folder}: {path} is missing.",
                f"Download them: {DOWNLOAD}. Or name the folder that holds them: export MS_ASSET_DIR=...",
            )
    return folder


@functools.cache
def load_maniskill() -> ManiSkill:
    """Import ManiSkill (5 to 10 s).

    Raises:
        SettingsError: It is not installed.
        DataError: Its assets are missing.
        SimulatorError: The installation is broken.
    """
    folder = asset_folder()
    try:
        maniskill: Any = importlib.import_module("mani_skill")
        scenes: Any = importlib.import_module(f"{_TASKS}.put_on_in_scene")
        base: Any = importlib.import_module(f"{_TASKS}.base_env")
    except ModuleNotFoundError as error:
        if error.name not in ("mani_skill", "sapien"):
            raise SimulatorError(f"ManiSkill lacks package {error.name!r}.", _PACKAGE_HINT) from error
        raise SettingsError("The SimplerEnv suites need packages that are not installed.", _PACKAGE_HINT) from error
    except Exception as error:  # an import that loads several simulators' libraries fails in many ways
        raise SimulatorError(
            f"ManiSkill cannot be imported: {type(error).__name__}: {error}",
            f"Install the release that is tested: {_PACKAGE_HINT}.",
        ) from error
    if Path(maniskill.ASSET_DIR) != folder:
        raise SimulatorError(
            f"ManiSkill was imported before and looks for its assets in {maniskill.ASSET_DIR}, not in {folder}.",
            "Set MS_ASSET_DIR before anything imports mani_skill.",
        )
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # ManiSkill collects garbage at every reset. Looking through all that the imports made took 150 ms of its 200.
    gc.collect()
    gc.freeze()
    return ManiSkill(scenes, base.BaseBridgeEnv, folder)


_TASKS = "mani_skill.envs.tasks.digital_twins.bridge_dataset_eval"


@functools.cache
def render_device() -> str:
    """Name of the Vulkan device that draws.

    Raises:
        SettingsError: The simulator is not installed.
        SimulatorError: There is no such device.
    """
    try:
        render: Any = importlib.import_module("sapien.render")
    except ModuleNotFoundError as error:
        raise SettingsError("The SimplerEnv suites need packages that are not installed.", _PACKAGE_HINT) from error
    try:
        summary = str(render.get_device_summary())
    except RuntimeError as error:
        raise SimulatorError(f"There is no Vulkan device that can draw: {error}.", VULKAN_HINT) from error
    names = [line.partition(":")[2].strip() for line in summary.splitlines() if line.startswith("GPU")]
    return names[0] if names else "unknown"
