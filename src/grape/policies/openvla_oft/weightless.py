"""OpenVLA-OFT's network without weights, for estimates of what its training takes."""

import torch

from grape.policies.base import WeightlessNetwork
from grape.policies.openvla.checkpoint import materialize_buffers
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.precision import quantized_names
from grape.policies.openvla.proprio import ProprioProjector
from grape.policies.openvla.weightless import empty_inputs
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.model import empty_oft_model, rows_beside_prompt

__all__ = ["weightless_oft"]


def weightless_oft(
    config: OpenVLAConfig, conventions: Conventions, layout: Layout, dtype: torch.dtype
) -> WeightlessNetwork:
    """OpenVLA-OFT of a configuration; see :meth:`~grape.policies.base.TrainablePolicy.weightless`.

    Args:
        config: The configuration.
        conventions: How it is run.
        layout: Chunk, cameras, robot state.
        dtype: Type of the weights.
    """
    model = empty_oft_model(config, conventions, layout).to(dtype)
    if layout.proprio_dim:
        with torch.device("meta"):
            model.proprio_projector = ProprioProjector(layout.proprio_dim, config.hidden).to(dtype)
    materialize_buffers(model)
    cameras = len(layout.cameras)
    return WeightlessNetwork(
        module=model,
        towers=model.vision_backbone,
        inputs=lambda count, prompt, features: empty_inputs(
            model, count, prompt, cameras, layout.proprio_dim, features=features
        ),
        features=lambda inputs: model.image_features(inputs.pixel_values_BCHW),
        token_logps=model.token_logps,
        checkpoint_activations=model.checkpoint_activations,
        actions=(layout.chunk, layout.action_dim),
        rows_beside_prompt=rows_beside_prompt(config, conventions, layout),
        storage_dtype=config.storage_dtype,
        quantized=tuple(sorted(quantized_names(int(config.text["num_hidden_layers"])))),
    )
