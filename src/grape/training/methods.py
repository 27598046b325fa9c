"""What each method of ``grape train`` learns from, and which settings have a meaning for it. No PyTorch here."""

import os
from typing import TYPE_CHECKING, Any

from grape.core.errors import SettingsError
from grape.core.settings import flag_of

if TYPE_CHECKING:
    from grape.training.settings import TrainSettings

__all__ = ["METHOD_SETTINGS", "PAIRED", "UNPAIRED", "check_method"]

PAIRED, UNPAIRED = ("tpo", "step-dpo", "filtered-bc"), ("kto", "rloo")
"""Methods that learn from pairs, and those that learn from single episodes."""


_PREFERRING = ("tpo", "step-dpo")
"""Methods whose loss compares the two sides of a pair; filtered BC takes of a pair no more than its chosen side."""

METHOD_SETTINGS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("window", 0, ("tpo",)),
    ("loss_type", "sigmoid", _PREFERRING),
    ("beta", 0.1, (*_PREFERRING, "kto")),
    ("label_smoothing", 0.0, _PREFERRING),
    ("length_normalised", False, (*_PREFERRING, "kto")),
    ("preference_weight", 1.0, _PREFERRING),
    ("anchor", 5.0, (*_PREFERRING, "kto")),
    ("imitate", "successes", PAIRED),
    ("nll_weight", None, PAIRED),  # without effect in filtered BC, but runs of release 0.1 need it to go on
    ("chosen_floor", 0.0, _PREFERRING),
    ("reference", "recorded", (*_PREFERRING, *UNPAIRED)),
    ("reward", "auto", UNPAIRED),
    ("desirable_weight", 1.0, ("kto",)),
    ("clip_range", 0.2, ("rloo",)),
)
"""Settings that have a meaning for some methods only: their names, their defaults and the methods."""


def check_method(settings: "TrainSettings") -> None:
    """Refuse data and settings that do not belong to the method, before anything is read.

    Raises:
        SettingsError: A folder is missing or one too many, or a setting contradicts the method or another setting.
    """
    _check_data(settings)
    _check_method(settings)


def _check_data(settings: "TrainSettings") -> None:
    """Refuse data that the method does not take, or takes twice.

    Raises:
        SettingsError: One of the two kinds of folders is missing or one too many, or folders contradict other settings.
    """
    needed, other = ("scores", "pairs") if settings.unpaired else ("pairs", "scores")
    if getattr(settings, other) is not None:
        given = getattr(settings, needed) is not None
        methods = " or ".join(PAIRED if settings.unpaired else UNPAIRED)
        raise SettingsError(
            f"--{other} is not for --method {settings.method}.",
            f"Leave --{other} out." if given else f"Give --{needed} instead, or choose --method {methods}.",
        )
    if getattr(settings, needed) is None:
        raise SettingsError(
            f"--{needed} is missing: --method {settings.method} learns from "
            f"{'scored episodes' if settings.unpaired else 'pairs'}.",
            f"Give the folder that 'grape {'score' if settings.unpaired else 'pair'}' wrote.",
        )
    places = [os.path.realpath(folder) for folder in settings.data]  # one folder may be given in two ways
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        raise SettingsError(f"{min(twice)} is named twice in --{needed} and --replay.", "Name each folder once.")
    if settings.replay and settings.reference == "recomputed":
        raise SettingsError(
            "--replay takes recorded log-probabilities of earlier policies as references, --reference recomputed those "
            "of the starting policy.",
            "Leave one of them out.",
        )


def _check_method(settings: "TrainSettings") -> None:
    """Refuse settings without a meaning for the method.

    Raises:
        SettingsError: A setting of another method was changed, or the way to the gradient does not fit.
    """
    for name, default, methods in METHOD_SETTINGS:
        if getattr(settings, name) != default and settings.method not in methods:
            raise SettingsError(f"{flag_of(name)} has no meaning for --method {settings.method}.", "Leave it out.")
    if not settings.preference_weight and not settings.is_anchored:
        raise SettingsError(
            "--preference-weight is 0 and there is no anchor: nothing would be learned.", "Give --anchor, e.g. 1."
        )
    if settings.method == "kto" and settings.gradient == "one-pass":
        raise SettingsError(
            "--method kto needs the two-pass gradient: its reference point depends on all episodes of an update.",
            "Leave --gradient out.",
        )
