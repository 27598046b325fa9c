"""The losses, as pure functions of sums over trajectories.

Every loss here depends on a trajectory only through the sum of its log-probabilities. That is what makes the exact
gradient at constant memory possible (see :mod:`grape.training.gradients`): ``dL/dS`` is one number a side. All sums
are float64, because a trajectory adds hundreds of float32 terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "WINDOW",
    "Loss",
    "LossSettings",
    "TrajectorySums",
    "coefficients",
    "hinge_loss",
    "imitation_loss",
    "ipo_loss",
    "preference_loss",
    "sigmoid_loss",
]

# Steps of the windows that the first public implementation optimised; length normalisation reproduces their scale.
WINDOW = 8


@dataclass(frozen=True, eq=False)
class TrajectorySums:
    """What a loss knows of ``P`` comparisons; every field has shape ``(P,)``.

    Attributes:
        chosen_P: S_w, summed log-probability of the chosen side under the policy, float64.
        rejected_P: S_l, the same of the rejected side.
        chosen_reference_P: S_w under the reference policy.
        rejected_reference_P: S_l under the reference policy.
        chosen_steps_P: Steps of the chosen side.
        rejected_steps_P: Steps of the rejected side; 0 where there is none.
    """

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_reference_P: Tensor
    rejected_reference_P: Tensor
    chosen_steps_P: Tensor
    rejected_steps_P: Tensor

    def pair(self, index: int) -> "TrajectorySums":
        """The comparison at ``index`` alone, still with a leading axis."""
        return TrajectorySums(*(getattr(self, item.name)[index : index + 1] for item in fields(self)))


@dataclass(frozen=True)
class LossSettings:
    """Which preference loss.

    Attributes:
        loss_type: Kind of loss.
        beta: Inverse temperature of the implicit reward, positive.
        length_normalised: Scale each side by ``8 / T``.
        label_smoothing: Assumed share of flipped labels, in [0, 0.5); sigmoid only.
        nll_weight: Weight of the negative log-likelihood of the chosen side, mean per token.
        tokens_per_step: Action tokens a step, D.
    """

    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    beta: float = 0.1
    length_normalised: bool = False
    label_smoothing: float = 0.0
    nll_weight: float = 0.0
    tokens_per_step: int = 7


Loss = Callable[[TrajectorySums], tuple[Tensor, dict[str, float]]]


def sigmoid_loss(d_P: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``-log sigmoid(d)``: L_TPO of arXiv 2411.19309, and conservative DPO with smoothing (arXiv 2305.18290).

    Args:
        d_P: Scaled difference of log-ratios, ``beta * ((S_w - R_w) - (S_l - R_l))``.
        label_smoothing: Weight of the flipped label.
    """
    return -(1 - label_smoothing) * F.logsigmoid(d_P) - label_smoothing * F.logsigmoid(-d_P)


def hinge_loss(d_P: Tensor) -> Tensor:
    """``max(0, 1 - d)``: SLiC's loss (arXiv 2305.10425) on log-ratios to the reference (arXiv 2309.06657)."""
    return F.relu(1 - d_P)


def ipo_loss(h_P: Tensor, beta: float) -> Tensor:
    """``(h - 1 / (2 beta))^2``: identity preference optimisation (arXiv 2310.12036, equation 17).

    Args:
        h_P: Difference of log-ratios without beta.
        beta: The paper's tau.
    """
    return (h_P - 1 / (2 * beta)).square()


def preference_loss(sums: TrajectorySums, settings: LossSettings) -> tuple[Tensor, dict[str, float]]:
    """Mean preference loss over the pairs, with the anchor.

    ``L = mean_P loss(d) + nll_weight * mean_P(-S_w / (T_w D))`` where
    ``d = beta * ((S_w - R_w) - (S_l - R_l))`` (arXiv 2411.19309); with length normalisation each side's log-ratio is
    multiplied by ``8 / T`` of that side. The anchor is that of RPO (arXiv 2404.19733).

    Returns:
        The loss, a scalar with graph, and metrics under TRL's names; ``saturation`` is the mean of ``sigmoid(-d)``:
        the share of its full strength at which the sigmoid loss still pulls.
    """
    scale_w_P, scale_l_P = torch.ones_like(sums.chosen_P), torch.ones_like(sums.rejected_P)
    if settings.length_normalised:
        scale_w_P, scale_l_P = WINDOW / sums.chosen_steps_P, WINDOW / sums.rejected_steps_P
    ratio_w_P = (sums.chosen_P - sums.chosen_reference_P) * scale_w_P
    ratio_l_P = (sums.rejected_P - sums.rejected_reference_P) * scale_l_P
    h_P = ratio_w_P - ratio_l_P
    d_P = settings.beta * h_P
    if settings.loss_type == "sigmoid":
        loss_P = sigmoid_loss(d_P, settings.label_smoothing)
    elif settings.loss_type == "hinge":
        loss_P = hinge_loss(d_P)
    else:
        loss_P = ipo_loss(h_P, settings.beta)
    nll_P = -sums.chosen_P / (sums.chosen_steps_P * settings.tokens_per_step)
    preference, nll = loss_P.mean(), nll_P.mean()
    loss = preference + settings.nll_weight * nll
    with torch.no_grad():
        metrics = {
            "loss": loss,
            "loss/preference": preference,
            "loss/nll": nll,
            "rewards/chosen": (settings.beta * ratio_w_P).mean(),
            "rewards/rejected": (settings.beta * ratio_l_P).mean(),
            "rewards/accuracies": (d_P > 0).double().mean(),
            "rewards/margins": d_P.mean(),
            "logps/chosen": sums.chosen_P.mean(),
            "logps/rejected": sums.rejected_P.mean(),
            "saturation": torch.sigmoid(-d_P).mean(),
        }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def imitation_loss(sums: TrajectorySums, tokens_per_step: int) -> tuple[Tensor, dict[str, float]]:
    """Mean negative log-likelihood per token of the chosen sides: filtered behaviour cloning."""
    loss = (-sums.chosen_P / (sums.chosen_steps_P * tokens_per_step)).mean()
    value = float(loss.detach())
    return loss, {"loss": value, "loss/nll": value, "logps/chosen": float(sums.chosen_P.detach().mean())}


def coefficients(loss: Loss, sums: TrajectorySums) -> tuple[float, dict[str, float], Tensor, Tensor]:
    """Value, metrics and the two derivatives that the gradient needs.

    For the sigmoid loss this is ``dL/dS_w = -beta * sigmoid(-d) / P = -dL/dS_l``; autograd over the scalar makes it
    right for every other loss as well.

    Returns:
        Loss, metrics, ``dL/dS_w`` and ``dL/dS_l``, both float64 ``(P,)``.
    """
    chosen_P = sums.chosen_P.detach().requires_grad_()
    rejected_P = sums.rejected_P.detach().requires_grad_()
    leaves = TrajectorySums(
        chosen_P,
        rejected_P,
        sums.chosen_reference_P,
        sums.rejected_reference_P,
        sums.chosen_steps_P,
        sums.rejected_steps_P,
    )
    with torch.enable_grad():
        value, metrics = loss(leaves)
    d_chosen_P, d_rejected_P = torch.autograd.grad(value, (chosen_P, rejected_P), allow_unused=True)
    zero_P = torch.zeros_like(chosen_P)
    return (
        float(value.detach()),
        metrics,
        zero_P if d_chosen_P is None else d_chosen_P,
        zero_P if d_rejected_P is None else d_rejected_P,
    )
