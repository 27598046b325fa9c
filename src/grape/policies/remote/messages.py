"""What travels between a policy server and its clients, as the values that :mod:`~grape.policies.remote.packing` packs.

The server speaks first, once: a map about its policy (:class:`ServerFacts` under ``grape``). Then a client asks and the
server answers, one message each. There are two kinds of questions:

- An observation of one robot, a flat or nested map as openpi's clients send it; ``grape.serving`` says with which keys.
  It is answered by ``actions``, ``(K, D)``, and where the policy has them ``tokens`` and ``logps`` of the same shape.
  An error is answered by a text message, as openpi's servers do.
- What GRAPE's own client asks, a map with ``grape``: ``decide`` for a batch with its temperature and seeds, or
  ``prompt``. Decisions come back whole (:func:`decision_message`), an error as a map with ``error``.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import grape.core.errors
from grape.core.errors import CompatibilityError, DataError, GrapeError, PolicyError, SettingsError
from grape.core.reading import decode
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, PolicySpec

__all__ = [
    "PROTOCOL",
    "ServerFacts",
    "check_image",
    "check_text",
    "checked_observation",
    "decide_message",
    "decision_message",
    "error_message",
    "facts_message",
    "prompt_message",
    "raise_error",
    "read_decision",
    "read_facts",
    "read_observations",
    "read_sampling",
]

PROTOCOL = 1
_LONGEST_TEXT = 20_000
_MOST_CAMERAS = 16
_RAISED = {error.__name__: error for error in (PolicyError, SettingsError, CompatibilityError, DataError)}
_FIX_SERVER = "Ask a server of this release of GRAPE: grape serve --policy DIR"


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself and its policy.

    Attributes:
        protocol: Version of the messages.
        release: Release of GRAPE.
        type: Type of the policy, e.g. ``"openvla"``.
        spec: The policy's contract.
        conventions: What a suite shall do, by name, as the policy states it.
        facts: How it is run: JSON values by name.
        provenance: Initial states that it was trained or chosen on, as :mod:`grape.core.provenance` writes them.
        message_bytes: Size of the largest message that it takes.
    """

    protocol: int
    release: str
    type: str
    spec: PolicySpec
    conventions: Mapping[str, Any]
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    message_bytes: int


def facts_message(facts: ServerFacts, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The message that a server begins with.

    Args:
        facts: Of the server.
        keys: With which keys it takes a robot's observations.
    """
    spec = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(facts.spec).items()}
    plain = {name: str(value) if isinstance(value, str) else value for name, value in spec.items()}
    named = {name: dict(getattr(facts, name)) for name in ("conventions", "facts", "provenance")}
    return {
        "grape": {**vars(facts), **named, "spec": plain},
        "action_horizon": facts.spec.chunk,
        "action_dim": facts.spec.action_dim,
        "observation_keys": dict(keys),
    }


def read_facts(message: Any, url: str) -> ServerFacts:
    """Inverse of :func:`facts_message`.

    Args:
        message: What was received first.
        url: Where from, for messages.

    Raises:
        CompatibilityError: The sender is no server of GRAPE's, or one of another protocol.
        DataError: It says of its policy what cannot be.
        PolicyError: The contract is none.
    """
    stated = message.get("grape") if isinstance(message, dict) else None
    if not isinstance(stated, dict):
        like = " It may be openpi's own server." if isinstance(message, dict) else ""
        raise CompatibilityError(
            f"The server at {url} does not say which policy it serves.{like}",
            "Only a server that states a hash of its policy can be collected or evaluated from: "
            "grape serve --policy DIR",
        )
    if stated.get("protocol") != PROTOCOL:
        raise CompatibilityError(
            f"The server at {url} speaks version {str(stated.get('protocol'))[:20]} of the protocol, GRAPE here "
            f"{PROTOCOL}.",
            "Install the same release of GRAPE on both machines.",
        )
    try:
        facts = decode(ServerFacts, stated, f"What the server at {url} says of its policy", _FIX_SERVER)
    except (TypeError, RecursionError) as error:
        raise DataError(f"What the server at {url} says of its policy is no plain value.", _FIX_SERVER) from error
    if not facts.spec.policy_hash:
        raise CompatibilityError(
            f"The server at {url} states no hash of its policy, by which results are told apart.",
            "Its policy type must state a policy_hash.",
        )
    return facts


def decide_message(
    observations: Sequence[Observation], temperature: float, seeds: Sequence[int] | None
) -> dict[str, Any]:
    """The question for decisions on a batch; arguments as of ``Policy.act``."""
    rows = [
        {
            "image": observation.image,
            "cameras": dict(observation.cameras),
            "proprio": observation.proprio,
            "instruction": observation.instruction,
        }
        for observation in observations
    ]
    numbers = None if seeds is None else [int(seed) for seed in seeds]
    return {"grape": "decide", "observations": rows, "temperature": float(temperature), "seeds": numbers}


def prompt_message(instruction: str) -> dict[str, Any]:
    """The question for the text that the network reads for an instruction."""
    return {"grape": "prompt", "instruction": instruction}


def read_observations(message: Mapping[str, Any], spec: PolicySpec) -> list[Observation]:
    """The batch of a :func:`decide_message`.

    Raises:
        DataError: It is none.
        CompatibilityError: An image or the robot's state is not what the policy reads.
    """
    rows = message.get("observations")
    if not isinstance(rows, list) or not rows:
        raise DataError("A question for decisions holds no observations.", "Send at least one.")
    return [_observation(row, spec) for row in rows]


def _observation(row: Any, spec: PolicySpec) -> Observation:
    if not isinstance(row, dict):
        raise DataError("An observation is no map.", "Send image, cameras, proprio and instruction.")
    cameras, proprio = row.get("cameras", {}), row.get("proprio")
    if not isinstance(cameras, dict) or len(cameras) > _MOST_CAMERAS:
        raise DataError("The images of further cameras are no map by name.", "Send {name: image}.")
    if not isinstance(proprio, np.ndarray):
        raise DataError("The robot's state is no array.", "Send float32 numbers, or an empty array.")
    image = check_image(row.get("image"), "the main camera's image")
    further = {str(name): check_image(pixels, f"camera {name}'s image") for name, pixels in cameras.items()}
    return checked_observation(Observation(image, proprio, check_text(row.get("instruction")), further), spec)


def check_image(pixels: Any, what: str) -> Any:
    """An RGB image, uint8 ``(H, W, 3)``.

    Raises:
        DataError: It is none.
    """
    fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.size > 0
    if not fits or pixels.shape[2] != 3:
        given = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"What is sent as {what} is {given}.", "Send an RGB image, uint8 (height, width, 3).")
    return pixels


def check_text(text: Any) -> str:
    """An instruction.

    Raises:
        DataError: It is no text, or too long for one.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise DataError(f"An instruction is no text of at most {_LONGEST_TEXT:,} characters.", "Send text.")
    return text


def checked_observation(observation: Observation, spec: PolicySpec) -> Observation:
    """An observation with all that the policy reads, its state as float32.

    Raises:
        CompatibilityError: A camera is missing, or the robot's state has another dimension.
        DataError: The robot's state is no vector of finite numbers.
    """
    observation.images(spec.cameras)
    proprio = np.asarray(observation.proprio, np.float32)
    if proprio.ndim != 1 or not np.isfinite(proprio).all():
        raise DataError("The robot's state is no vector of finite numbers.", "Send float32 numbers (P,).")
    if spec.proprio_dim and len(proprio) != spec.proprio_dim:
        raise CompatibilityError(
            f"The policy reads {spec.proprio_dim} numbers of the robot's state; {len(proprio)} are sent.",
            "Send the state that it was trained with.",
        )
    return dataclasses.replace(observation, proprio=proprio)


def read_sampling(message: Mapping[str, Any], rows: int) -> tuple[float, list[int] | None]:
    """Temperature and seeds of a question.

    Raises:
        DataError: The temperature is no number from 0 on, or there is not one seed for each row where it samples.
    """
    temperature, seeds = message.get("temperature", 0.0), message.get("seeds")
    if not isinstance(temperature, int | float) or not 0.0 <= temperature < 1e6:
        raise DataError(f"The temperature is {str(temperature)[:40]!r}.", "Send a number, 0 for the likeliest action.")
    if seeds is None and temperature == 0:
        return float(temperature), None
    sound = isinstance(seeds, list) and len(seeds) == rows
    if not sound or not all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds):  # type: ignore[union-attr]
        raise DataError(
            f"A question at temperature {temperature:g} has not one seed for each of its {rows} observation(s).",
            "Send whole numbers from 0 on, below 2^63.",
        )
    return float(temperature), seeds


def decision_message(batch: ActionBatch) -> dict[str, Any]:
    """The answer to a question for decisions."""
    return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}


def read_decision(message: Mapping[str, Any], url: str) -> ActionBatch:
    """Inverse of :func:`decision_message`; its shapes are compared with the contract where decisions are used.

    Raises:
        DataError: It is none.
        PolicyError: Its arrays do not fit one another.
    """
    names = [field.name for field in dataclasses.fields(ActionBatch)]
    arrays, optional = ("actions", "tokens", "logps", "normalized"), ("tokens", "logps", "normalized")
    sound = all(
        isinstance(message.get(name), np.ndarray) or (name in optional and message.get(name) is None) for name in arrays
    )
    if not sound or type(message.get("support")) is not str or type(message.get("temperature")) is not float:
        raise DataError(f"The server at {url} answered with no decision.", _FIX_SERVER)
    return ActionBatch(**{name: message[name] for name in names if name in message})


def error_message(error: GrapeError) -> dict[str, Any]:
    """The answer to a question that cannot be answered."""
    kind = next((name for name, raised in _RAISED.items() if isinstance(error, raised)), "PolicyError")
    return {"error": {"kind": kind, "message": error.message, "hint": error.hint}}


def raise_error(error: Any, url: str) -> None:
    """Raise what a server answered in place of a decision.

    Raises:
        GrapeError: Always.
    """
    facts = error if isinstance(error, dict) else {"message": error}
    kind = _RAISED.get(str(facts.get("kind")), PolicyError)
    message = grape.core.errors.shortened(str(facts.get("message", "it does not say why")))
    raise kind(f"The server at {url} refused: {message}", grape.core.errors.shortened(str(facts.get("hint", ""))))
