"""OpenVLA's network without weights, for estimates of what its training takes."""

import torch
from torch import Tensor

from grape.policies.base import WeightlessNetwork
from grape.policies.openvla.checkpoint import empty_model, materialize_buffers
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.model import OpenVLA, PolicyInputs
from grape.policies.openvla.precision import quantized_names

__all__ = ["empty_inputs", "weightless_openvla"]


def weightless_openvla(config: OpenVLAConfig, dtype: torch.dtype, action_dim: int = 7) -> WeightlessNetwork:
    """OpenVLA of a configuration; see :meth:`~grape.policies.base.TrainablePolicy.weightless`.

    Args:
        config: The configuration.
        dtype: Type of the weights.
        action_dim: Dimensions of an action.
    """
    model = empty_model(config).to(dtype)
    materialize_buffers(model)

    def token_logps(inputs: PolicyInputs, tokens: Tensor) -> Tensor:
        return model.action_logps(inputs, tokens[:, 0])[:, None]

    return WeightlessNetwork(
        module=model,
        towers=model.vision_backbone,
        inputs=lambda count, prompt, features: empty_inputs(model, count, prompt, features=features),
        features=lambda inputs: model.image_features(inputs.pixel_values_BCHW),
        token_logps=token_logps,
        checkpoint_activations=model.checkpoint_activations,
        actions=(1, action_dim),
        rows_beside_prompt=config.patches + bool(config.proprio_dim) + action_dim - 1,
        storage_dtype=config.storage_dtype,
        quantized=tuple(sorted(quantized_names(int(config.text["num_hidden_layers"])))),
    )


def empty_inputs(
    model: OpenVLA, count: int, prompt: int, cameras: int = 1, proprio_dim: int | None = None, *, features: bool
) -> PolicyInputs:
    """Encoded observations without content on the meta device.

    Args:
        model: The network.
        count: Observations.
        prompt: Tokens of each prompt.
        cameras: Images of each observation.
        proprio_dim: Numbers of the robot's state; None for the configuration's.
        features: Whether they hold the vision towers' outputs instead of images.
    """
    config, prompts = model.vla_config, ((0,) * prompt,) * count
    width = config.proprio_dim if proprio_dim is None else proprio_dim
    proprio_BP = torch.empty(count, width, device="meta") if width else None
    if features:
        shape = (count, cameras * config.patches, model.vision_backbone.width)
        return PolicyInputs(None, prompts, torch.empty(shape, dtype=model.dtype, device="meta"), proprio_BP)
    side, channels = config.image_size, 3 * len(config.towers) * cameras
    return PolicyInputs(torch.empty(count, channels, side, side, device="meta"), prompts, None, proprio_BP)
