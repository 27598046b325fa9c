"""R_GCPG: three terms that rank the trajectories of one initial state, and what makes them comparable.

``R_GCPG = lambda_1 R_self + lambda_2 R_ext + lambda_3 I_success`` (arXiv 2411.19309, guided-cost preference
generation; published weights 0.01, 0.01, 2). Without calibration this is computed exactly as published: R_self is the
sum of log-probabilities, ``R_ext = exp(-sum_i C_i)``.

Taken literally the published weights silence a term: R_ext lies in (0, 1], so 0.01 R_ext never exceeds 0.01, while
0.01 R_self easily differs by 0.5 between two rollouts of unequal length, and the paper's own ablation says that every
term matters (without R_ext 36.8, without R_self 38.6, without I_success 34.4, with all of them 43.1). Therefore the
calibration, which is on by default, chooses from the data:

- *Normalization.* R_self becomes a mean a step. A sum grows with the number of steps and would mostly say how long a
  trajectory was, which I_success and the efficiency constraints say already.
- *beta* in ``exp(-beta sum_i C_i)``: for each task one over the mean cost, successes and failures counting equally.
  Costs of a long specification would otherwise drive R_ext to 0 for all but a few trajectories, and a term that is 0
  for all ranks none; one scale for all tasks would let a long specification saturate beside a short one. Where the
  scale lies must not depend on how often the policy succeeds, hence the equal counting.
- *lambda_1, lambda_2.* Between a success and a failure of one initial state I_success decides; what the soft terms
  decide is the order among equal outcomes. So what counts is by how much two trajectories of one initial state and one
  outcome typically differ (:func:`typical_spread`). Both soft terms get the same typical difference, so that each
  decides about half of the couples on which they disagree; the proportion of the given lambda_1 and lambda_2 (equal as
  published) is kept. Two other scales were measured to fail: within initial states alone, R_ext's spread is mostly the
  distance between successes and failures; and costs have heavy tails (a stage finished or not), so that with equal
  standard deviations R_self still decides three quarters of the couples.
- *Their size.* The larger standard deviation of the two among equal outcomes becomes ``soft_share * lambda_3``.
- *Noise.* A spread below :data:`NOISE` (a policy that is sampled at a low temperature, a cost that hardly varies) is
  not scaled up to the size of a signal: the weight is that of a spread of :data:`NOISE`.
- *lambda_3* stays as given. With ``soft_share`` 1/4 success differs by at least four standard deviations of either soft
  term: success dominates as with the published weights, yet among equal outcomes, and for near misses against lucky
  flukes, the soft terms speak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "NOISE",
    "PUBLISHED_WEIGHTS",
    "TERMS",
    "Calibration",
    "Normalization",
    "RawTerms",
    "calibrate",
    "couples",
    "external_term",
    "normalize_self",
    "outcome_groups",
    "pooled_spread",
    "typical_spread",
    "weighted_terms",
]

PUBLISHED_WEIGHTS = (0.01, 0.01, 2.0)
"""lambda_1, lambda_2, lambda_3 of arXiv 2411.19309."""

NOISE: Mapping[str, float] = {"self": 0.02, "ext": 0.001}
"""Spreads up to which a term's differences are noise: R_self in nats a decision, R_ext as it is."""

TERMS = ("self", "ext", "success")
"""Names of the terms in the order of their weights."""

Normalization = Literal["raw", "step-mean", "state-standardised", "task-standardised"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_MEDIAN_DIFFERENCE = 0.6744897501960817 * 2.0**0.5
"""Median of the absolute difference of two normally distributed numbers of standard deviation 1."""

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class RawTerms:
    """Unweighted terms of ``E`` episodes.

    Attributes:
        r_self: Sum of log-probabilities, float64 ``(E,)``; NaN where nothing was sampled.
        steps: Number of decisions, ``(E,)``.
        cost: ``sum_i C_i``, not negative, ``(E,)``.
        success: 0 or 1, ``(E,)``; NaN where the outcome is unknown.
        task: Number of the task, ``(E,)``, an index into ``tasks``.
        state: Number of the (task, initial state), unique across tasks, ``(E,)``.
        tasks: Names of the tasks.
        external: R_ext by another scorer than costs, ``(E,)``; None where costs give it.
        external_noise: Spread up to which differences of ``external`` are noise.
    """

    r_self: Float64
    steps: Int64
    cost: Float64
    success: Float64
    task: Int64
    state: Int64
    tasks: tuple[str, ...]
    external: Float64 | None = None
    external_noise: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """What turns raw terms into R_GCPG, and where it comes from.

    Attributes:
        calibrated: Whether the numbers were chosen from data.
        normalisation: How R_self was normalized.
        beta: Scale of costs in ``exp(-beta sum_i C_i)`` of each task.
        weights: lambda_1, lambda_2, lambda_3 of the normalized terms.
        spreads: Spread of each normalized, unweighted term: of R_self and R_ext the typical one among episodes of one
            initial state and one outcome (of one initial state where no two have both), of I_success the standard
            deviation within initial states; None where no two episodes have one or nothing was sampled.
        contributions: The same of the weighted terms: ``weight * spread``.
        states: Initial states with at least two episodes.
        notes: What could not be calibrated, and what happened instead.
    """

    calibrated: bool
    normalisation: Normalization
    beta: Mapping[str, float]
    weights: tuple[float, float, float]
    spreads: Mapping[str, float | None]
    contributions: Mapping[str, float | None]
    states: int
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON value for ``calibration.json``."""
        return {
            "calibrated": self.calibrated,
            "normalisation": self.normalisation,
            "beta": dict(self.beta),
            "spread_within": "initial state and outcome",
            "weights": dict(zip(TERMS, self.weights, strict=True)),
            "spreads": dict(self.spreads),
            "contributions": dict(self.contributions),
            "states": self.states,
            "notes": list(self.notes),
        }


def normalize_self(raw: RawTerms, normalisation: Normalization) -> Float64:
    """R_self on the chosen scale, float64 ``(E,)``; NaN where nothing was sampled.

    ``raw``: the sum over all steps, as published. ``step-mean``: divided by the number of steps.
    ``state-standardised``, ``task-standardised``: the mean a step minus its mean within the initial state or task, over
    its standard deviation there, or over :data:`NOISE` where that is larger. Only with these two is 0 a middling value.
    """
    if normalisation == "raw":
        return raw.r_self.copy()
    mean = raw.r_self / np.maximum(raw.steps, 1)
    if normalisation == "step-mean":
        return mean
    group = raw.state if normalisation == "state-standardised" else raw.task
    centered = _centered(mean, group)
    known = np.isfinite(mean)
    count = np.bincount(group, known)
    variance = np.bincount(group, np.where(known, centered, 0.0) ** 2) / np.maximum(count, 1)
    standardized = centered / np.maximum(np.sqrt(variance), NOISE["self"])[group]
    return np.where(known, standardized, np.nan)


def external_term(raw: RawTerms, beta: Mapping[str, float]) -> Float64:
    """R_ext of each episode, ``(E,)``: another scorer's values where they are given, else ``exp(-beta sum_i C_i)``.

    beta is that of the episode's task; the latter is in (0, 1] even if it underflows.
    """
    if raw.external is not None:
        return raw.external
    scale = np.array([beta[task] for task in raw.tasks])
    return np.maximum(np.exp(-scale[raw.task] * raw.cost), _TINY)


def outcome_groups(raw: RawTerms) -> Int64:
    """Number of each episode's group of equal initial state and outcome, ``(E,)``.

    Within these groups I_success says nothing. All episodes of an initial state with an unknown outcome are one group.
    """
    outcome = np.where(_outcomes_known(raw), np.nan_to_num(raw.success), 2.0).astype(np.int64)
    groups: Int64 = np.unique(3 * raw.state + outcome, return_inverse=True)[1].astype(np.int64)
    return groups


def couples(group: Int64) -> tuple[Int64, Int64]:
    """Indices of both members of every couple of one group; each couple once.

    Args:
        group: Number of the group of each member, ``(E,)``.
    """
    order = np.argsort(group, kind="stable")
    pairs = [
        members[np.stack(np.triu_indices(len(members), k=1))]
        for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    ]
    one, other = np.concatenate(pairs, axis=1)
    return one, other


def pooled_spread(values: Float64, group: Int64) -> float | None:
    """Standard deviation within groups, pooled: ``sqrt(sum (x - mean of its group)^2 / sum (n_group - 1))``.

    Args:
        values: ``(E,)``; NaNs are left out.
        group: Number of the group of each value, ``(E,)``.

    Returns:
        The deviation, 0 where values do not differ beyond rounding; None if no group has two values.
    """
    known = np.isfinite(values)
    if not known.any():
        return None
    count = np.bincount(group[known])
    freedom = float(np.sum(np.maximum(count - 1, 0)))
    if freedom == 0:
        return None
    spread = float(np.sqrt(np.sum(_centered(values[known], group[known]) ** 2) / freedom))
    return spread if spread > 1e-9 * (1.0 + float(np.abs(values[known]).max())) else 0.0


def typical_spread(values: Float64, group: Int64) -> float | None:
    """Half of the couples of one group differ by less: median of ``|x_i - x_j|``, over 0.954.

    That is the standard deviation where values are normally distributed; unlike it, a few far values do not set the
    scale for all others. Couples that do not differ, beyond rounding, do not count.

    Args:
        values: ``(E,)``; NaNs are left out.
        group: Number of the group of each value, ``(E,)``.

    Returns:
        The spread, 0 where no couple differs; None if no group has two values.
    """
    deviation = pooled_spread(values, group)
    if not deviation:
        return deviation
    known = np.isfinite(values)
    one, other = couples(group[known])
    differences = np.abs(values[known][one] - values[known][other])
    rounding = 1e-9 * (1.0 + float(np.abs(values[known]).max()))
    return float(np.median(differences[differences > rounding])) / _MEDIAN_DIFFERENCE


def calibrate(
    raw: RawTerms,
    *,
    weights: Sequence[float] = PUBLISHED_WEIGHTS,
    beta: float | None = None,
    normalisation: Normalization | None = None,
    soft_share: float = 0.25,
    from_data: bool = True,
    keep_weights: bool = False,
) -> Calibration:
    """Choose what makes the terms contribute comparably, see the module's text.

    Args:
        raw: The terms of all episodes.
        weights: lambda_1, lambda_2, lambda_3. Calibration keeps the third and the proportion of the first two.
        beta: Scale of all costs; None chooses one for each task (1 without calibration).
        normalisation: Of R_self; None chooses ``step-mean`` (``raw`` without calibration).
        soft_share: Contribution of a soft term among equal outcomes, as a share of lambda_3 (of the published one
            where lambda_3 is 0).
        from_data: Whether to calibrate; False uses the published formula with the given numbers.
        keep_weights: Take the given weights as they are, whatever the data say.
    """
    chosen: Normalization = normalisation or ("step-mean" if from_data else "raw")
    scales = {
        task: beta if beta is not None else (_cost_scale(raw, number) if from_data else 1.0)
        for number, task in enumerate(raw.tasks)
    }
    equals, notes = outcome_groups(raw), []
    if not np.any(np.bincount(equals) > 1) and np.any(np.bincount(raw.state) > 1):
        equals = raw.state
        notes.append("No initial state has two episodes of one outcome: spreads are those within initial states.")
    soft = {"self": normalize_self(raw, chosen), "ext": external_term(raw, scales)}
    spreads = {name: typical_spread(values, equals) for name, values in soft.items()}
    spreads["success"] = pooled_spread(raw.success, raw.state)
    final = list(weights)
    if from_data and not keep_weights:
        scaled, remarks = _soft_weights(raw, soft, spreads, equals, weights, chosen)
        notes += remarks
        target = soft_share * (weights[2] or PUBLISHED_WEIGHTS[2])
        for position, weight in scaled.items():
            final[position] = target * weight
    contributions = {
        name: None if spreads[name] is None else final[position] * float(spreads[name] or 0.0)
        for position, name in enumerate(TERMS)
    }
    return Calibration(
        calibrated=from_data,
        normalisation=chosen,
        beta=scales,
        weights=(final[0], final[1], final[2]),
        spreads=spreads,
        contributions=contributions,
        states=int(np.sum(np.bincount(raw.state) > 1)) if len(raw.state) else 0,
        notes=tuple(notes),
    )


def _soft_weights(
    raw: RawTerms,
    soft: Mapping[str, Float64],
    spreads: Mapping[str, float | None],
    equals: Int64,
    weights: Sequence[float],
    normalisation: Normalization,
) -> tuple[dict[int, float], list[str]]:
    """Weights of the soft terms by position, the larger standard deviation being 1, and what cannot be weighted."""
    scaled, deviations, notes = {}, [], []
    for position, name in enumerate(TERMS[:2]):
        if weights[position] == 0:
            continue
        spread, noise = spreads[name], _noise(name, normalisation, raw)
        if spread:
            share = weights[position] / max(weights[:2])
            scaled[position] = share / max(spread, noise)
            if spread >= noise:
                deviations.append(scaled[position] / share * (pooled_spread(soft[name], equals) or 0.0))
            else:
                notes.append(
                    f"Term '{name}' varies by {spread:.2g} among episodes of one initial state and outcome, less than "
                    f"{noise:.2g}: it is taken for noise and not scaled up."
                )
        elif spread is None and name == "self" and not np.isfinite(raw.r_self).any():
            notes.append("No episode was sampled from a policy: R_self does not count.")
        else:
            reason = "no initial state has two episodes" if spread is None else "it does not vary among equal outcomes"
            notes.append(f"The weight of term '{name}' stays as given: {reason}.")
    return {position: weight / max(deviations, default=1.0) for position, weight in scaled.items()}, notes


def weighted_terms(raw: RawTerms, calibration: Calibration) -> Float64:
    """The terms whose sum over the last axis is R_GCPG, float64 ``(E, 3)`` in the order of :data:`TERMS`.

    The self term is 0 where nothing was sampled. The success term is 0 for all trajectories of an initial state in
    which any outcome is unknown: an unknown one is neither a success nor a failure, so there the others rank.
    """
    self_term = np.nan_to_num(normalize_self(raw, calibration.normalisation), nan=0.0)
    success = np.where(_outcomes_known(raw), raw.success, 0.0)
    terms = np.stack([self_term, external_term(raw, calibration.beta), success], axis=-1)
    weighted: Float64 = terms * np.asarray(calibration.weights)
    return weighted


def _outcomes_known(raw: RawTerms) -> npt.NDArray[np.bool_]:
    """Whether all outcomes of each trajectory's initial state are known, ``(E,)``."""
    unknown = np.bincount(raw.state, np.isnan(raw.success))
    known: npt.NDArray[np.bool_] = unknown[raw.state] == 0
    return known


def _noise(term: str, normalisation: Normalization, raw: RawTerms) -> float:
    """:data:`NOISE` on the scale of the normalized term."""
    if term == "self" and normalisation == "raw":
        return NOISE[term] * float(raw.steps.mean())
    if term == "self" and normalisation != "step-mean":
        return 0.5  # a signal has about 1; noise was divided by NOISE and has less
    if term == "ext" and raw.external is not None:
        return raw.external_noise
    return NOISE[term]


def _cost_scale(raw: RawTerms, task: int) -> float:
    """One over the mean cost of a task, outcomes counting equally; 1 where nothing costs anything.

    Unknown outcomes count only where no outcome is known.
    """
    of_task = raw.task == task
    cost, success = raw.cost[of_task], raw.success[of_task]
    kinds = (success > 0.5, success < 0.5) if np.isfinite(success).any() else (np.isnan(success),)
    means = [float(cost[chosen].mean()) for chosen in kinds if chosen.any()]
    mean = float(np.mean(means)) if means else 0.0
    return 1.0 / mean if mean > 1e-6 else 1.0


def _centered(values: Float64, group: Int64) -> Float64:
    """Values minus the mean of their group; NaNs do not count towards the mean and stay NaN."""
    known = np.isfinite(values)
    count = np.bincount(group, known)
    mean = np.bincount(group, np.where(known, values, 0.0)) / np.maximum(count, 1)
    centered: Float64 = values - mean[group]
    return centered
