"""Packages that only some verbs need, loaded when they are needed."""

import importlib
from types import ModuleType

from grape.core.errors import SettingsError

__all__ = ["load_package"]


def load_package(module: str, need: str, extra: str) -> ModuleType:
    """A module of another distribution.

    Args:
        module: Its name.
        need: Who needs which package, as the start of the message, e.g. ``"Videos need PyAV"``.
        extra: The extra of this package that installs it.

    Raises:
        SettingsError: It is not installed, or does not import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"{need}, which is not installed ({error}).", f"pip install 'grape-vla[{extra}]'"
        ) from error
