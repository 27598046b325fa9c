"""How likely recorded actions are under each convention that a checkpoint may have been trained with.

What the network computes depends on four conventions: attention, stop row, tail of the prompt, center crop. They, or
plain OpenVLA's one action in place of a chunk, are a :class:`Reading`. Support and temperature only rescale its logits;
image preprocessing and idle steps are the suite's and lie behind recorded images. So readings are compared on one
footing, the softmax over the window of action tokens at temperature 1, and each forward pass gives the other footings
as well.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, PolicyError
from grape.policies.kinds import CheckpointKind
from grape.policies.opening import read_checkpoint_kind, resolve_policy
from grape.policies.openvla.action_tokens import rotation_of
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.openvla.precision import Attention, DType
from grape.policies.openvla_oft.conventions import PRESETS, Conventions
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy, read_oft_policy, with_conventions
from grape.policies.openvla_oft.policy import OFTPolicy

__all__ = [
    "FOOTING",
    "Candidate",
    "Footing",
    "OFTProbe",
    "ProbeBatch",
    "ProbePrecision",
    "ProbeScore",
    "Reading",
    "open_probe",
]


@dataclass(frozen=True)
class Footing:
    """A softmax over the network's logits.

    Attributes:
        support: ``"window"`` or ``"vocabulary"``: what it runs over.
        temperature: What logits are divided by.
    """

    support: str
    temperature: float

    @property
    def name(self) -> str:
        """What files call it, e.g. ``"window, temperature 1.6"``."""
        return f"{self.support}, temperature {self.temperature:g}"


FOOTING = Footing("window", 1.0)
"""What readings are compared on: it gives no candidate an advantage by its own support or temperature."""

_FURTHER_FOOTINGS: Mapping[str, Footing] = {
    "support": Footing("vocabulary", 1.0),
    "temperature": Footing("window", 1.6),
}
"""The same with another support, and with another temperature."""

_VARIED = ("attention", "stop_row", "prompt_tail", "center_crop")
_NOT_VARIED = {
    "image_preprocessing": "recorded images went through the preprocessing of the suite that recorded them",
    "idle_steps": "demonstrations begin where their recording begins",
}
_BASE = "openvla-oft"


@dataclass(frozen=True)
class Reading:
    """What decides the network's output: ``kind`` and the conventions that it reads.

    Attributes:
        kind: ``"openvla-oft"``, or ``"openvla"`` for plain OpenVLA, which reads ``center_crop`` alone.
        attention: As :class:`~grape.policies.openvla_oft.conventions.Conventions` has it, and so the others.
        stop_row: As there.
        prompt_tail: As there.
        center_crop: As there.
    """

    kind: Literal["openvla-oft", "openvla"] = "openvla-oft"
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    stop_row: Literal["kept", "removed"] = "kept"
    prompt_tail: Literal["appended", "written", "none"] = "appended"
    center_crop: bool = True

    @property
    def facts(self) -> dict[str, Any]:
        """JSON mapping of what is read."""
        names = _VARIED if self.kind == "openvla-oft" else ("center_crop",)
        return {name: getattr(self, name) for name in names}

    @property
    def is_chunked(self) -> bool:
        """Whether decisions are on a whole chunk; else on one action."""
        return self.kind == "openvla-oft"

    @property
    def key(self) -> str:
        """A name of its own, e.g. for files."""
        return ",".join([self.kind, *(f"{name}={value}" for name, value in self.facts.items())])


@dataclass(frozen=True)
class Candidate:
    """One way of running the checkpoint that is compared with the others.

    Attributes:
        name: Name of the preset; ``"stated"`` for what the checkpoint states, where no preset is like it; ``"openvla"``
            for plain OpenVLA.
        reading: What it makes the network compute, in its canonical form: readings that give this checkpoint the same
            input are equal.
        footing: Its own support and temperature.
        conventions: All its conventions as JSON values; empty for plain OpenVLA.
        stated: Whether the checkpoint states it.
        problem: Why it cannot be run; empty where it can.
    """

    name: str
    reading: Reading
    footing: Footing
    conventions: Mapping[str, Any] = field(default_factory=dict)
    stated: bool = False
    problem: str = ""


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """Decisions of demonstrations.

    Attributes:
        images: Of each decision the images of the policy's cameras, uint8 ``(H, W, 3)``.
        instructions: One a decision.
        labels_BKD: Demonstrated actions, un-normalized, in the policy's convention, float32.
        inside_BK: Which of them lie within the episode.
        proprio_BP: Robot states; None where the policy reads none.
    """

    images: Sequence[Sequence[npt.NDArray[np.uint8]]]
    instructions: Sequence[str]
    labels_BKD: npt.NDArray[np.float32]
    inside_BK: npt.NDArray[np.bool_]
    proprio_BP: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ProbeScore:
    """How likely the demonstrated actions of one decision are, summed over the dimensions of each action.

    Attributes:
        nll: Negative log-likelihood of each action within the episode on :data:`FOOTING`, nats.
        hits: Of each action the tokens that are the likeliest of the window.
        footings: Negative log-likelihood of all these actions on other footings, nats, by :attr:`Footing.name`.
        outside: Tokens in whose place an id that is no action token is the likeliest of the vocabulary.
    """

    nll: tuple[float, ...]
    hits: tuple[int, ...]
    footings: Mapping[str, float]
    outside: int


class OFTProbe:
    """A checkpoint with action tokens, opened once and run under several conventions.

    Args:
        policy: The checkpoint, under any conventions; it may be without weights until :meth:`score`.
        kind: What its files say.

    Attributes:
        layout: Chunk, cameras, robot state.
        unnorm_key: Statistics in use.
        bins: Action tokens in the window.
        gripper: What the last dimension of its actions means; empty if unknown.
        rotation: What dimensions 3 to 5 mean, as :class:`~grape.policies.base.PolicySpec` has it.
        not_varied: Conventions that recorded images do not tell apart, and why.
        other_footings: Footings that differ from :data:`FOOTING` in one convention, by its name.
    """

    def __init__(self, policy: OFTPolicy, kind: CheckpointKind) -> None:
        self._policy = policy
        self._kind = kind
        self._stated = policy.conventions if kind.stated else None
        self._policies = cache(self._make)
        self.layout = policy.layout
        self.unnorm_key = policy.unnorm_key
        self.bins = len(policy.action_token_ids)
        self.gripper = policy.config.gripper
        self.rotation = rotation_of(policy.unnorm_key)
        self.not_varied: Mapping[str, str] = _NOT_VARIED
        self.other_footings = _FURTHER_FOOTINGS

    @property
    def computation(self) -> str:
        """Where and in what the network computes."""
        return self._policy.computation

    @property
    def policy_hash(self) -> str:
        """Hash of weights and configuration."""
        return self._policy.spec.policy_hash

    def footings(self, more: Sequence[Footing] = ()) -> list[Footing]:
        """All that a forward pass is scored on beside :data:`FOOTING`."""
        return [footing for footing in dict.fromkeys((*self.other_footings.values(), *more)) if footing != FOOTING]

    def token_ids(self, labels: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Token ids of un-normalized actions, of the same shape ``(..., D)``."""
        return self._policy.action_tokens(labels)

    def candidates(self, instructions: Sequence[str]) -> tuple[Candidate, ...]:
        """The presets, what the checkpoint states, and plain OpenVLA where it may be that.

        Args:
            instructions: Those of the demonstrations: their prompts say which tails are alike.
        """
        entries = dict(PRESETS)
        if self._stated is not None and self._stated not in entries.values():
            entries["stated"] = self._stated
        candidates = [
            self._candidate(name, conventions, instructions, stated=conventions == self._stated)
            for name, conventions in entries.items()
        ]
        if self._kind.name == "openvla":
            crop = bool(self._policy.config.center_crop)
            candidates.append(Candidate("openvla", Reading("openvla", center_crop=crop), Footing("vocabulary", 1.0)))
        return tuple(candidates)

    def variations(self, reading: Reading, instructions: Sequence[str]) -> list[tuple[str, Any, Reading, str]]:
        """Readings that differ in one convention: its name, the other value, the reading, and why it cannot be run."""
        hints, varied = get_type_hints(Reading), []
        for name, current in reading.facts.items():
            for value in (True, False) if name == "center_crop" else get_args(hints[name]):
                if value != current:
                    other, problem = self._canonical(dataclasses.replace(reading, **{name: value}), instructions)
                    varied.append((name, value, other, problem))
        return varied

    def conventions(self, reading: Reading, candidate: Candidate) -> Conventions | None:
        """A candidate's conventions with those of a reading; None for plain OpenVLA."""
        if reading.kind == "openvla":
            return None
        own = PRESETS.get(candidate.name) or self._stated
        return None if own is None else dataclasses.replace(own, **reading.facts)

    def _candidate(
        self, name: str, conventions: Conventions, instructions: Sequence[str], *, stated: bool
    ) -> Candidate:
        values = {item: getattr(conventions, item) for item in _VARIED}
        reading, problem = self._canonical(Reading(**values), instructions)
        footing = Footing(conventions.support, conventions.temperature)
        return Candidate(name, reading, footing, conventions.to_json(), stated, problem)

    def _canonical(self, reading: Reading, instructions: Sequence[str]) -> tuple[Reading, str]:
        """The first of the readings whose prompts are the same, and why there are none."""
        if reading.kind == "openvla":
            return reading, ""
        try:
            prompts = self._prompts(reading.prompt_tail, instructions)
        except PolicyError as error:
            return reading, error.message
        for tail in get_args(get_type_hints(Reading)["prompt_tail"]):
            try:
                if self._prompts(tail, instructions) == prompts:
                    return dataclasses.replace(reading, prompt_tail=tail), ""
            except PolicyError:
                continue
        return reading, ""

    def _prompts(self, tail: Any, instructions: Sequence[str]) -> list[tuple[int, ...]]:
        processor = self._policies(Reading(prompt_tail=tail)).processor
        return [processor.prompt_ids(instruction) for instruction in instructions]

    def _make(self, reading: Reading) -> Any:
        """The policy under a reading; all share the weights."""
        if reading.kind == "openvla":
            files = self._policy.files.with_config(self._policy.config.with_center_crop(reading.center_crop))
            return OpenVLAPolicy(self._policy.model, files, self.unnorm_key)
        # The widest softmax, from which all others follow.
        return with_conventions(self._policy, Conventions(**reading.facts, support="vocabulary", temperature=1.0))

    @torch.inference_mode()
    def score(self, reading: Reading, batch: ProbeBatch, footings: Sequence[Footing] = ()) -> list[ProbeScore]:
        """Likelihood of demonstrated actions under a reading, from one forward pass.

        Args:
            reading: How the network is run. Plain OpenVLA scores the first action of each decision only, each token
                given the demonstrated ones before it.
            batch: ``B`` decisions.
            footings: Supports and temperatures beside the usual ones.

        Returns:
            One a decision.

        Raises:
            CompatibilityError: Robot states or cameras are not those that the policy reads.
            PolicyError: The network's output is not finite.
        """
        policy = self._policies(reading)
        policy.model.eval()
        inside_BK = batch.inside_BK
        if reading.kind == "openvla":
            tokens_BKD = torch.from_numpy(policy.action_tokens(batch.labels_BKD[:, 0]))[:, None]
            inputs = policy.encode([images[0] for images in batch.images], batch.instructions)
            logits_BTV, inside_BK = policy.model.action_logits(inputs, tokens_BKD[:, 0]).float(), inside_BK[:, :1]
        else:
            tokens_BKD = torch.from_numpy(policy.action_tokens(batch.labels_BKD))
            inputs = policy.encode(batch.images, batch.instructions, batch.proprio_BP)
            logits_BTV = policy.model.chunk_logits(inputs)
        return self._scores(logits_BTV, tokens_BKD, inside_BK, footings)

    def _scores(
        self, logits_BTV: Tensor, tokens_BKD: Tensor, inside_BK: npt.NDArray[np.bool_], footings: Sequence[Footing]
    ) -> list[ProbeScore]:
        window = self._policy.model.window
        index_BT1 = tokens_BKD.to(device=logits_BTV.device, dtype=torch.long).flatten(1)[..., None]
        spans = {"window": logits_BTV[..., window.start : window.stop], "vocabulary": logits_BTV}
        chosen_BT1 = logits_BTV.gather(-1, index_BT1)

        def nll(footing: Footing) -> npt.NDArray[np.float64]:
            scale_BT1 = (spans[footing.support] / footing.temperature).logsumexp(-1, keepdim=True)
            values_BT = (scale_BT1 - chosen_BT1 / footing.temperature)[..., 0].cpu().double()
            if not bool(torch.isfinite(values_BT).all()):
                raise PolicyError("The policy's logits are not finite.", "Its weights may be damaged: fetch it again.")
            return values_BT.reshape(tokens_BKD.shape).sum(-1).numpy()

        greedy_BT = logits_BTV.argmax(-1)
        outside_BT = (greedy_BT < window.start) | (greedy_BT >= window.stop)
        hits_BT = spans["window"].argmax(-1) + window.start == index_BT1[..., 0]
        by_action = [part.reshape(tokens_BKD.shape).sum(-1).cpu().numpy() for part in (hits_BT, outside_BT)]
        base = nll(FOOTING)
        others = {footing.name: nll(footing) for footing in self.footings(footings)}
        return [
            ProbeScore(
                nll=tuple(base[row][inside].tolist()),
                hits=tuple(by_action[0][row][inside].tolist()),
                footings={name: float(values[row][inside].sum()) for name, values in others.items()},
                outside=int(by_action[1][row][inside].sum()),
            )
            for row, inside in enumerate(inside_BK)
        ]


@dataclass(frozen=True)
class ProbePrecision:
    """Where and how precisely the network computes, as :func:`~grape.policies.openvla.load_policy` takes it."""

    device: str = "cpu"
    dtype: DType = "auto"
    attention: Attention = "sdpa"
    load_in_4bit: bool = False


def open_probe(
    path: Path | str,
    *,
    chunk: int | None = None,
    cameras: int | None = None,
    unnorm_key: str | None = None,
    precision: ProbePrecision | None = None,
) -> OFTProbe:
    """Open a checkpoint to probe it.

    Args:
        path: A folder, or a name on the hub.
        chunk: Actions a decision, where the checkpoint does not say.
        cameras: Number of cameras, where it does not say.
        unnorm_key: Statistics to use, for checkpoints that hold several.
        precision: How to compute; None reads no weights: nothing can be scored then.

    Raises:
        SettingsError: There is no such policy, or it is of a kind that is not run.
        CompatibilityError: It has no action tokens, or was trained here as plain OpenVLA; the chunk, the cameras or the
            statistics are not the checkpoint's.
        DataError: A file is missing, truncated or does not fit the others.
    """
    kind = read_checkpoint_kind(path)
    if kind.head != "tokens":
        raise CompatibilityError(
            f"{path} acts through an L1 regression head ({kind.action_head}): it has no action tokens whose likelihood "
            "could tell conventions apart.",
            "Nothing needs probing: one stack has such checkpoints, and grape runs them as it does (preset "
            f"{_BASE}): grape evaluate --policy {path}",
        )
    choices = OFTChoices("" if kind.stated else _BASE, chunk=chunk, cameras=cameras, unnorm_key=unnorm_key)
    policy = read_oft_policy(resolve_policy(path, weights=False, parts=True), choices)
    if kind.name == "openvla" and policy.config.proprio_dim:
        raise CompatibilityError(
            f"{path} states that it is plain OpenVLA whose network reads the robot's state.",
            "It has no conventions to find out: grape runs it as it was trained.",
        )
    if precision is not None:
        policy = load_oft_policy(path, choices, **dataclasses.asdict(precision))
    return OFTProbe(policy, kind)
