"""From recorded episodes to preference pairs: R_GCPG, its calibration, and pairing.

``score`` says what every episode was worth (:func:`run_score`), ``pair`` who is compared with whom and why
(:func:`run_pair`). Both read files and write files; neither needs a simulator or a policy. The same
in memory: :func:`score_trajectories` and :func:`make_pairs`.
"""

from grape.preferences.curves import with_curves
from grape.preferences.gcpg import PUBLISHED_WEIGHTS, Calibration, RawTerms, calibrate, weighted_terms
from grape.preferences.memory import (
    PreferencePairs,
    ScoredTrajectories,
    make_pairs,
    save_pairs,
    save_scores,
    score_trajectories,
)
from grape.preferences.pair import run_pair
from grape.preferences.pair_settings import PairSettings, check_pair
from grape.preferences.records import ScoreFile, open_scores, read_pairs, read_scores, recorded_stores
from grape.preferences.score import ScoreSettings, check_score, run_score

__all__ = [
    "PUBLISHED_WEIGHTS",
    "Calibration",
    "PairSettings",
    "PreferencePairs",
    "RawTerms",
    "ScoreFile",
    "ScoreSettings",
    "ScoredTrajectories",
    "calibrate",
    "check_pair",
    "check_score",
    "make_pairs",
    "open_scores",
    "read_pairs",
    "read_scores",
    "recorded_stores",
    "run_pair",
    "run_score",
    "save_pairs",
    "save_scores",
    "score_trajectories",
    "weighted_terms",
    "with_curves",
]
