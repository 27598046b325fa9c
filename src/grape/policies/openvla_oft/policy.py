"""An OpenVLA-OFT checkpoint as a policy: network, preprocessing, action tokens, normalization."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.core.files import content_hash
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, ImitationPolicy, LoraTargets, PolicySpec, WeightlessNetwork
from grape.policies.openvla.action_tokens import ActionTokenizer
from grape.policies.openvla.checkpoint import CheckpointFiles
from grape.policies.openvla.imitation import bin_losses, fitted_config
from grape.policies.openvla.model import PolicyInputs
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.openvla.processor import Processor
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.decoding import decode_chunks, regress_chunks
from grape.policies.openvla_oft.model import OpenVLAOFT, rows_beside_prompt
from grape.policies.openvla_oft.normalization import action_norm, proprio_norm, read_proprio
from grape.policies.openvla_oft.weightless import weightless_oft
from grape.policies.types import DataFacts

__all__ = ["OFTPolicy"]

Image = npt.NDArray[np.uint8]


class OFTPolicy(ImitationPolicy):
    """A policy that decides on a chunk of ``K`` actions at once.

    Args:
        model: The network with its weights.
        files: Configuration and side files it is saved with.
        unnorm_key: Which normalization statistics to use; None as for :class:`~grape.policies.openvla.OpenVLAPolicy`.

    Attributes:
        model: The network; train it directly.
        conventions: How it is run.
        layout: Chunk, cameras, robot state.
        processor: Prompt and image preprocessing.
        norm: Normalization of actions.
        norm_proprio: Normalization of the robot's state; None where it is not read.

    Raises:
        SettingsError: The statistics' name is unknown or ambiguous.
        CompatibilityError: Statistics are of another dimension than the network's inputs or outputs.
        DataError: A side file is missing or broken.
    """

    def __init__(self, model: OpenVLAOFT, files: CheckpointFiles, unnorm_key: str | None = None) -> None:
        self._checkpoint = OpenVLAPolicy(model, files, unnorm_key)
        self.model = model
        self.files = files
        self.config = files.config
        self.conventions: Conventions = model.conventions
        self.layout: Layout = model.layout
        self.unnorm_key = self._checkpoint.unnorm_key
        self.processor = Processor(
            self._checkpoint.tokenizer,
            files.side_json("preprocessor_config.json"),
            len(self.config.towers),
            self.conventions.center_crop,
            self.conventions.prompt_tail,
        )
        stats = self.config.norm_stats[self.unnorm_key]
        self.norm = action_norm(stats, self.unnorm_key, self.layout)
        self.norm_proprio = proprio_norm(stats, self.unnorm_key, self.layout)
        self._bins = ActionTokenizer(self.config.text_vocab, self.config.action_bins)

    @property
    def has_logps(self) -> bool:
        """Whether decisions have tokens and log-probabilities: not with an L1 head."""
        return self.layout.head == "tokens"

    @property
    def module(self) -> OpenVLAOFT:
        """What training changes."""
        return self.model

    @property
    def adapter(self) -> Any:
        """PEFT's wrapper where an adapter was attached (its ``disable_adapter()`` gives the base), else None."""
        return self._checkpoint.adapter

    @adapter.setter
    def adapter(self, wrapper: Any) -> None:
        self._checkpoint.adapter = wrapper

    def lora_targets(self, which: LoraTargets = "language+projector") -> list[str]:
        """Names of the linear layers that LoRA adapts, as for :class:`~grape.policies.openvla.OpenVLAPolicy`.

        An L1 head's are not among them: its policy has no log-probabilities to train by.
        """
        names = self._checkpoint.lora_targets(which)
        if which != "language" and self.model.proprio_projector is not None:
            names += ["proprio_projector.fc1", "proprio_projector.fc2"]
        return names

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract. Hashes all weights at each access, unless it is frozen."""
        return dataclasses.replace(self.contract, policy_hash=self._checkpoint.spec.policy_hash)

    @property
    def contract(self) -> PolicySpec:
        """As :attr:`spec`; the hash of the weights is empty unless the policy is frozen."""
        stated = self.conventions if self.has_logps else None
        return dataclasses.replace(
            self._checkpoint.contract,
            preprocessing_hash=self.preprocessing_hash,
            chunk=self.layout.chunk,
            cameras=self.layout.cameras,
            proprio_dim=self.layout.proprio_dim,
            support=stated.support if stated else "",
            logp_temperature=stated.temperature if stated else 0.0,
        )

    @property
    def computation(self) -> str:
        """Where and in what the network computes, e.g. ``"cuda bfloat16, sdpa"``."""
        return self._checkpoint.computation

    @property
    def action_token_ids(self) -> npt.NDArray[np.int64]:
        """Token id of each bin from the lowest value to the highest, int64 ``(n_bins,)``."""
        return self._bins.token_ids

    def freeze(self) -> "OFTPolicy":
        """Declare that the weights will not change any more; returns the same policy."""
        self._checkpoint.freeze()
        return self

    @property
    def evaluation_conventions(self) -> Mapping[str, Any]:
        """Waiting steps and image preprocessing of its stack; nothing for nano policies, which learned a suite."""
        if "towers" in self.config.raw.get("grape", {}):
            return {}
        stated = self.conventions
        return {"idle_steps": stated.idle_steps, "image_preprocessing": stated.image_preprocessing}

    def facts(self) -> Mapping[str, Any]:
        """Statistics, conventions, layout and precision in use."""
        return {
            "unnorm_key": self.unnorm_key,
            "center_crop": self.conventions.center_crop,
            "head": self.layout.head,
            "conventions": self.conventions.to_json(),
            "layout": self.layout.to_json(),
            "computation": self.computation,
        }

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""
        return self.processor.prompt(instruction)

    @property
    def preprocessing_hash(self) -> str:
        """SHA-256 of all between observation and network and between tokens and action, every convention included."""
        norms = {"action": self.norm} | ({} if self.norm_proprio is None else {"proprio": self.norm_proprio})
        return content_hash(
            {
                "processor": self.processor.facts(),
                "tokenizer": hashlib.sha256(self.files.side["tokenizer.json"]).hexdigest(),
                "bins": self.config.action_bins,
                "text_vocab": self.config.text_vocab,
                "conventions": self.conventions.to_json(),
                "layout": self.layout.to_json(),
                "norms": {
                    name: {"low": norm.low.tolist(), "high": norm.high.tolist(), "mask": norm.mask.tolist()}
                    for name, norm in norms.items()
                },
            }
        )

    def encode(
        self, observations: Sequence[Observation], *, features: Tensor | None = None, crop: bool = True
    ) -> PolicyInputs:
        """Prepare observations for the network.

        Args:
            observations: ``B`` observations with an image of each of the policy's cameras.
            features: What :meth:`features` gave for them; then their images are not read.
            crop: As for :meth:`encode_images`.

        Raises:
            CompatibilityError: As for :meth:`encode_images`.
            PolicyError: As there.
        """
        instructions = [observation.instruction for observation in observations]
        proprio = np.stack([observation.proprio for observation in observations]) if self.layout.proprio_dim else None
        if features is not None:
            proprio_BP = read_proprio(proprio, self.norm_proprio, len(instructions), self.unnorm_key)
            return PolicyInputs(None, self._prompt_ids(instructions), features, proprio_BP)
        images = [observation.images(self.layout.cameras) for observation in observations]
        return self.encode_images(images, instructions, proprio, crop=crop)

    def features(self, observations: Sequence[Observation]) -> Tensor | None:
        """Outputs of the vision towers, ``(B, N, C)``, on the CPU; None where the towers train."""
        if any(parameter.requires_grad for parameter in self.model.vision_backbone.parameters()):
            return None
        pixels_BCHW = self._pixels([observation.images(self.layout.cameras) for observation in observations])
        with torch.no_grad():
            return self.model.image_features(pixels_BCHW).cpu()

    def token_logps(self, inputs: PolicyInputs, tokens: Tensor) -> Tensor:
        """Log-probability of each action token, ``(B, K, D)`` with graph; see the network's method."""
        return self.model.token_logps(inputs, tokens)

    def imitation_losses(
        self, inputs: PolicyInputs, labels: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], width: float
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of demonstrated actions over the support at temperature 1, see the base class.

        The 56 tokens of LIBERO's chunk count, not the stop token behind them, which the reference learns as a 57th.
        """
        targets = self._bins.soft_targets(self.norm.normalize(labels), width)
        columns_K = torch.from_numpy(np.array(self.action_token_ids)) - self.model.support.start
        logits_BTV = self.model.chunk_logits(inputs) * self.conventions.temperature
        targets_BTK = torch.from_numpy(targets.reshape(len(labels), -1, targets.shape[-1]))
        return bin_losses(logits_BTV, columns_K, targets_BTK, np.repeat(inside, self.layout.action_dim, axis=1))

    def check_imitation(self) -> None:
        """Refuse a regression head: what is learned from demonstrations is action tokens."""
        if not self.has_logps:
            raise SettingsError(
                "The policy acts through an L1 regression head, and its language model was never trained to give "
                "action tokens: there is no token head to go on with.",
                "Start from a checkpoint with action tokens, or from plain OpenVLA's weights with --preset.",
            )

    def fitted(self, data: DataFacts) -> "OFTPolicy":
        """The same network, with an adapter beside it where it has one; see the base class."""
        from grape.policies.openvla_oft.loading import state_oft

        crop = self.conventions.center_crop or data.center_crop
        self.model.conventions = dataclasses.replace(self.conventions, center_crop=crop)
        config = fitted_config(self.config, data)
        config = state_oft(config, self.model.conventions, self.layout, data.unnorm_key)
        policy = OFTPolicy(self.model, self.files.with_config(config), data.unnorm_key)
        policy.adapter = self.adapter
        return policy

    def resized(self, image: Image) -> Image:
        """An image at the network's size, as its processor makes it."""
        return self.processor.resize(image)

    def save(self, folder: Path) -> None:
        """Write the policy as a checkpoint in the published layout into an existing folder; adapters are merged."""
        from grape.policies.openvla_oft.saving import write_oft_policy

        write_oft_policy(self, folder)

    def checkpoint_activations(self) -> None:
        """Keep one hidden state a block for the backward pass, see the network's method."""
        self.model.checkpoint_activations()

    def encode_images(
        self,
        images: Sequence[Sequence[Image]],
        instructions: Sequence[str],
        proprio: npt.NDArray[Any] | None = None,
        *,
        crop: bool = True,
    ) -> PolicyInputs:
        """Prepare images and instructions for the network.

        Args:
            images: For each observation the RGB images of the layout's cameras in their order, uint8 ``(H, W, 3)``.
            instructions: One an observation.
            proprio: Un-normalized robot states ``(B, P)``, given exactly where the policy reads them.
            crop: False leaves the policy's center crop out, for images that were cropped at random.

        Raises:
            CompatibilityError: The number of cameras or the dimension of the state is another than the policy's.
            PolicyError: An image has another type or shape, or an instruction is longer than the network can read.
        """
        cameras = self.layout.cameras
        for row in images:
            if len(row) != len(cameras):
                raise CompatibilityError(
                    f"The policy reads {len(cameras)} image{'s' * (len(cameras) > 1)} ({', '.join(cameras)}), "
                    f"found {len(row)}.",
                    "Give one image a camera of the checkpoint.",
                )
        prompt_ids = self._prompt_ids(instructions)
        proprio_BP = read_proprio(proprio, self.norm_proprio, len(images), self.unnorm_key)
        return PolicyInputs(self._pixels(images, crop=crop), prompt_ids, proprio_BP=proprio_BP)

    def _pixels(self, images: Sequence[Sequence[Image]], *, crop: bool = True) -> Tensor:
        """Images of all cameras as the network reads them, one camera after the other along the channels."""
        pixels_MCHW = self.processor.pixels([image for row in images for image in row], crop=crop)
        return pixels_MCHW.reshape(len(images), -1, *pixels_MCHW.shape[2:])

    def _prompt_ids(self, instructions: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        prompt_ids = tuple(self.processor.prompt_ids(instruction) for instruction in instructions)
        longest = max(map(len, prompt_ids), default=0)
        room = int(self.config.text["max_position_embeddings"]) - rows_beside_prompt(
            self.config, self.conventions, self.layout
        )
        if longest > room:
            raise PolicyError(f"An instruction gives a prompt of {longest} tokens.", f"The network reads {room}.")
        return prompt_ids

    def action_tokens(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Token ids of un-normalized actions, int32, of the same shape ``(..., D)``."""
        return self._bins.encode(self.norm.normalize(actions)).astype(np.int32)

    def normalized(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Bin centers of token ids, in [-1, 1], float64; ids outside the action range clip."""
        return self._bins.decode(tokens)

    def decode_tokens(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Un-normalized actions of token ids ``(..., D)``, float64; ids outside the action range clip."""
        return self.norm.unnormalize(self.normalized(tokens))

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Decide for each observation.

        Args:
            observations: ``B`` observations with an image of each of the policy's cameras; instructions may differ.
            temperature: As for :meth:`decide`.
            seeds: As for :meth:`decide`.

        Raises:
            CompatibilityError: An image of a camera is missing, or states are of another dimension.
            SettingsError: As for :meth:`decide`.
            PolicyError: As for :meth:`decide`.
        """
        if not observations:
            shape = (0, self.layout.chunk, self.layout.action_dim)
            none = np.zeros(shape, np.float32)
            return self._batch(none.astype(np.int32), none) if self.has_logps else self._regressed(none)
        return self.decide(self.encode(observations), temperature=temperature, seeds=seeds)

    def decide(
        self, inputs: PolicyInputs, *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Decide for encoded observations. On a CPU a row's result is the same, bit by bit, in any batch.

        Args:
            inputs: ``B`` encoded observations.
            temperature: 0 takes the likeliest token of the support; otherwise each token is sampled at this
                temperature. A policy with an L1 head cannot sample.
            seeds: One seed a row, needed when sampling; a row's random numbers depend on its seed alone.

        Raises:
            SettingsError: The temperature is negative or not finite, seeds are missing, or the policy cannot sample.
            PolicyError: The network's output is not finite.
        """
        if not np.isfinite(temperature) or temperature < 0.0:
            raise SettingsError(f"The sampling temperature is {temperature}.", "0 is greedy; 1 samples the policy.")
        if temperature > 0.0 and not self.has_logps:
            raise SettingsError("A policy with an L1 regression head cannot sample.", "Use temperature 0.")
        if temperature > 0.0 and (seeds is None or len(seeds) != len(inputs)):
            raise SettingsError("Sampling needs one seed for each observation.")
        training = self.model.training
        self.model.eval()  # an adapter may hold dropout
        try:
            if not self.has_logps:
                return self._regressed(regress_chunks(self.model, inputs).numpy())
            tokens_BKD, logps_BKD = decode_chunks(self.model, inputs, temperature, seeds)
        finally:
            self.model.train(training)
        return self._batch(tokens_BKD.numpy().astype(np.int32), logps_BKD.numpy())

    def _batch(self, tokens: npt.NDArray[np.int32], logps: npt.NDArray[np.float32]) -> ActionBatch:
        normalized = self.normalized(tokens)
        actions = self.norm.unnormalize(normalized)
        stated = self.conventions
        return ActionBatch(actions, tokens, logps, stated.support, stated.temperature, normalized)

    def _regressed(self, normalized: npt.NDArray[np.float32]) -> ActionBatch:
        return ActionBatch(self.norm.unnormalize(normalized), normalized=normalized)

    def weightless(self, dtype: torch.dtype) -> WeightlessNetwork | None:
        """See the base class; None with a regression head, which is not trained."""
        return weightless_oft(self.config, self.conventions, self.layout, dtype) if self.has_logps else None

    def prompt_length(self, instruction: str) -> int:
        """Tokens of the prompt that the network reads for an instruction."""
        return len(self.processor.prompt_ids(instruction))

    def decision_logps(self, inputs: PolicyInputs, tokens: Tensor, executed: Tensor) -> Tensor:
        """Log-probability of each decision's executed actions, ``(B,)`` with graph; see the network's method."""
        return self.model.decision_logps(inputs, tokens, executed)
