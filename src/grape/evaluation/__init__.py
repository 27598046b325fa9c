"""Evaluation: protocols on fixed initial states, statistics, and comparison of policies.

``statistics``, ``bootstrap`` and ``power`` are pure functions; ``results`` holds an evaluation's results, ``pairing``
pairs two evaluations, ``gate`` accepts or rejects a policy; ``evaluate`` and ``compare`` are the verbs.
"""

from grape.evaluation.compare import CompareSettings, compare_results, run_compare
from grape.evaluation.evaluate import run_evaluate
from grape.evaluation.gate import GateDecision, best_on_validation, gate_decision
from grape.evaluation.outcomes import EpisodeOutcome, Share
from grape.evaluation.pairing import PairedOutcomes, pair_results
from grape.evaluation.protocols import PROTOCOLS, Protocol
from grape.evaluation.results import EvaluationResults, TaskResults, read_results, write_results
from grape.evaluation.settings import EVALUATION_STATES_START, EvaluateSettings

__all__ = [
    "EVALUATION_STATES_START",
    "PROTOCOLS",
    "CompareSettings",
    "EpisodeOutcome",
    "EvaluateSettings",
    "EvaluationResults",
    "GateDecision",
    "PairedOutcomes",
    "Protocol",
    "Share",
    "TaskResults",
    "best_on_validation",
    "compare_results",
    "gate_decision",
    "pair_results",
    "read_results",
    "run_compare",
    "run_evaluate",
    "write_results",
]
