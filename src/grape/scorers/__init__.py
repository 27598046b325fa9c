"""Scorers: what an episode is worth, as one number.

``base`` is the protocol, ``registry`` finds a scorer by name, ``builtin`` holds those that GRAPE brings, ``external``
runs a program of yours as one (``program`` is its process, ``episode_files`` what it reads), ``shipped`` names the
programs of learned rewards that come with GRAPE (``programs``), and ``values`` scores all episodes of a store,
resumably.
"""

from grape.scorers.base import EpisodeScore, Scorer
from grape.scorers.registry import ScorerChoice, is_label, open_scorer, parse_scorers, register_scorer, scorer_names
from grape.scorers.values import ScorerValues, check_score, load_values, score_with

__all__ = [
    "EpisodeScore",
    "Scorer",
    "ScorerChoice",
    "ScorerValues",
    "check_score",
    "is_label",
    "load_values",
    "open_scorer",
    "parse_scorers",
    "register_scorer",
    "score_with",
    "scorer_names",
]
