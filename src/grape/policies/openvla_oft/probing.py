"""How likely recorded actions are under each convention that a checkpoint may have been trained with.

What the network computes depends on four conventions: attention, stop row, tail of the prompt, center crop. They, or
plain OpenVLA's one action in place of a chunk, are a :class:`~grape.policies.probes.Reading`. Support and temperature
only rescale its logits; image preprocessing and idle steps are the suite's and lie behind recorded images. So readings
are compared on one footing, the softmax over the window of action tokens at temperature 1, and each forward pass gives
the other footings as well.
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, PolicyError
from grape.policies.kinds import CheckpointKind
from grape.policies.opening import read_checkpoint_kind, resolve_policy
from grape.policies.openvla.action_tokens import rotation_of
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.openvla_oft.conventions import PRESETS, Conventions
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy, read_oft_policy, with_conventions
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.probes import FOOTING, Candidate, Footing, ProbeBatch, ProbeScore, Reading, Variation
from grape.policies.types import OpeningOptions

__all__ = ["OFTProbe", "open_probe"]

_FURTHER_FOOTINGS: Mapping[str, Footing] = {
    "support": Footing("vocabulary", 1.0),
    "temperature": Footing("window", 1.6),
}
"""The same with another support, and with another temperature."""

_HINTS = get_type_hints(Conventions)
_VALUES: Mapping[str, tuple[Any, ...]] = {
    **{name: get_args(_HINTS[name]) for name in ("attention", "stop_row", "prompt_tail")},
    "center_crop": (True, False),
}
"""Conventions that change what the network computes, with all their values."""
_NOT_VARIED = {
    "image_preprocessing": "recorded images went through the preprocessing of the suite that recorded them",
    "idle_steps": "demonstrations begin where their recording begins",
}
_BASE = "openvla-oft"


class OFTProbe:
    """A checkpoint with action tokens, opened once and run under several conventions.

    Args:
        policy: The checkpoint, under any conventions; it may be without weights until :meth:`score`.
        kind: What its files say.

    Its attributes are those of :class:`~grape.policies.probes.Probe`.
    """

    def __init__(self, policy: OFTPolicy, kind: CheckpointKind) -> None:
        self._policy = policy
        self._kind = kind
        self._stated = policy.conventions if kind.stated else None
        self._policies = cache(self._make)
        self.chunk = policy.layout.chunk
        self.action_dim = policy.layout.action_dim
        self.cameras = policy.layout.cameras
        self.proprio_dim = policy.layout.proprio_dim
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
            candidates.append(
                Candidate("openvla", Reading(False, (("center_crop", crop),)), Footing("vocabulary", 1.0))
            )
        return tuple(candidates)

    def variations(self, reading: Reading, instructions: Sequence[str]) -> list[Variation]:
        """Readings that differ from one in a single convention."""
        varied = []
        for name, current in reading.values:
            for value in _VALUES[name]:
                if value != current:
                    varied.append(Variation(name, value, *self._canonical(reading.changed(name, value), instructions)))
        return varied

    def _candidate(
        self, name: str, conventions: Conventions, instructions: Sequence[str], *, stated: bool
    ) -> Candidate:
        values = tuple((item, getattr(conventions, item)) for item in _VALUES)
        reading, problem = self._canonical(Reading(True, values), instructions)
        footing = Footing(conventions.support, conventions.temperature)
        return Candidate(name, reading, footing, conventions.to_json(), stated, problem)

    def _canonical(self, reading: Reading, instructions: Sequence[str]) -> tuple[Reading, str]:
        """The first of the readings whose prompts are the same, and why there are none."""
        if not reading.is_chunked:
            return reading, ""
        try:
            prompts = self._prompts(reading, instructions)
        except PolicyError as error:
            return reading, error.message
        for tail in _VALUES["prompt_tail"]:
            other = reading.changed("prompt_tail", tail)
            with contextlib.suppress(PolicyError):
                if self._prompts(other, instructions) == prompts:
                    return other, ""
        return reading, ""

    def _prompts(self, reading: Reading, instructions: Sequence[str]) -> list[tuple[int, ...]]:
        processor = self._policies(reading).processor
        return [processor.prompt_ids(instruction) for instruction in instructions]

    def _make(self, reading: Reading) -> Any:
        """The policy under a reading; all share the weights."""
        if not reading.is_chunked:
            files = self._policy.files.with_config(self._policy.config.with_center_crop(reading.facts["center_crop"]))
            return OpenVLAPolicy(self._policy.model, files, self.unnorm_key)
        # The widest softmax, from which all others follow.
        return with_conventions(self._policy, Conventions(**reading.facts, support="vocabulary", temperature=1.0))

    @torch.inference_mode()
    def score(self, reading: Reading, batch: ProbeBatch, footings: Sequence[Footing] = ()) -> list[ProbeScore]:
        """Likelihood of demonstrated actions under a reading; see :class:`~grape.policies.probes.Probe`."""
        policy = self._policies(reading)
        policy.model.eval()
        inside_BK = batch.inside
        if not reading.is_chunked:
            tokens_BKD = torch.from_numpy(policy.action_tokens(batch.labels[:, 0]))[:, None]
            inputs = policy.encode_images([images[0] for images in batch.images], batch.instructions)
            logits_BTV, inside_BK = policy.model.action_logits(inputs, tokens_BKD[:, 0]).float(), inside_BK[:, :1]
        else:
            tokens_BKD = torch.from_numpy(policy.action_tokens(batch.labels))
            inputs = policy.encode_images(batch.images, batch.instructions, batch.proprio)
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


def open_probe(path: Path | str, options: OpeningOptions, *, weights: bool) -> OFTProbe:
    """Open a checkpoint to probe it.

    Args:
        path: A folder, or a name on the hub.
        options: How; conventions are what is to be found out.
        weights: Whether to read weights; without, nothing can be scored.

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
    choices = OFTChoices(
        "" if kind.stated else _BASE,
        chunk=options.chunk,
        cameras=options.cameras,
        unnorm_key=options.unnorm_key or None,
    )
    policy = read_oft_policy(resolve_policy(path, weights=False, parts=True), choices)
    if kind.name == "openvla" and policy.config.proprio_dim:
        raise CompatibilityError(
            f"{path} states that it is plain OpenVLA whose network reads the robot's state.",
            "It has no conventions to find out: grape runs it as it was trained.",
        )
    if weights:
        policy = load_oft_policy(
            path,
            choices,
            device=options.device,
            dtype=options.dtype,
            attention=options.attention,
            load_in_4bit=options.load_in_4bit,
        )
    return OFTProbe(policy, kind)
