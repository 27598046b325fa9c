"""Where the tests find ManiSkill's assets: beside the checkout. Imported before anything imports mani_skill."""

import os
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[3] / "shared" / "assets" / "maniskill_bridge"


def require() -> None:
    """Skip the module where simulator or assets are missing; point ManiSkill to the assets."""
    if not (ASSETS / "data").is_dir():
        pytest.skip(f"assets are not at {ASSETS}", allow_module_level=True)
    os.environ["MS_ASSET_DIR"] = str(ASSETS)
    pytest.importorskip("mani_skill", reason="needs the extra simpler")
