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

from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy

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
        return policy.encode([[self.images[case // 4]] for case in cases], [instructions[case % 4] for case in cases])


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Golden:
    if not (GOLDEN / "openvla_oft").is_dir():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    return Golden(tmp_path_factory.mktemp("golden"))
