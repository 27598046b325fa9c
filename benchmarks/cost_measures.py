"""What a cost specification is worth on recorded episodes, for `generated_costs.py`.

``auc``: probability that a success of an initial state costs less than a failure of the same state (ties count half).
``auc_motion``: the same with the simulator's verdict hidden, so that only the motion speaks; an interval by resampling
initial states. ``auc_early``: the same again with the beginning of each episode only, as many decisions for all: half
of what the task's successes take (median). How soon a cost tells.

``easier``: of two successes of a state of which one took fewer steps, a shorter way and smaller changes of velocity,
how often that one costs less. ``verdict``: what ``grape costs validate`` says with its usual criteria.

``tau``: Kendall's tau-b of the episodes' costs with those under the hand-written specification, verdict hidden, within
initial states, mean over states. ``pairs_changed``: share of the pairs that ``grape score`` and ``grape pair`` make
with the hand-written specification and not with this one; ``pairs_reversed``: share of them whose rejected side ranks
above the chosen one under this specification. Both with the verdict in view and all defaults.
"""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from grape.core.files import write_text
from grape.core.seeds import derive_rng
from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.costs import (
    CostSpecification,
    ValidationCriteria,
    evaluate,
    specification_hash,
    validate_specification,
)
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from tests.costs.test_builtins import beginning, easier_success, same_start, without_verdict

RESAMPLES = 2000


def compare(
    task: Task,
    episodes: list[Trajectory],
    specifications: dict[str, CostSpecification],
    texts: dict[str, str],
    work: Path,
) -> dict:
    """Measures of each specification; the one called "by hand" is what the others are compared with."""
    states = defaultdict(list)
    for number, episode in enumerate(episodes):
        states[episode.meta.initial_state].append(number)
    solved = np.array([episode.meta.success for episode in episodes])
    hidden = [without_verdict(episode) for episode in episodes]
    motion = {name: costs(specification, hidden) for name, specification in specifications.items()}
    ranked = {
        name: rank(task, name, specification, texts[name], work) for name, specification in specifications.items()
    }
    pairs, _ = ranked["by hand"]
    half = max(1, int(np.median([episode.steps for episode in episodes if episode.meta.success])) // 2)
    early = [beginning(episode, min(half, episode.steps)) for episode in hidden]
    measures_by_name = {}
    for name, specification in specifications.items():
        own, gcpg = ranked[name]
        wins = {state: state_wins(motion[name], solved, members) for state, members in states.items()}
        measures = {
            "auc": auc([state_wins(costs(specification, episodes), solved, members) for members in states.values()]),
            "auc_motion": auc(list(wins.values())),
            "auc_motion_interval": interval(list(wins.values()), task),
            "auc_early": auc([state_wins(costs(specification, early), solved, one) for one in states.values()]),
            "easier": easier(episodes, costs(specification, episodes)),
        }
        card = validate_specification(specification, episodes, ValidationCriteria())
        measures["verdict"] = card.verdict
        measures["failed_checks"] = [check.code for check in card.checks if check.passed is False]
        if name != "by hand":
            taus = [
                kendalltau(motion[name][members], motion["by hand"][members]).statistic for members in states.values()
            ]
            measures |= {
                "tau": float(np.mean(taus)),
                "pairs": len(pairs),
                "pairs_changed": 1.0 - len(pairs & own) / len(pairs) if pairs else None,
                "pairs_reversed": float(np.mean([gcpg[bad] > gcpg[good] for good, bad in pairs])) if pairs else None,
            }
        measures_by_name[name] = measures
    return measures_by_name


def easier(episodes: list[Trajectory], cost: np.ndarray) -> float | None:
    """Share of comparable successes that are ordered by their effort."""
    ordered = list(same_start(list(zip(episodes, cost, strict=True)), easier_success))
    return float(np.mean(ordered)) if ordered else None


def costs(specification: CostSpecification, episodes: list[Trajectory]) -> np.ndarray:
    return np.array([sum(stage.cost for stage in evaluate(specification, episode)) for episode in episodes])


def state_wins(cost: np.ndarray, solved: np.ndarray, members: list[int]) -> tuple[float, int]:
    """Pairs of a state that are ordered rightly, and all of them."""
    chosen = np.array(members)
    won, lost = cost[chosen[solved[chosen]]], cost[chosen[~solved[chosen]]]
    better = np.sum(won[:, None] < lost[None, :]) + 0.5 * np.sum(won[:, None] == lost[None, :])
    return float(better), len(won) * len(lost)


def auc(wins: list[tuple[float, int]]) -> float | None:
    total = sum(count for _, count in wins)
    return sum(better for better, _ in wins) / total if total else None


def interval(wins: list[tuple[float, int]], task: Task) -> list[float] | None:
    """95 % interval over initial states; None for fewer than five with both outcomes."""
    mixed = np.array([one for one in wins if one[1]], dtype=float)
    if len(mixed) < 5:
        return None
    drawn = derive_rng(0, "generated-costs", task.id).integers(len(mixed), size=(RESAMPLES, len(mixed)))
    sums = mixed[drawn].sum(axis=1)
    return [float(bound) for bound in np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))]


def rank(task: Task, name: str, specification: CostSpecification, text: str, work: Path):
    """Pairs and R_GCPG of every episode, by the verbs themselves; without a text the built-in specification is used."""
    own = f"{name.replace(' ', '-')}-{specification_hash(specification)[:12]}"
    folder = work / "ranked" / f"{task.suite}-{task.index}" / own
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, perhaps with other defaults
    costs_file = folder / "specification.yaml" if text else None
    if costs_file is not None:
        write_text(costs_file, text)
    store = work / "stores" / f"{task.suite}-{task.index}"
    run_score(ScoreSettings(store=store, out=folder / "scores", costs=costs_file))
    run_pair(PairSettings(scores=folder / "scores", out=folder / "pairs"))
    pairs = {(pair.chosen, pair.rejected) for pair in read_pairs(folder / "pairs")}
    return pairs, {episode: score.gcpg for episode, score in read_scores(folder / "scores").items()}
