"""GRAPE: align vision-language-action policies with preferences between whole trajectories.

The data flow, one verb a stage: collect -> score -> pair -> train -> evaluate -> report. ``docs/python.md`` explains
the names below; each is imported when it is first used, so that ``import grape`` is fast and needs no PyTorch.
See ``docs/architecture.md`` for the packages and what each may import.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grape.api.judging import agree as agree
    from grape.api.judging import validate_judge as validate_judge
    from grape.api.results import AgreeResult as AgreeResult
    from grape.api.results import CollectResult as CollectResult
    from grape.api.results import CompareResult as CompareResult
    from grape.api.results import EvaluateResult as EvaluateResult
    from grape.api.results import JudgeTrialResult as JudgeTrialResult
    from grape.api.results import LoopResult as LoopResult
    from grape.api.results import MergeResult as MergeResult
    from grape.api.results import PairResult as PairResult
    from grape.api.results import ReportResult as ReportResult
    from grape.api.results import ScoreResult as ScoreResult
    from grape.api.results import SftResult as SftResult
    from grape.api.results import TrainResult as TrainResult
    from grape.api.training import train_sft as train_sft
    from grape.api.training import train_tpo as train_tpo
    from grape.api.verbs import collect as collect
    from grape.api.verbs import compare as compare
    from grape.api.verbs import evaluate as evaluate
    from grape.api.verbs import load_policy as load_policy
    from grape.api.verbs import loop as loop
    from grape.api.verbs import merge as merge
    from grape.api.verbs import pair as pair
    from grape.api.verbs import report as report
    from grape.api.verbs import score as score
    from grape.collect.episode import run_episode as run_episode
    from grape.collect.merge import MergeSettings as MergeSettings
    from grape.collect.settings import CollectSettings as CollectSettings
    from grape.core.chunks import Chunks as Chunks
    from grape.core.errors import BudgetError as BudgetError
    from grape.core.errors import CompatibilityError as CompatibilityError
    from grape.core.errors import DataError as DataError
    from grape.core.errors import GrapeError as GrapeError
    from grape.core.errors import ModelError as ModelError
    from grape.core.errors import NoPairsError as NoPairsError
    from grape.core.errors import PolicyError as PolicyError
    from grape.core.errors import ProgramError as ProgramError
    from grape.core.errors import SettingsError as SettingsError
    from grape.core.errors import SimulatorError as SimulatorError
    from grape.core.errors import TrainingError as TrainingError
    from grape.core.preferences import PreferencePair as PreferencePair
    from grape.core.preferences import Score as Score
    from grape.core.tasks import ActionSpace as ActionSpace
    from grape.core.tasks import Task as Task
    from grape.core.trajectories import EpisodeMeta as EpisodeMeta
    from grape.core.trajectories import Observation as Observation
    from grape.core.trajectories import Trajectory as Trajectory
    from grape.costs.specification import CostSpecification as CostSpecification
    from grape.envs.registry import get_suite as get_suite
    from grape.evaluation.compare import CompareSettings as CompareSettings
    from grape.evaluation.settings import EvaluateSettings as EvaluateSettings
    from grape.judges.base import Judge as Judge
    from grape.judges.base import Judgment as Judgment
    from grape.judges.registry import register_judge as register_judge
    from grape.judges.verb import JudgesValidateSettings as JudgesValidateSettings
    from grape.loop.settings import LoopSettings as LoopSettings
    from grape.policies.opening import PolicySettings as PolicySettings
    from grape.policies.registry import register_policy_type as register_policy_type
    from grape.preferences.memory import PreferencePairs as PreferencePairs
    from grape.preferences.memory import ScoredTrajectories as ScoredTrajectories
    from grape.preferences.memory import make_pairs as make_pairs
    from grape.preferences.memory import score_trajectories as score_trajectories
    from grape.preferences.pair_settings import PairSettings as PairSettings
    from grape.preferences.score import ScoreSettings as ScoreSettings
    from grape.report.agreement_page import AgreeSettings as AgreeSettings
    from grape.report.report import ReportSettings as ReportSettings
    from grape.scorers.base import EpisodeScore as EpisodeScore
    from grape.scorers.base import Scorer as Scorer
    from grape.scorers.registry import register_scorer as register_scorer
    from grape.store.episode_store import EpisodeStore as EpisodeStore
    from grape.store.memory import save_trajectories as save_trajectories
    from grape.training.settings import SftSettings as SftSettings
    from grape.training.settings import TrainSettings as TrainSettings

_NAMES = {
    "grape.api.judging": "agree validate_judge",
    "grape.api.results": "AgreeResult CollectResult CompareResult EvaluateResult JudgeTrialResult LoopResult "
    "MergeResult PairResult ReportResult ScoreResult SftResult TrainResult",
    "grape.api.training": "train_sft train_tpo",
    "grape.api.verbs": "collect compare evaluate load_policy loop merge pair report score",
    "grape.collect.episode": "run_episode",
    "grape.collect.merge": "MergeSettings",
    "grape.collect.settings": "CollectSettings",
    "grape.core.chunks": "Chunks",
    "grape.core.errors": "BudgetError CompatibilityError DataError GrapeError ModelError NoPairsError PolicyError "
    "ProgramError SettingsError SimulatorError TrainingError",
    "grape.core.preferences": "PreferencePair Score",
    "grape.core.tasks": "ActionSpace Task",
    "grape.core.trajectories": "EpisodeMeta Observation Trajectory",
    "grape.costs.specification": "CostSpecification",
    "grape.envs.registry": "get_suite",
    "grape.evaluation.compare": "CompareSettings",
    "grape.evaluation.settings": "EvaluateSettings",
    "grape.judges.base": "Judge Judgment",
    "grape.judges.registry": "register_judge",
    "grape.judges.verb": "JudgesValidateSettings",
    "grape.loop.settings": "LoopSettings",
    "grape.policies.opening": "PolicySettings",
    "grape.policies.registry": "register_policy_type",
    "grape.preferences.memory": "PreferencePairs ScoredTrajectories make_pairs score_trajectories",
    "grape.preferences.pair_settings": "PairSettings",
    "grape.preferences.score": "ScoreSettings",
    "grape.report.agreement_page": "AgreeSettings",
    "grape.report.report": "ReportSettings",
    "grape.scorers.base": "EpisodeScore Scorer",
    "grape.scorers.registry": "register_scorer",
    "grape.store.episode_store": "EpisodeStore",
    "grape.store.memory": "save_trajectories",
    "grape.training.settings": "SftSettings TrainSettings",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_VERB_PACKAGES = frozenset({"collect", "loop", "report"})
"""Names of a verb that are those of a package as well: importing the package must not hide the verb."""

__version__ = "0.2.0"
"""The release: the one place that says so, from which packages take it as they are built."""
__all__ = ["__version__", *_MODULE_OF]


class _VerbPackage(ModuleType):
    """A package that is called like its verb: ``grape.collect(...)``, ``from grape.collect import run_collect``."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        """Call the verb of the package's name."""
        return _verb(self.__name__.rpartition(".")[2])(*args, **values)

    @property
    def __signature__(self) -> Any:
        from inspect import signature

        return signature(_verb(self.__name__.rpartition(".")[2]))


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """Make a package of a verb's name callable when the import system binds it here."""
        if name in _VERB_PACKAGES and type(value) is ModuleType:
            value.__class__ = _VerbPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _verb(name: str) -> Any:
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    if name in _VERB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = globals()[name] = _verb(name)
        return value
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from difflib import get_close_matches
    from importlib.util import find_spec

    close = get_close_matches(name, __all__, n=1, cutoff=0.5)
    suggestion = f"Did you mean {close[0]!r}?" if close else "See dir(grape)."
    # `from grape import NAME` asks here first, and takes an AttributeError for a sign to look for a package; its own
    # message, where there is none either, would suggest nothing.
    if sys._getframe(1).f_code.co_name == "_handle_fromlist" and find_spec(f"{__name__}.{name}") is None:
        raise ImportError(f"cannot import name {name!r} from {__name__!r}. {suggestion}", name=name)
    # With an obj of its own Python does not add a second suggestion where it prints the exception.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. {suggestion}", name=name, obj=None)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
