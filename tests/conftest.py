"""Settings of the whole suite."""

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

# Tests that need a hub start a stand-in. The others, and the commands that they run, must not find the real one.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

_MODULE_OF_EXTRA = {
    "train": "torch",
    "metaworld": "metaworld",
    "libero": "libero",
    "simpler": "mani_skill",
    "ray": "ray",
    "serve": "websockets",
    "hub": "huggingface_hub",
    "rerun": "rerun",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``needs(extra)`` where the extra is not installed, as in the workflow's core job."""
    left_out = [
        item
        for item in items
        if any(
            importlib.util.find_spec(_MODULE_OF_EXTRA[extra]) is None
            for mark in item.iter_markers("needs")
            for extra in mark.args
        )
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
