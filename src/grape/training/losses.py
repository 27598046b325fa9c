"""The losses, as pure functions of sums over trajectories.

Every loss here depends on a trajectory only through the sum of its log-probabilities. That is what makes the exact
gradient at constant memory possible (see :mod:`grape.training.gradients`): ``dL/dS`` is one number a side. All sums
are float64, because a trajectory adds hundreds of float32 terms.

A loss is a sum of named terms, e.g. ``preference`` and ``anchor``; they are returned apart, so that the norm of each
one's gradient can be told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "WINDOW",
    "Loss",
    "LossSettings",
    "LossTerms",
    "TrajectorySums",
    "coefficients",
    "hinge_loss",
    "imitation_loss",
    "ipo_loss",
    "preference_loss",
    "sigmoid_loss",
]

# Control steps of the windows that the first public implementation optimized, one a decision; length normalization
# reproduces their scale. Policies that decide in chunks count executed control steps alike, whatever the chunk.
WINDOW = 8


@dataclass(frozen=True, eq=False)
class TrajectorySums:
    """What a loss knows of ``P`` comparisons; every field is float64 of shape ``(P,)``.

    Attributes:
        chosen_P: S_w, summed log-probability of the chosen side under the policy; 0 where there is none.
        rejected_P: S_l, the same of the rejected side; 0 where there is none.
        chosen_reference_P: R_w, the chosen side's sum under the reference policy.
        rejected_reference_P: R_l, the same of the rejected side.
        chosen_steps_P: Executed control steps of the chosen side; 0 where there is none.
        rejected_steps_P: The same of the rejected side.
        weight_P: Weight of each comparison in the mean, 1 on average over all comparisons of a run.
        anchored_P: 1 where the anchor may imitate the chosen side, else 0.
    """

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_reference_P: Tensor
    rejected_reference_P: Tensor
    chosen_steps_P: Tensor
    rejected_steps_P: Tensor
    weight_P: Tensor
    anchored_P: Tensor

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
        preference_weight: Factor on the preference term, not negative; 0 leaves it out, so that the anchor stays alone.
        anchor: Strength of the anchor, relative to the preference term's at the start (were its factor 1); 0 leaves it
            out.
        nll_weight: Weight of the anchor in its absolute form, the mean negative log-likelihood per token; it replaces
            ``anchor`` unless it is None.
        chosen_floor: DPOP's lambda, not negative: how strongly a chosen side that has become less likely than under
            the reference counts against the pair.
        tokens_per_step: Action tokens a control step, D.
    """

    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    beta: float = 0.1
    length_normalised: bool = False
    label_smoothing: float = 0.0
    preference_weight: float = 1.0
    anchor: float = 0.0
    nll_weight: float | None = None
    chosen_floor: float = 0.0
    tokens_per_step: int = 7

    @property
    def slope(self) -> float:
        """``|d loss / d h|`` at h = 0: how hard the preference term pulls on each side's log-ratio at the start."""
        if self.loss_type == "sigmoid":
            return self.beta * (0.5 - self.label_smoothing)
        return self.beta if self.loss_type == "hinge" else 1 / self.beta


# Terms by name, each a mean over comparisons with graph; the loss is their sum.
LossTerms = Mapping[str, Tensor]
# Terms and metrics. Which terms there are must not depend on the sums. The gradient in one pass needs terms and metrics
# to be means over comparisons.
Loss = Callable[[TrajectorySums], tuple[LossTerms, dict[str, float]]]


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
    """``(h - 1 / (2 beta))^2``: identity preference optimization (arXiv 2310.12036, equation 17).

    Args:
        h_P: Difference of log-ratios without beta.
        beta: The paper's tau.
    """
    return (h_P - 1 / (2 * beta)).square()


def preference_loss(sums: TrajectorySums, settings: LossSettings) -> tuple[LossTerms, dict[str, float]]:
    """Mean preference loss over the pairs, with the anchor.

    The term ``preference`` is ``preference_weight * mean_P weight * loss(h)``, for the sigmoid loss
    ``-log sigmoid(beta * h)``, where ``h = (S_w - R_w) - (S_l - R_l)`` (arXiv 2411.19309); with length normalization
    each side's log-ratio is multiplied by ``8 / T`` of that side, T its own number of executed control steps. A floor
    under the chosen side replaces h by ``h - chosen_floor * max(0, R_w - S_w)`` (DPOP, arXiv 2402.13228, equation 3).

    The term ``anchor`` imitates the chosen sides that ``anchored_P`` marks, as RPO does (arXiv 2404.19733):
    ``mean_P weight * anchor * slope * -S_w``, where slope is the preference loss's own at h = 0 (and the length
    normalization's factor is applied, too). So at the start the anchor pulls ``anchor`` times as hard on a chosen side
    as the preference does, whatever beta and the length are. With ``nll_weight`` it is instead
    ``mean_P weight * nll_weight * -S_w / (T_w D)``.

    Returns:
        The terms, and metrics under TRL's names; ``saturation`` is the mean of ``sigmoid(-d)``, the share of its full
        strength at which the sigmoid loss still pulls; ``displacement`` the mean of ``(S_w - R_w) / (T_w D)``, nats.
    """
    scale_w_P, scale_l_P = torch.ones_like(sums.chosen_P), torch.ones_like(sums.rejected_P)
    if settings.length_normalised:
        scale_w_P, scale_l_P = WINDOW / sums.chosen_steps_P, WINDOW / sums.rejected_steps_P
    ratio_w_P = (sums.chosen_P - sums.chosen_reference_P) * scale_w_P
    ratio_l_P = (sums.rejected_P - sums.rejected_reference_P) * scale_l_P
    h_P = ratio_w_P - ratio_l_P
    margin_P = settings.beta * h_P
    if settings.chosen_floor:
        h_P = h_P - settings.chosen_floor * F.relu(-ratio_w_P)
    d_P = settings.beta * h_P
    if settings.loss_type == "sigmoid":
        loss_P = sigmoid_loss(d_P, settings.label_smoothing)
    elif settings.loss_type == "hinge":
        loss_P = hinge_loss(d_P)
    else:
        loss_P = ipo_loss(h_P, settings.beta)
    tokens_P = sums.chosen_steps_P * settings.tokens_per_step
    terms: dict[str, Tensor] = {}
    if settings.preference_weight:
        terms["preference"] = settings.preference_weight * (sums.weight_P * loss_P).mean()
    weight = settings.anchor * settings.slope if settings.nll_weight is None else settings.nll_weight
    if weight:
        strength_P = weight * (scale_w_P if settings.nll_weight is None else 1 / tokens_P)
        terms["anchor"] = (sums.weight_P * sums.anchored_P * strength_P * -sums.chosen_P).mean()
    with torch.no_grad():
        metrics = {
            "loss": torch.stack(list(terms.values())).sum(),
            "loss/preference": terms.get("preference", torch.zeros(())),
            "loss/anchor": terms.get("anchor", torch.zeros(())),
            "loss/nll": (-sums.chosen_P / tokens_P).mean(),
            "rewards/chosen": (settings.beta * ratio_w_P).mean(),
            "rewards/rejected": (settings.beta * ratio_l_P).mean(),
            "rewards/accuracies": (margin_P > 0).double().mean(),
            "rewards/margins": margin_P.mean(),
            "logps/chosen": sums.chosen_P.mean(),
            "logps/rejected": sums.rejected_P.mean(),
            "displacement": ((sums.chosen_P - sums.chosen_reference_P) / tokens_P).mean(),
            "saturation": torch.sigmoid(-d_P).mean(),
        }
    return terms, {name: float(value.detach()) for name, value in metrics.items()}


def imitation_loss(sums: TrajectorySums, tokens_per_step: int) -> tuple[LossTerms, dict[str, float]]:
    """Mean negative log-likelihood per token of the chosen sides: filtered behavior cloning."""
    loss = (sums.weight_P * -sums.chosen_P / (sums.chosen_steps_P * tokens_per_step)).mean()
    value = float(loss.detach())
    metrics = {"loss": value, "loss/nll": value, "logps/chosen": float(sums.chosen_P.detach().mean())}
    return {"imitation": loss}, metrics


def coefficients(loss: Loss, sums: TrajectorySums) -> tuple[float, dict[str, float], dict[str, tuple[Tensor, Tensor]]]:
    """Value, metrics and the derivatives that the gradient needs.

    For the sigmoid loss without an anchor this is ``dL/dS_w = -beta * sigmoid(-d) / P = -dL/dS_l``; autograd over the
    scalar makes it right for every other loss as well.

    Returns:
        Loss, metrics, and for each term ``dL/dS_w`` and ``dL/dS_l``, both float64 ``(P,)``.
    """
    leaves = replace(
        sums, chosen_P=sums.chosen_P.detach().requires_grad_(), rejected_P=sums.rejected_P.detach().requires_grad_()
    )
    with torch.enable_grad():
        terms, metrics = loss(leaves)
    derivatives = {}
    for name, term in terms.items():
        d_chosen_P, d_rejected_P = torch.autograd.grad(
            term, (leaves.chosen_P, leaves.rejected_P), retain_graph=True, materialize_grads=True, allow_unused=True
        )
        derivatives[name] = (d_chosen_P, d_rejected_P)
    return sum(float(term.detach()) for term in terms.values()), metrics, derivatives
