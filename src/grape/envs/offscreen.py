"""Off-screen rendering of MuJoCo: choice of the graphics library, and messages where none works."""

import ctypes.util
import importlib
import os
import sys
from typing import Any

from grape.core.errors import SettingsError, SimulatorError

__all__ = ["graphics_error", "load_mujoco"]

_BACKENDS = (("osmesa", "OSMesa"), ("egl", "EGL"))
_GRAPHICS_HINT = (
    "Install one of them: 'apt-get install libosmesa6', or 'apt-get install libegl1 libgl1-mesa-dri'. "
    "Leave MUJOCO_GL unset to let it be found, or set it to osmesa or egl."
)


def load_mujoco(suite: str, extra: str) -> Any:
    """Import mujoco with a renderer that needs no screen.

    Sets ``MUJOCO_GL`` to ``osmesa`` or ``egl``, whichever is installed, unless the user has chosen.

    Args:
        suite: Suite that needs it, for messages.
        extra: Extra of the distribution that installs it.

    Returns:
        The module ``mujoco``.

    Raises:
        SettingsError: The package is not installed.
        SimulatorError: No graphics library can be used.
    """
    if sys.platform.startswith("linux") and not os.environ.get("MUJOCO_GL"):
        backends = [backend for backend, library in _BACKENDS if ctypes.util.find_library(library)]
        if not backends:
            raise SimulatorError("Neither OSMesa nor EGL is installed, so nothing can be drawn.", _GRAPHICS_HINT)
        os.environ["MUJOCO_GL"] = backends[0]
    try:
        _follow_choice()
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise SettingsError(
            f"Suite '{suite}' needs packages that are not installed.", f"pip install 'grape-vla[{extra}]'"
        ) from error
    except Exception as error:  # importing loads the graphics library, and each fails in its own way
        raise graphics_error(error) from error


def _follow_choice() -> None:
    """Make MuJoCo look again where it was imported before the choice: seeing none, it settles on a window.

    The choice may also be another package's: robosuite sets ``MUJOCO_GL=egl`` at import where it is unset.
    """
    context = sys.modules.get("mujoco.gl_context")
    if context is not None and getattr(context, "_MUJOCO_GL", "") != os.environ.get("MUJOCO_GL", "").lower().strip():
        importlib.reload(context)


def graphics_error(error: Exception) -> SimulatorError:
    """What to tell about an exception of a graphics library."""
    backend = os.environ.get("MUJOCO_GL", "")
    return SimulatorError(
        f"MuJoCo cannot draw with MUJOCO_GL={backend!r}: {type(error).__name__}: {error}", _GRAPHICS_HINT
    )
