"""A policy of one's own: a small network that decides on two actions at once."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from grape.policies import ActionBatch, PolicySpec, PolicyType, TrainablePolicy
from grape.policies.sampling import choose_bins, hash_module

CHUNK, DIM, BINS = 2, 7, 16
VALUES = np.linspace(-1, 1, BINS)  # what each bin means


class OwnPolicy(TrainablePolicy):
    """Reads the image at 8 x 8 pixels and says one of 16 values for each dimension of each action."""

    def __init__(self):
        sizes = (8 * 8 * 3, 64, CHUNK * DIM * BINS)
        self.network = torch.nn.Sequential(torch.nn.Linear(*sizes[:2]), torch.nn.Tanh(), torch.nn.Linear(*sizes[1:]))

    @property
    def module(self):
        return self.network

    @property
    def spec(self):
        return PolicySpec(
            action_dim=DIM, image_size=8, gripper="+1 closes", unnorm_key="", chunk=CHUNK, support="window",
            policy_hash=hash_module(self.network, {}), preprocessing_hash="8 x 8 pixels, 16 bins",
        )  # fmt: skip

    def encode(self, observations, *, features=None):
        images = np.stack([observation.image for observation in observations]).astype(np.float32)
        height, width = images.shape[1] // 8, images.shape[2] // 8
        small = images[:, : 8 * height, : 8 * width].reshape(-1, 8, height, 8, width, 3).mean(axis=(2, 4))
        return torch.from_numpy(small.reshape(len(small), -1) / 255 - 0.5)

    def logits(self, inputs):
        return self.network(inputs).reshape(-1, CHUNK, DIM, BINS)

    def token_logps(self, inputs, tokens):
        return self.logits(inputs).log_softmax(-1).gather(-1, tokens.long()[..., None])[..., 0]

    @torch.no_grad()
    def act(self, observations, *, temperature=0.0, seeds=None):
        rows = [self.encode([observation]) for observation in observations]  # alone, so that no batch changes a bit
        tokens = choose_bins(torch.cat([self.logits(row) for row in rows]), temperature, seeds)
        logps = torch.cat([self.token_logps(row, tokens[i : i + 1]) for i, row in enumerate(rows)])
        return ActionBatch(VALUES[tokens.numpy()], tokens.numpy().astype(np.int32), logps.numpy(), "window")

    def save(self, folder):
        (folder / "config.json").write_text(json.dumps({"model_type": "own_policy"}))
        save_file(self.network.state_dict(), folder / "model.safetensors")


class OwnPolicyType(PolicyType):
    """Opens folders that :meth:`OwnPolicy.save` wrote."""

    def recognizes(self, config, names):
        return config.get("model_type") == "own_policy"

    def open(self, path, options):
        policy = OwnPolicy()
        policy.network.load_state_dict(load_file(Path(path) / "model.safetensors"))
        return policy
