"""The golden checkpoint of OpenVLA-OFT put together with its tokenizer, and a nano policy that decides in chunks."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from grape.core.trajectories import Observation
from grape.policies.openvla import compute_norm_stats
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS, create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.training.lora import add_adapters

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
LIBERO, TWIN = "libero_spatial_no_noops", "place_empty_cup_1k"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Golden:
    """Recorded values, images, and the checkpoint with any of its separate parts."""

    def __init__(self, scratch: Path) -> None:
        self.folder = GOLDEN / "openvla_oft"
        self.scratch = scratch
        self.images = [np.asarray(Image.open(GOLDEN / f"openvla/images/img{i}.png").convert("RGB")) for i in range(4)]

    @functools.cache  # noqa: B019 - lives as long as the session
    def json(self, name: str):
        return json.loads((self.folder / f"{name}.json").read_text())

    @functools.cache  # noqa: B019
    def tensors(self, name: str):
        return load_file(self.folder / f"{name}.safetensors")

    @functools.cache  # noqa: B019
    def checkpoint(self, *parts: str) -> Path:
        """A folder with the weights, the tokenizer and ``parts`` (files under ``heads/``)."""
        folder = self.scratch / ("-".join(part.replace("/", "_") for part in parts) or "plain")
        folder.mkdir()
        files = [*(self.folder / "ckpt").iterdir(), *(GOLDEN / "openvla" / "ckpt" / name for name in TOKENIZER)]
        for file in [*files, *(self.folder / "heads" / part for part in parts)]:
            shutil.copyfile(file, folder / file.name)
        return folder

    @functools.cache  # noqa: B019
    def policy(self, preset: str = "openvla-oft", *parts: str, key: str = LIBERO, cameras: int = 1, changes=()):
        choices = OFTChoices(preset, changes, cameras=cameras, unnorm_key=key, center_crop=False)
        return load_oft_policy(self.checkpoint(*parts), choices)

    def case_inputs(self, policy, cases):
        """Inputs of golden cases: ``picture * 4 + instruction``."""
        instructions = self.json("cases")["instructions"]
        return policy.encode_images(
            [[self.images[case // 4]] for case in cases], [instructions[case % 4] for case in cases]
        )


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Golden:
    if not (GOLDEN / "openvla_oft").is_dir():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    return Golden(tmp_path_factory.mktemp("golden"))


NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
INSTRUCTIONS = ("open the drawer", "turn on the faucet")


def nano_statistics(action_dim: int = 7, proprio_dim: int = 4) -> dict:
    rng = np.random.default_rng(7)
    names = NAMES if action_dim == 7 else tuple(map(str, range(action_dim)))
    stats = compute_norm_stats(rng.uniform(-1, 1, (64, action_dim)), names)
    state = compute_norm_stats(rng.uniform(-2, 2, (64, proprio_dim)), tuple(map(str, range(proprio_dim))))
    return {**stats, "proprio": state["action"]}


def make_nano(seed: int = 0, conventions: Conventions = NANO_CONVENTIONS, **layout) -> OFTPolicy:
    given = {"chunk": 3, "action_dim": 7, **layout}
    return create_nano_oft(
        seed=seed,
        norm_stats={"toy": nano_statistics(given["action_dim"], given.get("proprio_dim") or 4)},
        gripper="+1 closes",
        layout=Layout(**given),
        instructions=INSTRUCTIONS,
        conventions=conventions,
    )


@pytest.fixture(scope="session", params=["zeros", "per-action"])
def nano(request) -> OFTPolicy:
    """Two cameras and the robot's state; shared by tests that do not change it."""
    return make_nano(cameras=("agentview", "wrist"), proprio_dim=4, placeholders=request.param)


def nano_inputs(policy: OFTPolicy, instructions, seed: int = 0):
    rng = np.random.default_rng(seed)
    cameras, count = len(policy.layout.cameras), len(instructions)
    images = rng.integers(0, 256, (count, cameras, 64, 64, 3), dtype=np.uint8)
    state = rng.uniform(-2, 2, (count, policy.layout.proprio_dim)) if policy.layout.proprio_dim else None
    return policy.encode_images(list(images), instructions, state)


def with_adapter(policy, targets="language+projector"):
    """The policy with an adapter that changes what it does."""
    add_adapters(policy, 4, 8.0, 0, targets)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
    return policy


def observations(golden, proprio: int = 0):
    """The four golden images, each with an instruction and ``proprio`` numbers of the robot's state."""
    state = np.linspace(-1, 1, proprio or 1, dtype=np.float32)
    texts = ["open the drawer", "go"] * 2
    return [Observation(image, state, text) for image, text in zip(golden.images, texts, strict=True)]
