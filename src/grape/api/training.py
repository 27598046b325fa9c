"""The verbs that train, for programs; what they learn from may be in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grape.api.given import (
    PAIRS_FOLDER,
    SCORES_FOLDER,
    STORE_FOLDER,
    given_demonstrations,
    given_pairs,
    given_scores,
)
from grape.api.resolving import LOG, publishing_verb, resolved
from grape.api.results import PairResult, Result, ScoreResult, SftResult, TrainResult, trained
from grape.core.errors import SettingsError
from grape.core.events import Reporter
from grape.core.preferences import PreferencePair
from grape.core.tasks import ActionSpace
from grape.core.trajectories import Trajectory
from grape.preferences import PreferencePairs, ScoredTrajectories
from grape.store import EpisodeStore
from grape.training import SftSettings, TrainSettings, run_sft, run_train
from grape.training.settings import check_sft, check_train

__all__ = ["train_sft", "train_tpo"]


@publishing_verb
def train_tpo(
    settings: TrainSettings | None = None,
    *,
    pairs: PreferencePairs | Iterable[PreferencePair] | PairResult | Path | str | None = None,
    trajectories: Iterable[Trajectory] | EpisodeStore | None = None,
    scores: ScoredTrajectories | ScoreResult | Path | str | None = None,
    reporter: Reporter = LOG,
    **values: Any,
) -> TrainResult:
    """Align a policy by trajectory-wise preference optimization, or another method; see :class:`TrainSettings`.

    Pairs and scores from memory are first written below ``out``, in ``data/``, with their trajectories: the result
    is that of training on the folder of ``grape pair`` or ``grape score``, and the run resumes and is reported on like
    any other.

    Args:
        settings: How to train.
        pairs: Folder of ``grape pair``, what :func:`grape.pair` or :func:`grape.make_pairs` gave, or pairs of your own.
        trajectories: What pairs of your own compare.
        scores: For the methods ``kto`` and ``rloo``: folder of ``grape score``, or what :func:`grape.score` or
            :func:`grape.score_trajectories` gave.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown or out of range, the method does not learn from what is given, or PyTorch is
            missing.
        DataError: There is nothing to learn from, or a trajectory is missing.
        CompatibilityError: The trajectories were not recorded by this policy, or the folder belongs to another run.
        TrainingError: A loss, gradient or weight is not finite.
    """
    in_memory = {}
    for name, given, folder in (("pairs", pairs, PAIRS_FOLDER), ("scores", scores, SCORES_FOLDER)):
        if isinstance(given, str | Path):
            values[name] = given
        elif isinstance(given, Result):
            values[name] = given.folder
        elif given is not None:
            in_memory[name] = folder
    chosen = resolved(TrainSettings, settings, values)
    chosen = resolved(TrainSettings, chosen, {name: chosen.out / folder for name, folder in in_memory.items()})
    check_train(chosen)  # before anything is written
    if "pairs" in in_memory:
        given_pairs(chosen.out, pairs, trajectories)  # type: ignore[arg-type]  # not the kinds above
    elif trajectories is not None:
        raise SettingsError("trajectories= is for pairs of your own.", "Give pairs=[...] as well, or leave it out.")
    if "scores" in in_memory:
        given_scores(chosen.out, scores)
    summary = run_train(chosen, reporter)
    return TrainResult(alarm=summary.get("alarm", ""), **trained(chosen.out, summary))


@publishing_verb
def train_sft(
    settings: SftSettings | None = None,
    *,
    trajectories: Iterable[Trajectory] | EpisodeStore | None = None,
    action_space: ActionSpace | None = None,
    reporter: Reporter = LOG,
    **values: Any,
) -> SftResult:
    """Fine-tune a policy on demonstrations, or train a nano policy from nothing; see :class:`SftSettings`.

    Args:
        settings: How to train.
        trajectories: Demonstrations in place of the settings' ``data``; those in memory are first written below
            ``out``, in ``data/``.
        action_space: What the actions of trajectories in memory mean; without it, give ``gripper``.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown or out of range, or PyTorch is missing.
        DataError: There is nothing to learn from.
        CompatibilityError: The folder belongs to another run, or the demonstrations do not fit the policy.
        TrainingError: A loss, gradient or weight is not finite.
    """
    if trajectories is not None:
        out = values.get("out", getattr(settings, "out", None))
        if not isinstance(out, str | Path):
            raise SettingsError("A training needs out, the folder to write.", "Give it by name: out=...")
        values["data"] = (Path(out) / STORE_FOLDER,)
        if isinstance(trajectories, EpisodeStore):
            values["data"] = tuple(part.path for part in trajectories.parts)
    elif isinstance(values.get("data"), str | Path):
        values["data"] = (values["data"],)
    chosen = resolved(SftSettings, settings, values)
    check_sft(chosen)  # before anything is written
    if trajectories is not None and not isinstance(trajectories, EpisodeStore):
        given_demonstrations(chosen.out, trajectories, action_space)
    return SftResult(**trained(chosen.out, run_sft(chosen, reporter)))
