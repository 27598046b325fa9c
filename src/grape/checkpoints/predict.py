"""The verb ``predict``: one image and one instruction in, one action out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from grape.checkpoints.settings import PredictSettings
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.image_files import read_image
from grape.core.trajectories import Observation
from grape.policies.opening import check_policy_name, opening_arguments

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["run_predict"]

_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
"""What OpenVLA's seven dimensions are; a checkpoint does not say."""


def run_predict(settings: PredictSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Decode one action greedily. The image and the small files are checked before weights are read.

    Returns:
        ``action`` (un-normalized, one number a dimension), ``tokens`` (ids as decoded), ``logps`` (log-probability of
        each under temperature 1 over the whole vocabulary), ``in_range`` (whether each id is an action token; others
        were clipped), ``normalised`` (bin centers in [-1, 1]), ``action_names``, ``logp`` (sum), ``prompt``,
        ``instruction``, ``unnorm_key``, ``center_crop``, ``image`` (size and conversions), ``computation`` and
        ``policy``.

    Raises:
        SettingsError: A setting names nothing that is there.
        DataError: The image or the checkpoint cannot be read.
        PolicyError: The network's output is not finite.
    """
    instruction = _clean(settings.instruction)
    check_policy_name(settings.policy)
    image = read_image(settings.image)
    for note in image.notes:
        reporter.warn(f"{settings.image}: {note}.")
    from grape.policies.openvla import load_policy

    policy = load_policy(
        settings.policy,
        **opening_arguments(settings),
    )
    batch = policy.act([Observation(image.pixels, np.zeros(0, np.float32), instruction)])
    in_range = np.isin(batch.tokens[0], policy.action_token_ids)
    if not in_range.all():
        reporter.warn(
            f"{int((~in_range).sum())} of {in_range.size} tokens are no action tokens and were clipped to the nearest "
            "bin: was this checkpoint trained to act?"
        )
    return {
        "action": policy.decode_tokens_exactly(batch.tokens)[0].tolist(),
        "tokens": batch.tokens[0].tolist(),
        "logps": [float(value) for value in batch.logps[0]],
        "in_range": in_range.tolist(),
        "normalised": policy.normalized(batch.tokens)[0].tolist(),
        "action_names": _action_names(policy),
        "logp": float(batch.logps[0].sum(dtype=np.float64)),
        "prompt": policy.prompt(instruction),
        "instruction": instruction,
        "unnorm_key": policy.unnorm_key,
        "center_crop": policy.config.center_crop,
        "picture": {
            "file": str(settings.image),
            "height": int(image.pixels.shape[0]),
            "width": int(image.pixels.shape[1]),
            "notes": list(image.notes),
        },
        "computation": policy.computation,
        "policy": settings.policy,
    }


def _clean(instruction: str) -> str:
    if not instruction.strip():
        raise SettingsError("--instruction is empty.", 'Say what the robot shall do, e.g. "open the drawer".')
    try:
        instruction.encode()
    except UnicodeEncodeError as error:
        raise SettingsError("--instruction is not valid UTF-8 text.", "Check the terminal's encoding.") from error
    return instruction


def _action_names(policy: "OpenVLAPolicy") -> list[str]:
    return list(_NAMES) if policy.norm.dim == len(_NAMES) else [str(number) for number in range(policy.norm.dim)]
