"""The verb ``predict``: images and an instruction in, one decision out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.checkpoints.settings import PredictSettings
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.image_files import ImageFile, read_image
from grape.core.trajectories import Observation
from grape.policies.base import TrainablePolicy
from grape.policies.deciding import decide
from grape.policies.opening import opening_options
from grape.policies.registry import check_policy_place, contract_of, open_as, recognize_policy

__all__ = ["run_predict"]

_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
"""What OpenVLA's seven dimensions are; a checkpoint does not say."""


def run_predict(settings: PredictSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Decode one decision greedily. Images and the small files are checked before weights are read.

    Returns:
        ``action`` (un-normalized, one number a dimension), ``tokens`` (ids as decoded), ``logps`` (log-probability of
        each under temperature 1 over the whole vocabulary), ``in_range`` (whether each id is an action token; others
        were clipped), ``normalised`` (bin centers in [-1, 1]), ``action_names``, ``logp`` (sum), ``prompt``,
        ``instruction``, ``unnorm_key``, ``center_crop``, "picture" (size and conversions), ``computation`` and
        ``policy``. For OpenVLA-OFT ``actions`` instead of ``action``, and all of these by action and dimension
        (``K`` lists of ``D``); ``images``, one a camera; ``kind``, ``head``, ``preset``, ``conventions``, ``layout``;
        ``support`` and ``temperature`` of the log-probabilities. With an L1 head there are no tokens: ``tokens``,
        ``logps``, ``in_range`` and ``logp`` are null.

    Raises:
        SettingsError: A setting names nothing that is there.
        CompatibilityError: Images, state or statistics are not what the policy reads.
        DataError: An image or the checkpoint cannot be read.
        PolicyError: The network's output is not finite.
    """
    instruction = _clean(settings.instruction)
    check_policy_place(settings.policy)
    if not np.isfinite(settings.proprio).all():
        raise SettingsError(
            "--proprio holds a number that is not finite.", "Give the robot's state as it was recorded."
        )
    images = [read_image(path) for path in (settings.image, *settings.wrist)]
    for path, image in zip((settings.image, *settings.wrist), images, strict=True):
        for note in image.notes:
            reporter.warn(f"{path}: {note}.")
    options = opening_options(settings, cameras=len(images), proprio_dim=len(settings.proprio), crop_by_preset=False)
    # As everywhere in this verb, the file is what the network's processor gets: nothing of an evaluation's own image
    # preprocessing, to which the stacks count the crop, is done to it unasked.
    policy_type, place = recognize_policy(settings.policy, settings.preset)
    for sentence in policy_type.cautions(place, options):
        reporter.info(sentence)
    policy = open_as(policy_type, place, options)
    own, contract = policy if isinstance(policy, TrainablePolicy) else None, contract_of(policy)
    cameras = contract.cameras
    token_ids = own.action_token_ids if own is not None else None
    further = {name: image.pixels for name, image in zip(cameras[1:], images[1:], strict=False)}
    state = np.asarray(settings.proprio, np.float32)
    if (len(images), len(state)) != (due := (len(cameras), contract.proprio_dim)):
        raise CompatibilityError(
            f"{settings.policy} reads {due[0]} image(s) and {due[1]} number(s) of the robot's state; {len(images)} and "
            f"{len(state)} are given.",
            "Give one --image or --wrist a camera, and the state with --proprio where it is read.",
        )
    observation = Observation(images[0].pixels, state, instruction, further)
    batch = decide(policy, contract, [observation], where=f"the image {settings.image}")
    single = policy_type.name == "openvla"
    tokens, logps = (None if part is None else part[0] for part in (batch.tokens, batch.logps))
    normalized = None if batch.normalized is None else batch.normalized[0].astype(np.float64)
    in_range = None if tokens is None or token_ids is None else np.isin(tokens, token_ids)
    if in_range is not None and not in_range.all():
        reporter.warn(
            f"{int((~in_range).sum())} of {in_range.size} tokens are no action tokens and were clipped to the nearest "
            "bin: was this checkpoint trained to act?"
        )
    pictures = [_describe(path, image) for path, image in zip((settings.image, *settings.wrist), images, strict=True)]

    def shown(values: npt.NDArray[Any] | None) -> Any:
        """By action and dimension; by dimension alone for plain OpenVLA."""
        return None if values is None else (values[0] if single else values).tolist()

    return {
        "action" if single else "actions": shown(batch.actions[0]),
        "tokens": shown(tokens),
        "logps": shown(None if logps is None else logps.astype(np.float64)),
        "in_range": shown(in_range),
        "normalised": shown(normalized),
        "action_names": _action_names(batch.actions.shape[2]),
        "logp": None if logps is None else float(logps.sum(dtype=np.float64)),
        **({} if single else {"support": batch.support or None, "temperature": batch.temperature or None}),
        "prompt": policy.prompt(instruction),
        "instruction": instruction,
        **({"picture": pictures[0]} if single else {"images": pictures, "kind": policy_type.name}),
        **({} if single else {"preset": settings.preset or None}),
        "unnorm_key": contract.unnorm_key,
        "computation": contract.computation,
        **(own.facts() if own is not None else {}),
        "policy": settings.policy,
    }


def _describe(path: Path, image: ImageFile) -> dict[str, Any]:
    height, width = image.pixels.shape[:2]
    return {"file": str(path), "height": int(height), "width": int(width), "notes": list(image.notes)}


def _clean(instruction: str) -> str:
    if not instruction.strip():
        raise SettingsError("--instruction is empty.", 'Say what the robot shall do, e.g. "open the drawer".')
    try:
        instruction.encode()
    except UnicodeEncodeError as error:
        raise SettingsError("--instruction is not valid UTF-8 text.", "Check the terminal's encoding.") from error
    return instruction


def _action_names(dim: int) -> list[str]:
    return list(_NAMES) if dim == len(_NAMES) else [str(number) for number in range(dim)]
