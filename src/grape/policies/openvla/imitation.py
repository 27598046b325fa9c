"""Learning from demonstrations: cross-entropy of actions spread over bins, and a configuration that states the data."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.types import DataFacts

__all__ = ["bin_losses", "fitted_config"]


def fitted_config(config: OpenVLAConfig, data: DataFacts) -> OpenVLAConfig:
    """A configuration with the statistics and gripper of demonstrations; this very one where it has them already.

    Statistics that the checkpoint holds are kept, since its weights know them; new ones are added and put to use.

    Raises:
        CompatibilityError: The statistics in use belong to another convention of the gripper.
    """
    name = data.unnorm_key
    if data.statistics is not None:
        config = config.with_norm_stats({**config.norm_stats, name: dict(data.statistics)})
        config = config.with_facts(unnorm_key=name, gripper=data.gripper or config.gripper)
    elif data.gripper and config.gripper and data.gripper != config.gripper:
        raise CompatibilityError(
            f"In the demonstrations the last action dimension means {data.gripper!r}, "
            f"to the policy {config.gripper!r}.",
            "Give --norm-key a new name: then the policy takes the demonstrations' statistics and convention.",
        )
    elif len(config.norm_stats) > 1 and config.unnorm_key != name:
        config = config.with_facts(unnorm_key=name)
    return config


def bin_losses(
    logits: Tensor, columns: Tensor, targets: Tensor, inside: npt.NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and share of right tokens of each row.

    Args:
        logits: Logits of ``T`` action tokens over ``V`` ids, ``(B, T, V)``.
        columns: Which of the ``V`` columns each bin is, int64 ``(n_bins,)``, lowest bin first.
        targets: Probability of each bin, float32 ``(B, T, n_bins)``.
        inside: Which tokens count, bool ``(B, T)``, at least one a row.

    Returns:
        Both float32 ``(B,)``, the first with graph. A token is right where the likeliest of all ids is the likeliest
        bin of its target.
    """
    logits_BTV, columns = logits.float(), columns.to(logits.device)
    targets_BTK = targets.to(logits.device)
    inside_BT = torch.from_numpy(np.ascontiguousarray(inside)).to(logits.device)
    lse_BT1 = logits_BTV.logsumexp(dim=-1, keepdim=True)
    logp_BTK = logits_BTV[..., columns] - lse_BT1
    loss_BT = -(targets_BTK * logp_BTK).sum(dim=-1)
    right_BT = (logits_BTV.detach().argmax(dim=-1) == columns[targets_BTK.argmax(dim=-1)]).float()
    if bool(inside_BT.all()):
        return loss_BT.mean(dim=-1), right_BT.mean(dim=-1)
    count_B = inside_BT.sum(dim=-1)
    zero = torch.zeros((), device=logits.device)
    return (
        torch.where(inside_BT, loss_BT, zero).sum(dim=-1) / count_B,
        torch.where(inside_BT, right_BT, zero).sum(dim=-1) / count_B,
    )
