"""A nano policy on disk, an adapter beside it, and the golden checkpoint."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from grape.policies.openvla import compute_norm_stats, create_nano, load_policy, save_policy
from grape.training.lora import add_adapters, save_result

NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "openvla"


@pytest.fixture(scope="session")
def golden() -> Path:
    if not (GOLDEN / "ckpt").is_dir():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def nano(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nano") / "policy"
    actions = np.random.default_rng(0).uniform(-1, 1, (32, 7))
    policy = create_nano(
        seed=0, norm_stats=compute_norm_stats(actions, NAMES), gripper="+1 closes", instructions=["open the drawer"]
    )
    save_policy(policy, folder)
    return folder


def write_adapter(base: Path, out: Path, unnorm_key: str | None = None) -> Path:
    """An adapter that was not trained but differs from nothing, at ``out/policy``."""
    policy = load_policy(base, unnorm_key=unnorm_key)
    add_adapters(policy, 4, 8.0, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
    out.mkdir(parents=True, exist_ok=True)
    save_result(policy, out, base)
    return out / "policy"


@pytest.fixture(scope="session")
def nano_adapter(nano, tmp_path_factory) -> Path:
    return write_adapter(nano, tmp_path_factory.mktemp("nano-adapter"))


@pytest.fixture(scope="session")
def golden_adapter(golden, tmp_path_factory) -> Path:
    return write_adapter(golden / "ckpt", tmp_path_factory.mktemp("golden-adapter"), "bridge_orig")


@pytest.fixture(scope="session")
def oft_checkpoint(golden, tmp_path_factory) -> Path:
    """The golden checkpoint of OpenVLA-OFT put together with its tokenizer."""
    folder = tmp_path_factory.mktemp("golden-oft") / "checkpoint"
    shutil.copytree(golden.parent / "openvla_oft" / "ckpt", folder)
    for file in (golden / "ckpt").iterdir():
        if "token" in file.name:
            shutil.copyfile(file, folder / file.name)
    return folder
