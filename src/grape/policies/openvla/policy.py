"""The policy that collection, training and evaluation use: network, processor, action tokens, normalization."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.files import content_hash
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, ImitationPolicy, LoraTargets, PolicySpec, WeightlessNetwork
from grape.policies.openvla.action_tokens import ActionNorm, ActionTokenizer, choose_unnorm_key, rotation_of
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.checkpoint import CheckpointFiles, write_files
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.decoding import decode_actions, decode_rows_alike
from grape.policies.openvla.hashing import hash_weights
from grape.policies.openvla.imitation import bin_losses, fitted_config
from grape.policies.openvla.model import OpenVLA, PolicyInputs
from grape.policies.openvla.precision import LANGUAGE_LINEARS, Precision, is_quantized
from grape.policies.openvla.processor import Processor
from grape.policies.openvla.proprio import ProprioNorm
from grape.policies.openvla.tokenizer import checkpoint_tokenizer
from grape.policies.openvla.weightless import weightless_openvla
from grape.policies.types import DataFacts

__all__ = ["OpenVLAPolicy"]
_TOWER_LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class OpenVLAPolicy(ImitationPolicy):
    """An OpenVLA checkpoint of any size as a :class:`grape.policies.base.Policy`.

    Args:
        model: The network with its weights.
        files: Configuration and side files it is saved with.
        unnorm_key: Which normalization statistics to use; None takes those that the configuration says are in use, or
            the only ones there are.

    Attributes:
        model: The network; train it directly.
        config: Its configuration.
        processor: Prompt and image preprocessing.
        tokenizer: The text tokenizer.
        norm: Normalization of actions in use.
        norm_proprio: Standardization of the robot's state in use; None where it is not read.
        adapter: PEFT's wrapper where an adapter was attached (its ``disable_adapter()`` gives the base), else None.

    Raises:
        SettingsError: The statistics' name is unknown or ambiguous.
        DataError: A side file is missing or broken.
    """

    def __init__(self, model: OpenVLA, files: CheckpointFiles, unnorm_key: str | None = None) -> None:
        config = files.config
        self.model = model
        self.files = files
        self.config: OpenVLAConfig = config
        self.unnorm_key = choose_unnorm_key(config.norm_stats, unnorm_key or config.unnorm_key or None)
        self.norm = ActionNorm.from_stats(config.norm_stats[self.unnorm_key], self.unnorm_key)
        self.norm_proprio: ProprioNorm | None = None
        if config.proprio_dim:
            stats = config.norm_stats[self.unnorm_key]
            self.norm_proprio = ProprioNorm.from_stats(stats, self.unnorm_key, config.proprio_dim)
        self.tokenizer = checkpoint_tokenizer(files, config)
        self.processor = Processor(
            self.tokenizer, files.side_json("preprocessor_config.json"), len(config.towers), config.center_crop
        )
        if self.processor.image_size != config.image_size:
            raise DataError(
                f"preprocessor_config.json makes images of {self.processor.image_size} pixels, the network reads "
                f"{config.image_size}.",
                "Fetch the checkpoint again.",
            )
        self._bins = ActionTokenizer(config.text_vocab, config.action_bins)
        self.adapter: Any = None
        self._frozen_hash = ""
        self.model.eval()

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract. Hashes all weights at each access, so that it is true also after training.

        A policy that will not be trained can be told so (:meth:`freeze`); then they are hashed once.
        """
        return dataclasses.replace(self.contract, policy_hash=self._frozen_hash or hash_weights(self))

    @property
    def contract(self) -> PolicySpec:
        """As :attr:`spec`; the hash of the weights is empty unless the policy is frozen."""
        return PolicySpec(
            action_dim=self.norm.dim,
            image_size=self.config.image_size,
            gripper=self.config.gripper,
            unnorm_key=self.unnorm_key,
            policy_hash=self._frozen_hash,
            preprocessing_hash=self.preprocessing_hash,
            computation=self.computation,
            rotation=self.rotation,
            proprio_dim=self.config.proprio_dim,
        )

    @property
    def rotation(self) -> str:
        """How its actions say a rotation, as in its contract."""
        return rotation_of(self.unnorm_key)

    def freeze(self) -> "OpenVLAPolicy":
        """Declare that the weights will not change any more: no gradients, and one hash of 7 B weights, not four.

        Returns:
            The same policy.
        """
        self.model.requires_grad_(False)
        self._frozen_hash = hash_weights(self)
        return self

    @property
    def computation(self) -> str:
        """Where and in what the network computes, e.g. ``"cuda bfloat16, sdpa"``."""
        return str(Precision(self.model.device, self.model.dtype, self.model.attention, is_quantized(self.model)))

    @property
    def action_token_ids(self) -> npt.NDArray[np.int64]:
        """Token id of each bin from the lowest value to the highest, int64 ``(n_bins,)``."""
        return self._bins.token_ids

    def facts(self) -> Mapping[str, Any]:
        """Statistics, crop and precision in use."""
        return {
            "unnorm_key": self.unnorm_key,
            "center_crop": self.config.center_crop,
            "computation": self.computation,
        }

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""
        return self.processor.prompt(instruction)

    @property
    def module(self) -> OpenVLA:
        """The network."""
        return self.model

    def encode(
        self, observations: Sequence[Observation], *, features: Tensor | None = None, crop: bool = True
    ) -> PolicyInputs:
        """Prepare observations for the network.

        Args:
            observations: ``B`` observations.
            features: What :meth:`features` gave for them; then their images are not read.
            crop: As for :meth:`encode_images`.

        Raises:
            CompatibilityError: As for :meth:`encode_images`.
            PolicyError: As there.
        """
        instructions = [observation.instruction for observation in observations]
        proprio = np.stack([observation.proprio for observation in observations]) if self.norm_proprio else None
        if features is not None:
            return PolicyInputs(None, self._prompt_ids(instructions), features, self.standardized_proprio(proprio))
        images = [observation.image for observation in observations]
        return self.encode_images(images, instructions, proprio, crop=crop)

    def features(self, observations: Sequence[Observation]) -> Tensor | None:
        """Outputs of the vision towers, ``(B, N, C)``, on the CPU; None where the towers train."""
        if any(parameter.requires_grad for parameter in self.model.vision_backbone.parameters()):
            return None
        pixels = self.processor.pixels([observation.image for observation in observations])
        with torch.no_grad():
            return self.model.image_features(pixels).cpu()

    def token_logps(self, inputs: PolicyInputs, tokens: Tensor) -> Tensor:
        """Log-probability of each action token under temperature 1 over the whole vocabulary, ``(B, 1, D)``."""
        return self.model.action_logps(inputs, tokens[:, 0])[:, None]

    def imitation_losses(
        self, inputs: PolicyInputs, labels: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], width: float
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of demonstrated actions over the whole vocabulary, see the base class."""
        targets_BDK = torch.from_numpy(self.bin_targets(labels[:, 0], width))
        columns_K = torch.from_numpy(np.array(self.action_token_ids))
        # What the network reads before the next token is what it should have said: the likeliest bin.
        logits_BDV = self.model.action_logits(inputs, columns_K[targets_BDK.argmax(dim=-1)])
        return bin_losses(logits_BDV, columns_K, targets_BDK, np.repeat(inside, self.norm.dim, axis=1))

    def fitted(self, data: DataFacts) -> "OpenVLAPolicy":
        """The same network, with an adapter beside it where it has one; see the base class."""
        config = fitted_config(self.config, data).with_center_crop(self.config.center_crop or data.center_crop)
        if config is self.config:
            return self
        policy = OpenVLAPolicy(self.model, self.files.with_config(config), data.unnorm_key)
        policy.adapter = self.adapter
        return policy

    def resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """An image at the network's size, as its processor makes it."""
        return self.processor.resize(image)

    def save(self, folder: Path) -> None:
        """Write the policy as a checkpoint in the published layout into an existing folder; adapters are merged.

        Raises:
            PolicyError: The policy's weights are held in 4 bits.
        """
        write_files(folder, self.files, MergedWeights(self.model))

    def checkpoint_activations(self) -> None:
        """Keep one hidden state a block for the backward pass, see the network's method."""
        self.model.checkpoint_activations()

    def weightless(self, dtype: torch.dtype) -> WeightlessNetwork:
        """See the base class."""
        return weightless_openvla(self.config, dtype, self.norm.dim)

    def prompt_length(self, instruction: str) -> int:
        """Tokens of the prompt that the network reads for an instruction."""
        return len(self.processor.prompt_ids(instruction))

    def encode_images(
        self,
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        instructions: Sequence[str],
        proprio: npt.NDArray[Any] | None = None,
        *,
        crop: bool = True,
    ) -> PolicyInputs:
        """Prepare images and instructions for the network.

        Args:
            images: RGB images, uint8 ``(B, H, W, 3)`` or a sequence of ``(H, W, 3)``; other sizes than the
                network's are resized.
            instructions: One an image.
            proprio: Robot states as recorded, ``(B, P)``; passed over by a policy that does not read them.
            crop: False leaves the policy's center crop out, for images that were cropped at random.

        Raises:
            CompatibilityError: States are missing or of another dimension than the policy reads.
            PolicyError: An image has another type or shape, a state is not finite, or an instruction is longer than the
                network can read.
        """
        prompt_ids = self._prompt_ids(instructions)
        proprio_BP = self.standardized_proprio(proprio)
        return PolicyInputs(self.processor.pixels(images, crop=crop), prompt_ids, proprio_BP=proprio_BP)

    def _prompt_ids(self, instructions: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        prompt_ids = tuple(self.processor.prompt_ids(instruction) for instruction in instructions)
        longest = max(map(len, prompt_ids), default=0)
        beside = self.config.patches + bool(self.config.proprio_dim) + self.norm.dim
        room = int(self.config.text["max_position_embeddings"]) - beside
        if longest > room:
            raise PolicyError(f"An instruction gives a prompt of {longest} tokens.", f"The network reads {room}.")
        return prompt_ids

    def standardized_proprio(self, proprio: npt.NDArray[Any] | None) -> Tensor | None:
        """Robot states as the network reads them, float32 ``(B, P)``; None where it reads none.

        Args:
            proprio: States as recorded, ``(B, P)``.

        Raises:
            CompatibilityError: States are missing or of another dimension than the policy reads.
            PolicyError: A state is not finite.
        """
        if self.norm_proprio is None:
            return None
        return self.norm_proprio.standardize(np.zeros((1, 0)) if proprio is None else proprio)

    def action_tokens(self, actions_ND: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Token ids of un-normalized actions, int32 ``(N, D)``."""
        return self._bins.encode(self.norm.normalize(actions_ND)).astype(np.int32)

    def decode_tokens(self, tokens_ND: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Un-normalized actions of token ids, float32 ``(N, D)``; ids outside the action range clip."""
        return self.norm.unnormalize(self.normalized(tokens_ND)).astype(np.float32)

    def normalized(self, tokens_ND: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Bin centers of token ids, in [-1, 1], float64, of the same shape."""
        return self._bins.decode(tokens_ND)

    def bin_targets(self, actions_ND: npt.NDArray[Any], width_bins: float) -> npt.NDArray[np.float32]:
        """Soft targets over the action bins.

        Args:
            actions_ND: Un-normalized actions ``(N, D)``.
            width_bins: Standard deviation of the Gaussian around the value, in bins; 0 gives one-hot targets.

        Returns:
            float32 ``(N, D, n_bins)`` in the order of :attr:`action_token_ids`; sums to 1 over the last axis.
        """
        return self._bins.soft_targets(self.norm.normalize(actions_ND), width_bins)

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Decide for each observation. On a CPU a row's result is the same, bit by bit, in any batch.

        Args:
            observations: ``B`` observations; instructions may differ.
            temperature: 0 decodes greedily over the whole vocabulary; otherwise each token is sampled from
                ``softmax(logits / temperature)`` over the action bins.
            seeds: One seed a row, needed when sampling; a row's random numbers depend on its seed alone.

        Raises:
            SettingsError: The temperature is negative or not finite, or seeds are missing.
            CompatibilityError: The policy reads robot states of another dimension.
            PolicyError: An image has another type or shape, a state is not finite, or the network's output is not.
        """
        if not np.isfinite(temperature) or temperature < 0.0:
            raise SettingsError(f"The sampling temperature is {temperature}.", "0 is greedy; 1 samples the policy.")
        if temperature > 0.0 and (seeds is None or len(seeds) != len(observations)):
            raise SettingsError("Sampling needs one seed for each observation.")
        if not observations:
            empty = np.zeros((0, 1, self.norm.dim))
            return ActionBatch(empty, empty.astype(np.int32), empty.astype(np.float32), normalized=empty)
        training = self.model.training
        self.model.eval()  # an adapter may hold dropout
        try:
            inputs = self.encode(observations)
            decode = decode_rows_alike if self.model.device.type == "cpu" else decode_actions
            tokens_BD, logps_BD = decode(self.model, inputs, self.norm.dim, temperature, seeds, self.action_token_ids)
        finally:
            self.model.train(training)
        tokens = tokens_BD.cpu().numpy().astype(np.int32)[:, None]
        normalized = self.normalized(tokens)
        logps = logps_BD.cpu().numpy()[:, None]
        return ActionBatch(self.norm.unnormalize(normalized), tokens, logps, normalized=normalized)

    def lora_targets(self, which: LoraTargets = "language+projector") -> list[str]:
        """Names of the linear layers that LoRA adapts.

        Args:
            which: Those of the language model's blocks; those and the projectors (of images and, where it is read, of
                the robot's state); or also those of the vision towers'
                blocks that run.

        Returns:
            Full names within :attr:`model`, for ``peft.LoraConfig(target_modules=...)`` around it.
        """
        names = [
            f"language_model.model.layers.{layer}.{name}"
            for layer in range(int(self.config.text["num_hidden_layers"]))
            for name in LANGUAGE_LINEARS
        ]
        if which != "language":
            names += [f"projector.fc{number}" for number in range(1, 4 if self.config.fused else 3)]
            names += [f"proprio_projector.fc{number}" for number in (1, 2) if self.config.proprio_dim]
        if which == "all":
            towers = zip(("featurizer", "fused_featurizer"), self.config.towers, strict=False)
            names += [
                f"vision_backbone.{tower}.blocks.{block}.{name}"
                for tower, shape in towers
                for block in range(shape.feature_block + 1)
                for name in _TOWER_LINEARS
            ]
        return names

    @property
    def preprocessing_hash(self) -> str:
        """SHA-256 of all that stands between observation and network, and between tokens and action."""
        norm = self.norm_proprio
        return content_hash(
            {
                **({} if norm is None else {"proprio": {"mean": norm.mean.tolist(), "std": norm.std.tolist()}}),
                "processor": self.processor.facts(),
                "tokenizer": hashlib.sha256(self.files.side["tokenizer.json"]).hexdigest(),
                "bins": self.config.action_bins,
                "text_vocab": self.config.text_vocab,
                "low": self.norm.low.tolist(),
                "high": self.norm.high.tolist(),
                "mask": self.norm.mask.tolist(),
            }
        )
