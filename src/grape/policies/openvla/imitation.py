"""Cross-entropy of demonstrated actions, spread over action bins."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["bin_losses"]


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
