"""The arms of a study: named differences from the study's settings of scoring, pairing and training.

What an arm is a control for:

==================  ==================================================================================================
``sft``             the starting policy, without training
``anchor-only``     TPO's anchor on the same chosen sides, without the preference term
``filtered-bc``     filtered behavior cloning of all successes
``bc-top``          the same of the best rollout of each initial state by R_GCPG, if it succeeded
``tpo``             the study's own settings
``tpo-no-self``     R_GCPG without R_self; ``tpo-no-ext`` without R_ext, ``tpo-no-success`` without I_success
``success-pairs``   random pairs of a success and a failure: no costs
``random-rejected`` TPO's chosen sides, each against a random other rollout
``stage-wise``      segments of stages are compared (arXiv 2512.05107)
``step-dpo``        TPO's pairs, compared step by step
``kto``, ``rloo``   single episodes instead of pairs (arXiv 2402.01306, 2402.14740)
==================  ==================================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from grape.core.errors import SettingsError, require_known
from grape.core.settings import settings_from_dict
from grape.preferences import PairSettings, ScoreSettings
from grape.preferences.pairing import RANKING
from grape.study.settings import StudySettings
from grape.training.methods import METHOD_SETTINGS
from grape.training.settings import TrainSettings

__all__ = ["ARMS", "Arm", "arms_of", "resolve_arm"]

_Changes = Mapping[str, Mapping[str, Any]]

_GROUPS = ("score", "pair", "train")
_IMITATE = {"method": "filtered-bc"}
_TERMS = ("self", "ext", "success")

ARMS: Mapping[str, _Changes] = {
    "sft": {},
    "anchor-only": {"train": {"preference_weight": 0.0}},
    "filtered-bc": {"pair": {"mode": "every-success", "require_mixed_outcomes": False}, "train": _IMITATE},
    "bc-top": {
        "pair": {"mode": "best-worst", "require_mixed_outcomes": False, "chosen_must_succeed": True},
        "train": _IMITATE,
    },
    "tpo": {},
    **{f"tpo-no-{term}": {} for term in _TERMS},  # their weights depend on the study's own
    "success-pairs": {"pair": {"mode": "success-only"}},
    "random-rejected": {"pair": {"rejected": "random"}},
    "stage-wise": {"pair": {"stage_wise": True}},
    "step-dpo": {"train": {"method": "step-dpo"}},
    "kto": {"train": {"method": "kto"}},
    "rloo": {"train": {"method": "rloo"}},
}
"""What each named arm changes."""


@dataclass(frozen=True)
class Arm:
    """One way to use the rollouts.

    Attributes:
        name: Its name.
        trains: Whether it trains at all.
        score: Its settings of scoring.
        pair: Its settings of pairing.
        train: Its settings of training; as many updates as every arm has.
        replay: How many earlier iterations' rollouts it trains on as well, with equally many updates.
    """

    name: str
    trains: bool
    score: ScoreSettings
    pair: PairSettings
    train: TrainSettings
    replay: int = 0


def arms_of(settings: StudySettings) -> dict[str, Arm]:
    """The study's arms by name, in its order.

    Raises:
        SettingsError: An arm is unknown, named twice, or its changes are no settings.
    """
    if not settings.arms:
        raise SettingsError("--arms names no arm.", "Name at least one, e.g. sft.")
    for name in settings.own_arms:
        if name in ARMS or not name or not all(letter.isalnum() or letter in "-_." for letter in name):
            raise SettingsError(
                f"own_arms: '{name}' is {'the name of a built-in arm' if name in ARMS else 'no name for an arm'}.",
                "Choose another of letters, digits and hyphens.",
            )
    twice = sorted({name for name in settings.arms if settings.arms.count(name) > 1})
    if twice:
        raise SettingsError(f"--arms names {twice[0]} twice.", "Name each arm once.")
    return {name: resolve_arm(settings, name) for name in settings.arms}


def resolve_arm(settings: StudySettings, name: str) -> Arm:
    """An arm with all its settings.

    Settings of the study that have no meaning for the arm's method, e.g. beta in filtered BC, have their defaults
    there, unless the arm itself names them.

    Raises:
        SettingsError: The arm is unknown, or its changes are no settings.
    """
    require_known("arm", name, (*ARMS, *settings.own_arms))
    base, own = _base_of(settings, name)
    changes = {group: {**ARMS[base].get(group, {}), **own.get(group, {})} for group in _GROUPS}
    if base.startswith("tpo-no-") and "weights" not in changes["score"]:
        weights = list(settings.score.weights)
        weights[_TERMS.index(base.removeprefix("tpo-no-"))] = 0.0
        changes["score"]["weights"] = weights
    where = f"own_arms.{name}."
    train = settings_from_dict(TrainSettings, changes["train"], settings.train, f"{where}train.")
    named = {key.replace("-", "_") for key in changes["train"]}
    reset = {
        key: default for key, default, methods in METHOD_SETTINGS if train.method not in methods and key not in named
    }
    train = replace(train, **reset, epochs=settings.updates, max_updates=settings.updates)
    pair = settings_from_dict(PairSettings, changes["pair"], settings.pair, f"{where}pair.")
    score = settings_from_dict(ScoreSettings, changes["score"], settings.score, f"{where}score.")
    return Arm(name, base != "sft", score, _fitting(pair, changes["pair"]), train, _replay_of(settings, name, base))


def _replay_of(settings: StudySettings, name: str, base: str) -> int:
    """How many earlier iterations an arm trains on as well."""
    replay = settings.own_arms.get(name, {}).get("replay", 0)
    if type(replay) is not int or replay < 0:
        raise SettingsError(f"own_arms.{name}.replay: {replay!r} is no number of iterations.", "Write e.g. replay: 1.")
    if replay and (base == "sft" or settings.iterations == 1):
        why = "the arm does not train" if base == "sft" else "the study has one iteration"
        raise SettingsError(f"own_arms.{name}.replay: {why}, so nothing is replayed.", "Leave it out.")
    return replay


def _base_of(settings: StudySettings, name: str) -> tuple[str, _Changes]:
    """The built-in arm that an arm starts from, and its own changes."""
    if name in ARMS:
        return name, {}
    own = settings.own_arms[name]
    where = f"own_arms.{name}"
    if not isinstance(own, Mapping):
        raise SettingsError(f"{where} is no mapping.", "Write {base: tpo, train: {beta: 0.02}}.")
    for key, value in own.items():
        require_known(f"entry of {where}", str(key), ("base", "replay", *_GROUPS))
        if key in _GROUPS and not isinstance(value, Mapping):
            raise SettingsError(f"{where}.{key} is no mapping.", "Write e.g. {beta: 0.02}.")
    base = str(own.get("base", "tpo"))
    require_known(f"base of arm '{name}'", base, ARMS)
    return base, {group: own[group] for group in _GROUPS if group in own}


def _fitting(pair: PairSettings, changes: Mapping[str, Any]) -> PairSettings:
    """The pairing without what the study's own pairing asks for and the arm's cannot do."""
    named = {key.replace("-", "_") for key in changes}
    if pair.weight == "margin" and (pair.mode not in RANKING or pair.rejected == "random") and "weight" not in named:
        pair = replace(pair, weight="none")
    if pair.stage_wise and pair.cut not in ("none", "length") and "cut" not in named:
        pair = replace(pair, cut="none", cut_distance=PairSettings.cut_distance)
    return pair
