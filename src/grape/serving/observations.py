"""A robot's observation, as openpi's clients send it, and the answer that they expect."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grape.core.errors import DataError, SettingsError
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, PolicySpec
from grape.policies.remote.messages import check_image, check_text, checked_observation
from grape.serving.settings import ServeSettings

__all__ = ["ObservationKeys", "action_answer"]

_IMAGE_KEYS = ("observation/image", "observation/wrist_image")
_STATE_KEYS = ("observation/state",)
_ABSENT = object()


@dataclass(frozen=True)
class ObservationKeys:
    """With which keys a robot's observation is read.

    Attributes:
        images: Key of each camera's image, by the camera's name; the first is the main camera.
        state: Keys of the robot's state, joined in this order; none for a policy that does not read it.
        prompt: Key of the instruction.
        instruction: Instruction for observations that hold none.
    """

    images: Mapping[str, str]
    state: tuple[str, ...]
    prompt: str
    instruction: str = ""

    @classmethod
    def of(cls, settings: ServeSettings, spec: PolicySpec) -> "ObservationKeys":
        """The keys that the settings name, for the cameras of a policy.

        Raises:
            SettingsError: There are not as many keys of images as the policy reads cameras.
        """
        keys = settings.image_keys or _IMAGE_KEYS[: len(spec.cameras)]
        if len(keys) != len(spec.cameras):
            raise SettingsError(
                f"The policy reads {len(spec.cameras)} camera(s) ({', '.join(spec.cameras)}), and there are "
                f"{len(keys)} key(s) of images ({', '.join(keys)}).",
                "Give --image-keys with one key for each camera, in this order.",
            )
        if not settings.prompt_key or "" in (*keys, *settings.state_keys):
            raise SettingsError("A key of observations is empty.", "Give the keys that the robot sends.")
        if settings.state_keys and not spec.proprio_dim:
            raise SettingsError("--state-keys is given, and the policy reads no state.", "Leave it out.")
        state = (settings.state_keys or _STATE_KEYS) if spec.proprio_dim else ()
        return cls(dict(zip(spec.cameras, keys, strict=True)), state, settings.prompt_key, settings.instruction)

    def to_json(self) -> dict[str, Any]:
        """What clients are told."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def read(self, message: Mapping[str, Any], spec: PolicySpec) -> Observation:
        """The observation in a message; entries that no key names are not looked at.

        Args:
            message: A map of entries, or of maps.
            spec: The policy's contract.

        Raises:
            DataError: An entry is missing, or is not what it should be.
            CompatibilityError: The robot's state has another dimension than the policy reads.
        """
        main, *others = (self._image(message, key) for key in self.images.values())
        further = dict(zip(list(self.images)[1:], others, strict=True))
        text = _entry(message, self.prompt)
        if text is _ABSENT:
            if not self.instruction:
                raise self._missing(message, self.prompt, "the instruction", "--prompt-key or --instruction")
            text = self.instruction
        return checked_observation(Observation(main, self._state(message), check_text(text), further), spec)

    def _image(self, message: Mapping[str, Any], key: str) -> Any:
        pixels = _entry(message, key)
        if pixels is _ABSENT:
            raise self._missing(message, key, "an image", "--image-keys")
        is_array = isinstance(pixels, np.ndarray) and pixels.ndim == 3
        if is_array and pixels.shape[0] == 3 and pixels.shape[2] != 3:  # channels first, as some robots have them
            pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        return check_image(pixels, f"{key!r}")

    def _state(self, message: Mapping[str, Any]) -> Any:
        parts = []
        for key in self.state:
            part = _entry(message, key)
            if part is _ABSENT:
                raise self._missing(message, key, "the robot's state", "--state-keys")
            is_number = isinstance(part, np.ndarray | np.generic | float | int)
            numbers = np.asarray(part) if is_number else np.zeros((0, 0))
            if numbers.ndim > 1 or numbers.dtype.kind not in "fiu":
                raise DataError(f"What is sent as {key!r} is no vector of numbers.", "Send an array (P,).")
            parts.append(np.atleast_1d(numbers).astype(np.float32))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _missing(self, message: Mapping[str, Any], key: str, what: str, flag: str) -> DataError:
        names = ", ".join(sorted(str(name)[:60] for name in message)[:20]) or "nothing"
        return DataError(
            f"The observation has no {key!r}, which is {what} here; it has: {names}.",
            f"Send it, or start the server with the robot's own keys: {flag}.",
        )


def _entry(message: Mapping[str, Any], key: str) -> Any:
    """What stands under a key, or under its parts in maps within maps."""
    if key in message:
        return message[key]
    first, slash, rest = key.partition("/")
    inner = message.get(first)
    return _entry(inner, rest) if slash and isinstance(inner, Mapping) else _ABSENT


def action_answer(decision: ActionBatch) -> dict[str, Any]:
    """The answer to one robot: its chunk of actions ``(K, D)``, with tokens and log-probabilities where there are any.

    Args:
        decision: One row.
    """
    named = {"actions": decision.actions, "tokens": decision.tokens, "logps": decision.logps}
    return {name: values[0] for name, values in named.items() if values is not None}
