"""The verb ``predict``: images and an instruction in, one decision out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.checkpoints.settings import PredictSettings
from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.image_files import ImageFile, read_image
from grape.core.trajectories import Observation
from grape.policies.kinds import CheckpointKind
from grape.policies.opening import check_policy_name, crop_of, opening_arguments, read_checkpoint_kind

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
    check_policy_name(settings.policy)
    if not np.isfinite(settings.proprio).all():
        raise SettingsError(
            "--proprio holds a number that is not finite.", "Give the robot's state as it was recorded."
        )
    images = [read_image(path) for path in (settings.image, *settings.wrist)]
    for path, image in zip((settings.image, *settings.wrist), images, strict=True):
        for note in image.notes:
            reporter.warn(f"{path}: {note}.")
    kind = read_checkpoint_kind(settings.policy)
    if settings.preset or kind.name == "openvla-oft":
        return _predict_chunk(settings, kind, images, instruction, reporter)
    from grape.policies.openvla import load_policy, read_policy_config

    needed = read_policy_config(settings.policy).proprio_dim
    settings.refuse_chunks("wrist", *([] if needed else ["proprio"]))
    if len(settings.proprio) != needed:
        raise CompatibilityError(
            f"The policy reads {needed} numbers of the robot's state, {len(settings.proprio) or 'none'} are given.",
            "Give them with --proprio, as the suite records them.",
        )
    policy = load_policy(settings.policy, **opening_arguments(settings))
    batch = policy.act([Observation(images[0].pixels, np.asarray(settings.proprio, np.float32), instruction)])
    if batch.tokens is None or batch.logps is None:
        raise PolicyError("The policy gave no tokens.")
    tokens, logps = batch.tokens[0, 0], batch.logps[0, 0]
    in_range = _in_range(tokens, policy.action_token_ids, reporter)
    return {
        "action": batch.actions[0, 0].tolist(),
        "tokens": tokens.tolist(),
        "logps": [float(value) for value in logps],
        "in_range": in_range,
        "normalised": policy.normalized(tokens).tolist(),
        "action_names": _action_names(policy.norm.dim),
        "logp": float(logps.sum(dtype=np.float64)),
        "prompt": policy.prompt(instruction),
        "instruction": instruction,
        "unnorm_key": policy.unnorm_key,
        "center_crop": policy.config.center_crop,
        "picture": _describe(settings.image, images[0]),
        "computation": policy.computation,
        "policy": settings.policy,
    }


def _predict_chunk(
    settings: PredictSettings, kind: CheckpointKind, images: Sequence[ImageFile], instruction: str, reporter: Reporter
) -> Mapping[str, Any]:
    from grape.policies.openvla_oft.conventions import PRESETS
    from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy

    if kind.name == "openvla":
        reporter.info("Nothing in the checkpoint says that it is OpenVLA-OFT's: it is run as one because of --preset.")
    crop = crop_of(settings.center_crop)
    if crop is None and (settings.preset or not kind.stated):
        # As everywhere in this verb, the file is what the network's processor gets: nothing of an evaluation's own
        # image preprocessing, to which the stacks count the crop, is done to it unasked.
        crop = False
        if settings.preset in PRESETS and PRESETS[settings.preset].center_crop:
            reporter.info(f"An evaluation with {settings.preset} crops images; --center-crop yes does it here, too.")
    choices = OFTChoices(
        settings.preset,
        settings.convention,
        chunk=settings.chunk,
        cameras=len(images),
        unnorm_key=settings.unnorm_key or None,
        center_crop=crop,
        proprio_dim=len(settings.proprio),
    )
    policy = load_oft_policy(
        settings.policy,
        choices,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        load_in_4bit=settings.load_in_4bit,
    )
    state = np.asarray([settings.proprio], np.float64) if settings.proprio else None
    batch = policy.decide(policy.encode_images([[image.pixels for image in images]], [instruction], state))
    tokens, logps = batch.tokens, batch.logps
    return {
        "actions": batch.actions[0].tolist(),
        "tokens": None if tokens is None else tokens[0].tolist(),
        "logps": None if logps is None else logps[0].astype(np.float64).tolist(),
        "in_range": None if tokens is None else _in_range(tokens[0], policy.action_token_ids, reporter),
        "normalised": None if batch.normalized is None else batch.normalized[0].astype(np.float64).tolist(),
        "action_names": _action_names(policy.norm.dim),
        "logp": None if logps is None else float(logps.sum(dtype=np.float64)),
        "support": batch.support or None,
        "temperature": batch.temperature or None,
        "prompt": policy.prompt(instruction),
        "instruction": instruction,
        "unnorm_key": policy.unnorm_key,
        "center_crop": policy.conventions.center_crop,
        "images": [
            _describe(path, image) for path, image in zip((settings.image, *settings.wrist), images, strict=True)
        ],
        "kind": "openvla-oft",
        "head": policy.layout.head,
        "preset": settings.preset or None,
        "conventions": policy.conventions.to_json(),
        "layout": policy.layout.to_json(),
        "computation": policy.computation,
        "policy": settings.policy,
    }


def _in_range(tokens: npt.NDArray[np.int32], known: npt.NDArray[np.int64], reporter: Reporter) -> Any:
    """Whether each id is an action token, as nested lists; says so if some are not."""
    in_range = np.isin(tokens, known)
    if not in_range.all():
        reporter.warn(
            f"{int((~in_range).sum())} of {in_range.size} tokens are no action tokens and were clipped to the nearest "
            "bin: was this checkpoint trained to act?"
        )
    return in_range.tolist()


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
