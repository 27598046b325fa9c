"""Objectives over single episodes: KTO, and group advantages with a clipped sequence ratio.

Both see an episode through one number, the log-ratio of its sampled actions, so the exact gradient of
:mod:`grape.training.gradients` holds for them as it does for pairs. An episode brings one signed weight that is
settled before training: its advantage, or for KTO ``lambda_D`` where it is desirable and ``-lambda_U`` where it is not.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from grape.core.preferences import Score
from grape.preferences.pairing import ROUNDING

__all__ = [
    "Reward",
    "clipped_loss",
    "kto_loss",
    "kto_weights",
    "leave_one_out",
    "reference_point",
    "sequence_ratio",
    "weigh_episodes",
]

Reward = Literal["gcpg", "success"]


def reference_point(log_ratio_P: Tensor) -> float:
    """KTO's reference point z0 in nats: the mean log-ratio of the update's own episodes, 0 at least, without graph.

    The paper (arXiv 2402.01306) and TRL estimate ``KL(policy || reference)`` from mismatched pairs, the
    output of one prompt under the prompt of another, and cut the mean log-ratio off at 0. An action sequence under the
    images of another episode is nothing that a policy could do, so here the update's own episodes stand for them.
    These were sampled from the reference, under which the mean log-ratio is ``-KL(reference || policy)`` in
    expectation. So z0 is above 0 only where the policy raises most of what was recorded: then it keeps the desirable
    episodes from saturating first. Otherwise it is 0, and an episode's gain is measured against the reference policy.

    Args:
        log_ratio_P: ``S - R`` of each episode of the update.
    """
    return max(0.0, float(log_ratio_P.detach().mean()))


def kto_loss(log_ratio_P: Tensor, weights_P: Tensor, beta: float, z0: float) -> Tensor:
    """``lambda_y (1 - sigmoid(+-beta (log_ratio - z0)))``: KTO (arXiv 2402.01306).

    Args:
        log_ratio_P: ``S - R`` of each episode, ``(P,)``.
        weights_P: ``lambda_D`` of desirable episodes, ``-lambda_U`` of undesirable ones.
        beta: Inverse temperature of the implicit reward.
        z0: The reference point, nats; a constant of the update.
    """
    return weights_P.abs() * torch.sigmoid(-weights_P.sign() * beta * (log_ratio_P - z0))


def sequence_ratio(log_ratio_P: Tensor, tokens_P: Tensor) -> Tensor:
    """``exp((S - R) / tokens)``: the length-normalized importance ratio of GSPO (arXiv 2507.18071).

    The ratio of whole trajectories, ``exp(S - R)``, leaves every clipping range after a few updates, since hundreds of
    tokens add up; ratios of single tokens are no function of ``S``.
    """
    return torch.exp(log_ratio_P / tokens_P)


def clipped_loss(ratio_P: Tensor, advantages_P: Tensor, clip_range: float) -> Tensor:
    """``-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)`` (PPO's clipped objective, arXiv 1707.06347, equation 7).

    Args:
        ratio_P: Importance ratio of each episode.
        advantages_P: Advantage of each episode.
        clip_range: eps. An episode stops to pull once the policy has gone this far with it in the right direction.
    """
    clipped_P = ratio_P.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio_P * advantages_P, clipped_P * advantages_P)


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
    count, wanted = len(desirable), sum(desirable)
    share = desirable_weight / (1 + desirable_weight)
    up, down = count * share / wanted, -count * (1 - share) / (count - wanted)
    return [up if kind else down for kind in desirable]


def weigh_episodes(
    method: Literal["kto", "rloo"], states: Sequence[Sequence[Score]], reward: Reward, desirable_weight: float = 1.0
) -> list[tuple[Score, float]]:
    """The episodes that take part, and their signed weights.

    With ``rloo`` a weight is the advantage, divided by one number for all states so that the root of the mean square
    is 1: states where much is at stake keep a louder voice than those where little is, and the learning rate means the
    same on every data set. Division by each state's own standard deviation would take that apart (arXiv 2503.20783).
    With ``kto`` an episode is desirable where it succeeded, or, by R_GCPG, where its advantage is positive.

    Args:
        method: The objective.
        states: Scores of each initial state, of one instruction and one policy a state.
        reward: ``gcpg`` is R_GCPG, by which equal outcomes differ, too; ``success`` is 1 or 0, and episodes of unknown
            outcome take no part.
        desirable_weight: For KTO, see :func:`kto_weights`.

    Returns:
        Scores with their weights, none of which is 0; empty where no state has two episodes of different reward, or,
        for KTO, where there is one kind of episode only.
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
        return [(score, weight) for (score, _), weight in zip(apart, kto_weights(kinds, desirable_weight), strict=True)]
    scale = math.sqrt(math.fsum(value * value for _, value in apart) / len(apart))
    return [(score, value / scale) for score, value in apart]
