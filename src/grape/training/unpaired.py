"""Objectives over single episodes: KTO, and group advantages with a clipped sequence ratio.

Both see an episode through one number, the log-ratio of its sampled actions, so the exact gradient of
:mod:`grape.training.gradients` holds for them as it does for pairs. An episode brings one signed weight that is
settled before training: its advantage, or for KTO ``lambda_D`` where it is desirable and ``-lambda_U`` where it is not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from grape.core.preferences import Score
from grape.preferences.noise import ROUNDING
from grape.training.losses import WINDOW, LossTerms, TrajectorySums

__all__ = [
    "Reward",
    "WeightedEpisode",
    "clipped_values",
    "finish_metrics",
    "group_loss",
    "kto_loss",
    "kto_values",
    "kto_weights",
    "leave_one_out",
    "mean_log_ratio",
    "sequence_ratio",
    "weigh_episodes",
]

Reward = Literal["gcpg", "success"]


@dataclass(frozen=True)
class WeightedEpisode:
    """An episode that a loss sees alone.

    Attributes:
        episode: The episode.
        task: Task name within its suite.
        initial_state: Index of the initial state.
        weight: Advantage; or ``lambda_D`` of a desirable episode, ``-lambda_U`` of an undesirable one. Not 0.
    """

    episode: str
    task: str
    initial_state: int
    weight: float


def kto_values(log_ratio_P: Tensor, weights_P: Tensor, beta: float, z0: float) -> Tensor:
    """``lambda_y (1 - sigmoid(+-beta (log_ratio - z0)))``: KTO (arXiv 2402.01306), ``(P,)``.

    Args:
        log_ratio_P: ``S - R`` of each episode, ``(P,)``.
        weights_P: ``lambda_D`` of desirable episodes, ``-lambda_U`` of undesirable ones.
        beta: Inverse temperature of the implicit reward.
        z0: The reference point, nats; a constant of the update.
    """
    return weights_P.abs() * torch.sigmoid(-weights_P.sign() * beta * (log_ratio_P - z0))


def sequence_ratio(log_ratio_P: Tensor, tokens_P: Tensor) -> Tensor:
    """``exp((S - R) / tokens)``: the length-normalized importance ratio of GSPO (arXiv 2507.18071), ``(P,)``.

    The ratio of whole trajectories, ``exp(S - R)``, leaves every clipping range after a few updates, since hundreds of
    tokens add up; ratios of single tokens are no function of ``S``.
    """
    return torch.exp(log_ratio_P / tokens_P)


def clipped_values(ratio_P: Tensor, advantages_P: Tensor, clip_range: float) -> Tensor:
    """``-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)`` (PPO, arXiv 1707.06347, equation 7), ``(P,)``.

    Args:
        ratio_P: Importance ratio of each episode.
        advantages_P: Advantage of each episode.
        clip_range: eps. An episode stops pulling once the policy has gone this far with it in the right direction.
    """
    clipped_P = ratio_P.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio_P * advantages_P, clipped_P * advantages_P)


def mean_log_ratio(sums: TrajectorySums, *, length_normalized: bool = False) -> float:
    """Mean log-ratio of the episodes, nats, without graph: what KTO's reference point z0 is made of.

    z0 is the mean over the whole update, 0 at least. The paper (arXiv 2402.01306) and TRL estimate
    ``KL(policy || reference)`` from mismatched pairs, the output of one prompt under the prompt of another, and cut the
    mean log-ratio off at 0. An action sequence under the images of another episode is nothing that a policy could do,
    so here the update's own episodes stand for them. These were sampled from the reference, under which the mean
    log-ratio is ``-KL(reference || policy)`` in expectation. So z0 is above 0 only where the policy raises most of what
    was recorded: then it keeps the desirable episodes from saturating first. Otherwise it is 0, and an episode's gain
    is measured against the reference policy.
    """
    return float(_log_ratio(sums, length_normalized).detach().mean())


def kto_loss(
    sums: TrajectorySums,
    beta: float,
    z0: float,
    tokens_per_step: int,
    *,
    anchor: float = 0.0,
    length_normalized: bool = False,
) -> tuple[LossTerms, dict[str, float]]:
    """Mean of :func:`kto_values` over episodes; desirable ones stand on the chosen side, the others on the rejected.

    KTO pulls least at what it has lost most, so that a desirable episode whose likelihood falls with that of longer
    undesirable ones is not brought back. As in :func:`~grape.training.losses.preference_loss`, the term ``anchor``
    imitates the desirable episodes that ``anchored_P`` marks, ``anchor`` times as hard as KTO itself pulls on them at
    the start, where the slope of its loss is ``lambda beta / 4``.

    Args:
        sums: Sums of single episodes.
        beta: Inverse temperature of the implicit reward.
        z0: The reference point, see :func:`mean_log_ratio`.
        tokens_per_step: Action tokens a control step.
        anchor: Strength of the anchor; 0 is the paper's loss.
        length_normalized: Scale each log-ratio by ``8 / T``, T executed control steps, as for pairs.

    Returns:
        The terms, and metrics for :func:`finish_metrics`: ``kl`` is z0, as TRL calls it.
    """
    ratio_P = _log_ratio(sums, length_normalized)
    terms = {"preference": kto_values(ratio_P, _signed_weights(sums), beta, z0).mean()}
    if anchor:
        strength_P = anchor * beta / 4 * _scale(sums, length_normalized)
        terms["anchor"] = (sums.weight_P * sums.anchored_P * strength_P * -sums.chosen_P).mean()
    parts = {f"loss/{name}": float(term.detach()) for name, term in terms.items()}
    metrics = {"loss": sum(parts.values()), **parts, "kl": z0}
    return terms, metrics | _side_metrics(sums, beta * ratio_P, tokens_per_step)


def group_loss(sums: TrajectorySums, clip_range: float, tokens_per_step: int) -> tuple[LossTerms, dict[str, float]]:
    """Mean of :func:`clipped_values` over episodes; a positive advantage is a weight on the chosen side.

    Args:
        sums: Sums of single episodes; the reference is the policy that collected them.
        clip_range: eps.
        tokens_per_step: Action tokens a control step.

    Returns:
        The one term, and metrics for :func:`finish_metrics`: the mean ratio, the share of episodes that clipping
        silences, and as rewards the log-ratios per token.
    """
    log_ratio_P = _log_ratio(sums, length_normalized=False)
    tokens_P = (sums.chosen_steps_P + sums.rejected_steps_P) * tokens_per_step
    ratio_P, advantages_P = sequence_ratio(log_ratio_P, tokens_P), _signed_weights(sums)
    loss = clipped_values(ratio_P, advantages_P, clip_range).mean()
    silent_P = advantages_P.sign() * (ratio_P - 1) > clip_range
    metrics = {
        "loss": float(loss.detach()),
        "ratio/mean": float(ratio_P.detach().mean()),
        "ratio/clipped": float(silent_P.double().mean()),
    }
    return {"preference": loss}, metrics | _side_metrics(sums, log_ratio_P / tokens_P, tokens_per_step)


def finish_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an update from means over all its episodes: those of one side become means over that side.

    A side without episodes in the update has none.
    """
    means = {name: value for name, value in metrics.items() if not name.endswith(("/chosen", "/rejected"))}
    share = means["chosen_share"]
    for side, part in (("chosen", share), ("rejected", 1 - share)):
        if part > ROUNDING:
            names = [name for name in metrics if name.endswith(f"/{side}")]
            means |= {name: metrics[name] / part for name in names}
    if "displacement/chosen" in means:
        means["displacement"] = means.pop("displacement/chosen")
    if "rewards/chosen" in means and "rewards/rejected" in means:
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    return means


def _log_ratio(sums: TrajectorySums, length_normalized: bool) -> Tensor:
    """``S - R`` of each episode, whichever side it stands on."""
    ratio_P = sums.chosen_P - sums.chosen_reference_P + sums.rejected_P - sums.rejected_reference_P
    return ratio_P * _scale(sums, length_normalized)


def _scale(sums: TrajectorySums, length_normalized: bool) -> Tensor:
    """What an episode's log-ratio is multiplied by."""
    steps_P = sums.chosen_steps_P + sums.rejected_steps_P
    return WINDOW / steps_P if length_normalized else torch.ones_like(steps_P)


def _signed_weights(sums: TrajectorySums) -> Tensor:
    return torch.where(sums.chosen_steps_P > 0, sums.weight_P, -sums.weight_P)


@torch.no_grad()
def _side_metrics(sums: TrajectorySums, reward_P: Tensor, tokens_per_step: int) -> dict[str, float]:
    """Means over all episodes in which those of the other side count as 0."""
    chosen_P = (sums.chosen_steps_P > 0).double()
    moved_P = (sums.chosen_P - sums.chosen_reference_P) / (sums.chosen_steps_P.clamp(min=1) * tokens_per_step)
    metrics = {
        "chosen_share": chosen_P,
        "rewards/chosen": reward_P * chosen_P,
        "rewards/rejected": reward_P * (1 - chosen_P),
        "logps/chosen": sums.chosen_P,
        "logps/rejected": sums.rejected_P,
        "displacement/chosen": moved_P,
    }
    return {name: float(value.mean()) for name, value in metrics.items()}


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of the others (RLOO, arXiv 2402.14740); they sum to 0.

    Args:
        rewards: Rewards of two or more episodes of one initial state.
    """
    total, others = math.fsum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def kto_weights(desirable: Sequence[bool], desirable_weight: float = 1.0) -> list[float]:
    """``lambda_D`` for desirable episodes, ``-lambda_U`` for the others; their absolute values are 1 on average.

    The more numerous kind weighs less, so that ``lambda_D n_D = desirable_weight * lambda_U n_U``; advised is a ratio
    of 1 or a little more, 4/3 at most (arXiv 2402.01306). TRL has two weights of 1 that users balance by hand.

    Args:
        desirable: One value an episode, with both kinds among them.
        desirable_weight: Total weight of the desirable episodes, that of the undesirable ones being 1.
    """
    count, desirable_count = len(desirable), sum(desirable)
    share = desirable_weight / (1 + desirable_weight)
    up, down = count * share / desirable_count, -count * (1 - share) / (count - desirable_count)
    return [up if kind else down for kind in desirable]


def weigh_episodes(
    method: Literal["kto", "rloo"], states: Sequence[Sequence[Score]], reward: Reward, desirable_weight: float = 1.0
) -> list[WeightedEpisode]:
    """The episodes that take part, with their signed weights.

    With ``rloo`` a weight is the advantage, divided by one number for all of ``states`` so that the root of the mean
    square is 1, which needs rewards of one calibration: states where much is at stake keep a louder voice than those
    where little is, and the learning rate means the same on every data set. Division by each state's own standard
    deviation would take that apart (arXiv 2503.20783). With ``kto`` an episode is desirable where it succeeded, or, by
    R_GCPG, where its advantage is positive.

    Args:
        method: The objective.
        states: Scores of each initial state, of one instruction and one policy a state.
        reward: ``gcpg`` is R_GCPG, by which equal outcomes differ, too; ``success`` is 1 or 0, and episodes of unknown
            outcome take no part.
        desirable_weight: For KTO, see :func:`kto_weights`.

    Returns:
        The episodes, state by state; none where no state has two episodes of different reward, or, for KTO, where
        there is one kind of episode only.
    """
    advantages: list[tuple[Score, float]] = []
    for members in states:
        known = [score for score in members if reward == "gcpg" or score.success is not None]
        rewards = [score.gcpg if reward == "gcpg" else float(bool(score.success)) for score in known]
        if method == "kto" and reward == "success":
            advantages += zip(known, (1.0 if value else -1.0 for value in rewards), strict=True)
        elif len(known) > 1:
            advantages += zip(known, leave_one_out(rewards), strict=True)
    apart = [(score, value) for score, value in advantages if abs(value) > ROUNDING]
    kinds = [value > 0 for _, value in apart]
    if not any(kinds) or all(kinds):
        return []
    if method == "kto":
        weights = kto_weights(kinds, desirable_weight)
    else:
        scale = math.sqrt(math.fsum(value * value for _, value in apart) / len(apart))
        weights = [value / scale for _, value in apart]
    return [
        WeightedEpisode(score.episode_id, score.task, score.initial_state, weight)
        for (score, _), weight in zip(apart, weights, strict=True)
    ]
