"""The nano policy that decides in chunks: OpenVLA-OFT's sequence on the nano preset's network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grape.core.errors import SettingsError
from grape.core.seeds import derive_seed
from grape.policies.openvla.checkpoint import materialize_buffers
from grape.policies.openvla.nano import create_nano, initialize
from grape.policies.openvla.proprio import ProprioProjector
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.loading import state_oft
from grape.policies.openvla_oft.model import OpenVLAOFT, empty_oft_model
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.presets import NANO, NanoShape

__all__ = ["NANO_CONVENTIONS", "create_nano_oft"]

NANO_CONVENTIONS = Conventions(
    prompt_tail="none", center_crop=False, image_preprocessing="resize", idle_steps=0, support="window"
)
"""Conventions of a policy that was trained here alone."""

_LEAST_LAYERS = 2
_PLACEHOLDERS = 0.02  # deviation of their first values, that of embeddings of tokens


def create_nano_oft(
    *,
    seed: int,
    norm_stats: Mapping[str, Any],
    gripper: str,
    layout: Layout,
    instructions: Sequence[str] = (),
    conventions: Conventions = NANO_CONVENTIONS,
    shape: NanoShape = NANO,
) -> OFTPolicy:
    """A fresh nano policy with random weights that decides in chunks.

    Args:
        seed: Decides the weights.
        norm_stats: As for :func:`~grape.policies.openvla.create_nano`; with statistics of ``proprio`` where the layout
            reads the robot's state.
        gripper: What the last action dimension means.
        layout: Chunk, cameras, robot state.
        instructions: As for :func:`~grape.policies.openvla.create_nano`.
        conventions: How it is run.
        shape: Sizes; at least two blocks where attention is bidirectional and placeholders are zeros.

    Raises:
        SettingsError: One block cannot tell the actions of a chunk apart: placeholders are rows of zeros, their queries
            are zero, so all come out of the first block alike.
        CompatibilityError: The statistics are of another dimension than the layout.
        DataError: The statistics are not usable.
    """
    alike = layout.placeholders == "zeros" and conventions.attention == "bidirectional"
    if shape.layers < _LEAST_LAYERS and alike:
        raise SettingsError(
            f"A policy with {shape.layers} block and bidirectional attention gives every action of a chunk alike.",
            f"Use at least {_LEAST_LAYERS} layers, or one placeholder an action.",
        )
    base = create_nano(seed=seed, norm_stats=norm_stats, gripper=gripper, instructions=instructions, shape=shape)
    files = base.files.with_config(state_oft(base.config, conventions, layout, base.unnorm_key))
    model: OpenVLAOFT = empty_oft_model(files.config, conventions, layout)
    if layout.proprio_dim:
        model.proprio_projector = ProprioProjector(layout.proprio_dim, files.config.hidden)
    model.to_empty(device="cpu")
    materialize_buffers(model)
    initialize(model, seed)
    if model.placeholders is not None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "placeholders"))
        with torch.no_grad():
            model.placeholders.normal_(0.0, _PLACEHOLDERS, generator=generator)
    return OFTPolicy(model, files, base.unnorm_key)
