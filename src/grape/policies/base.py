"""Interfaces of policies: those that act, those that train on preferences, those that imitate. No PyTorch here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from grape.core.chunks import DEFAULT_SUPPORT, is_logp_scale
from grape.core.errors import PolicyError, SettingsError
from grape.core.tasks import GripperConvention, RotationConvention, parse_convention
from grape.core.trajectories import Observation

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from grape.policies.types import DataFacts

__all__ = [
    "FIX_POLICY",
    "ActionBatch",
    "ActionEncoder",
    "ImitationPolicy",
    "LoraTargets",
    "Policy",
    "PolicySpec",
    "TrainablePolicy",
    "WeightlessNetwork",
    "sum_executed",
]

LoraTargets = Literal["language", "language+projector", "all"]

FIX_POLICY = "This is a fault of the policy's implementation, not of the call."


@dataclass(frozen=True)
class PolicySpec:
    """Contract of a policy, compared with an environment's before the first decision.

    Attributes:
        action_dim: Dimensions of an action.
        image_size: Side of the square image the network reads; images of other sizes are resized by the policy.
        gripper: What the last dimension of an un-normalized action means; empty if unknown. Plain text of the same
            characters is accepted.
        unnorm_key: Which normalization statistics are in use.
        policy_hash: Hash of weights and configuration.
        preprocessing_hash: Hash of prompt template, image preprocessing, tokenizer, action bins and normalization.
        computation: Device, number type and attention, which decide the last bits of log-probabilities; empty if
            unknown.
        rotation: What dimensions 3 to 5 of an un-normalized action mean; empty for what the suite takes.
        proprio_dim: Numbers of the robot's state that it reads; 0 for none.
        chunk: Actions ``K`` a decision.
        cameras: Names of the cameras whose images the network reads; the first is the suite's main camera.
        support: Token ids that the softmax of its log-probabilities runs over, as
            :class:`~grape.core.chunks.Chunks` has it; empty for a policy without tokens.
        logp_temperature: Their temperature; 0 for a policy without tokens.

    Raises:
        SettingsError: A convention is unknown.
        PolicyError: Chunk, cameras, support or temperature are none that an episode can record.
    """

    action_dim: int
    image_size: int
    gripper: GripperConvention | str
    unnorm_key: str
    policy_hash: str
    preprocessing_hash: str
    computation: str = ""
    rotation: RotationConvention | str = ""
    proprio_dim: int = 0
    chunk: int = 1
    cameras: tuple[str, ...] = ("agentview",)
    support: str = DEFAULT_SUPPORT
    logp_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.gripper:
            object.__setattr__(self, "gripper", parse_convention(GripperConvention, self.gripper))
        if self.rotation:
            object.__setattr__(self, "rotation", parse_convention(RotationConvention, self.rotation))
        clauses = [] if self.chunk >= 1 else [f"a chunk of {self.chunk} actions"]
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            clauses.append(f"cameras {self.cameras}")
        if not is_logp_scale(self.support, self.logp_temperature):
            clauses.append(f"log-probabilities over {self.support!r} at temperature {self.logp_temperature:g}")
        if clauses:
            raise PolicyError(f"A policy states {' and '.join(clauses)}.", FIX_POLICY)


@dataclass(frozen=True, eq=False)
class ActionBatch:
    """Decisions for a batch of observations, each on a chunk of ``K`` actions.

    Attributes:
        actions: Un-normalized actions, float ``(B, K, D)``.
        tokens: Token ids as chosen (before any clipping), int32 ``(B, K, D)``; None for a policy without tokens.
        logps: Log-probability of each token under ``support`` and ``temperature``, float32 ``(B, K, D)``, or None.
        support: Token ids that the softmax of ``logps`` ran over, as :class:`~grape.core.chunks.Chunks` has it; empty
            without tokens.
        temperature: Temperature of ``logps``; 0 without tokens.
        normalized: The actions before un-normalization, float ``(B, K, D)``; None where the policy has no such thing.

    Raises:
        PolicyError: They are no arrays of one shape ``(B, K, D)``.
    """

    actions: npt.NDArray[np.floating[Any]]
    tokens: npt.NDArray[np.int32] | None = None
    logps: npt.NDArray[np.float32] | None = None
    support: str = DEFAULT_SUPPORT
    temperature: float = 1.0
    normalized: npt.NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) != (self.logps is None):
            raise PolicyError("A policy gave tokens without log-probabilities, or the reverse.", FIX_POLICY)
        if self.tokens is None:
            object.__setattr__(self, "support", "")
            object.__setattr__(self, "temperature", 0.0)
        parts = [part for part in (self.actions, self.tokens, self.logps) if part is not None]
        if foreign := [type(part).__name__ for part in parts if not isinstance(part, np.ndarray)]:
            raise PolicyError(f"A policy gave its decisions as {foreign[0]}, not as NumPy arrays.", FIX_POLICY)
        shapes = {part.shape for part in parts}
        if len(shapes) != 1 or self.actions.ndim != 3:
            raise PolicyError(
                f"A policy gave actions, tokens and log-probabilities of the shapes {sorted(shapes)}, not of one shape "
                "(observations, actions of a chunk, dimensions).",
                FIX_POLICY,
            )

    def row(self, row: int) -> "ActionBatch":
        """One decision, still with its axis of length 1."""
        parts = (self.actions, self.tokens, self.logps, self.normalized)
        actions, tokens, logps, normalized = (None if part is None else part[row : row + 1] for part in parts)
        return ActionBatch(actions, tokens, logps, self.support, self.temperature, normalized)  # type: ignore[arg-type]


class Policy(Protocol):
    """Maps observations to actions, many at a time."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract."""

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Compute a decision for each observation.

        Args:
            observations: ``B`` observations; instructions may differ.
            temperature: 0 decodes greedily; otherwise each token is sampled from ``softmax(logits / temperature)``.
            seeds: One seed a row, needed when sampling; a row's random numbers depend on its seed alone.
        """


@runtime_checkable
class ActionEncoder(Protocol):
    """A policy that gives tokens to actions which it did not sample; its weights are not needed."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract; without weights its hash is empty."""

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""

    def action_tokens(self, actions: npt.NDArray[Any], /) -> npt.NDArray[np.int32]:
        """Token ids of un-normalized actions, int32, of the same shape ``(..., D)``."""


@dataclass(frozen=True, eq=False)
class WeightlessNetwork:
    """A policy's network on PyTorch's meta device: for estimates of what training takes.

    Attributes:
        module: The network, all of whose parameters train.
        towers: The part of it whose outputs :attr:`features` gives.
        inputs: Encoded observations without content, of their number, the tokens of each prompt, and whether they hold
            features instead of images.
        features: Features of encoded observations that hold images.
        token_logps: As :meth:`TrainablePolicy.token_logps`, by :attr:`module`.
        checkpoint_activations: As :meth:`TrainablePolicy.checkpoint_activations`, of :attr:`module`.
        actions: Actions a decision and dimensions of an action, ``(K, D)``.
        rows_beside_prompt: Positions of a sequence that are not the prompt's.
        storage_dtype: Type that the checkpoint's weights are stored in.
        quantized: Names of the linear layers that hold 4-bit weights where that is asked for.
    """

    module: "nn.Module"
    towers: "nn.Module"
    inputs: "Callable[[int, int, bool], Any]"
    features: "Callable[[Any], Tensor]"
    token_logps: "Callable[[Any, Tensor], Tensor]"
    checkpoint_activations: "Callable[[], None]"
    actions: tuple[int, int]
    rows_beside_prompt: int
    storage_dtype: str = "float32"
    quantized: tuple[str, ...] = ()


def sum_executed(logps: "Tensor", executed: "Tensor") -> "Tensor":
    """Sums over the tokens of executed actions, float32 ``(B,)`` with graph; the others have no gradient.

    Args:
        logps: Log-probabilities of tokens, ``(B, K, D)``.
        executed: How many actions of each chunk were executed, int64 ``(B,)``.
    """
    import torch

    played = torch.arange(logps.shape[1], device=logps.device) < executed.to(logps.device)[:, None]
    return torch.where(played[..., None], logps, 0.0).flatten(1).sum(dim=1)


class TrainablePolicy(ABC):
    """A policy with exact log-probabilities: what ``grape train`` needs of it.

    A decision's log-probability is the sum over the tokens of its executed actions. What a policy does not define
    beyond the abstract methods has defaults here.

    Attributes:
        adapter: PEFT's wrapper around :attr:`module` while low-rank adapters stand beside its layers, else None.
    """

    adapter: Any = None

    @property
    @abstractmethod
    def spec(self) -> PolicySpec:
        """The policy's contract. Its ``policy_hash`` must follow the weights, also after training."""

    @property
    @abstractmethod
    def module(self) -> "nn.Module":
        """The network; its parameters that require a gradient are trained."""

    @abstractmethod
    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Compute a decision for each observation, see :meth:`Policy.act`."""

    @abstractmethod
    def encode(self, observations: Sequence[Observation], *, features: "Tensor | None" = None) -> Any:
        """Prepare observations for the network, without gradient.

        Args:
            observations: ``B`` observations.
            features: What :meth:`features` gave for them; then their images are not read.
        """

    @abstractmethod
    def token_logps(self, inputs: Any, tokens: "Tensor") -> "Tensor":
        """Log-probability of action tokens under the support and temperature of the contract.

        Args:
            inputs: What :meth:`encode` gave for ``B`` observations.
            tokens: Action token ids, int64 ``(B, K, D)``.

        Returns:
            float32 ``(B, K, D)``, with graph.
        """

    @abstractmethod
    def save(self, folder: "Path") -> None:
        """Write a checkpoint that the policy's type opens; the folder exists and is empty."""

    @property
    def contract(self) -> PolicySpec:
        """As :attr:`spec`, but the hash of the weights may be empty: to be asked for wherever the hash is not needed.

        By default the same; a policy whose weights take long to hash leaves the hash out.
        """
        return self.spec

    @property
    def action_token_ids(self) -> npt.NDArray[np.int64] | None:
        """Ids of the action tokens, int64 ``(n_bins,)``; None where any id may be one, as by default."""
        return None

    @property
    def evaluation_conventions(self) -> Mapping[str, Any]:
        """What a suite shall do, by name, as in ``SuiteBase.conventions``. By default nothing is stated."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """How it is run, for summaries: JSON values by name. By default nothing."""
        return {}

    def decision_logps(self, inputs: Any, tokens: "Tensor", executed: "Tensor") -> "Tensor":
        """Log-probability of each decision's executed actions.

        Args:
            inputs: What :meth:`encode` gave for ``B`` observations.
            tokens: Action token ids, int64 ``(B, K, D)``.
            executed: How many actions of each chunk were executed, int64 ``(B,)``, 0 to ``K``.

        Returns:
            float32 ``(B,)``, with graph: sums over executed tokens; the others have no gradient.
        """
        return sum_executed(self.token_logps(inputs, tokens), executed)

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction; by default the instruction."""
        return instruction

    def freeze(self) -> "TrainablePolicy":
        """Declare that the weights will not change any more; returns the same policy."""
        self.module.requires_grad_(False)
        return self

    def features(self, observations: Sequence[Observation]) -> "Tensor | None":
        """What parts of the network that no training changes make of observations, ``(B, ...)``, on the CPU.

        They are computed once and given to :meth:`encode`. By default there are none.
        """
        return None

    def weightless(self, dtype: "torch.dtype") -> "WeightlessNetwork | None":
        """The network without memory for its weights, to estimate a training; by default None: there is no estimate.

        Args:
            dtype: Type of its weights.
        """
        return None

    def prompt_length(self, instruction: str) -> int:
        """Tokens of the prompt that the network reads for an instruction; used for estimates only."""
        return len(self.prompt(instruction))

    def lora_targets(self, which: LoraTargets = "language+projector") -> list[str]:
        """Full names of the linear layers within :attr:`module` that low-rank adapters stand beside.

        Args:
            which: Those of the language model; those and the projectors; or all, also those of the vision towers.

        Raises:
            SettingsError: The policy has no adapters, as by default.
        """
        raise SettingsError("This kind of policy cannot be trained with adapters.", "Leave --lora-rank out.")

    def checkpoint_activations(self) -> None:
        """Keep less for the backward pass and compute it again.

        Raises:
            SettingsError: The policy cannot, as by default.
        """
        raise SettingsError(
            "This kind of policy cannot compute activations again.", "Leave --activation-checkpointing out."
        )


class ImitationPolicy(TrainablePolicy):
    """A policy that also learns from demonstrations: what ``grape sft`` needs of it."""

    @abstractmethod
    def encode(
        self, observations: Sequence[Observation], *, features: "Tensor | None" = None, crop: bool = True
    ) -> Any:
        """See the base class; ``crop=False`` leaves a center crop out, for images that were cropped at random."""

    @abstractmethod
    def imitation_losses(
        self, inputs: Any, labels: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], width: float
    ) -> "tuple[Tensor, Tensor]":
        """Cross-entropy of demonstrated actions.

        Args:
            inputs: What :meth:`encode` gave for ``B`` observations.
            labels: Un-normalized actions, float32 ``(B, K, D)``.
            inside: Which of them lie within the episode, bool ``(B, K)``, the first one of each row always; the others
                are not learned.
            width: Standard deviation of a label, in bins; 0 learns one token.

        Returns:
            Mean cross-entropy over a row's tokens, with graph, and the share of its tokens that are the likeliest,
            both float32 ``(B,)``.
        """

    def check_imitation(self) -> None:
        """Raise a SettingsError where the policy cannot learn from demonstrations after all; by default it can."""

    def fitted(self, data: "DataFacts") -> "ImitationPolicy":
        """The same network, stating the statistics, gripper and crop of what it will learn; by default no change."""
        return self

    def resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """An image ``(H, W, 3)`` at the size that the network reads, where it is augmented; by default as it is."""
        return image
