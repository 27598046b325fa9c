"""Judges: which of two episodes of one initial state is better, as a probability.

``base`` is the protocol, ``registry`` finds a judge by name, ``builtin`` holds those that GRAPE brings, ``external``
runs a program of yours as one, ``votes`` reads what people decided (``raters`` counts it), and ``asking`` asks a judge
about couples of a store, resumably. ``trial`` tries a judge on couples of known order before it is trusted.
"""

from grape.judges.asking import AskedJudge, load_judgments
from grape.judges.base import Judge, Judgment
from grape.judges.registry import JudgeChoice, JudgeContext, judge_names, open_judge, parse_judge, register_judge

__all__ = [
    "AskedJudge",
    "Judge",
    "JudgeChoice",
    "JudgeContext",
    "Judgment",
    "judge_names",
    "load_judgments",
    "open_judge",
    "parse_judge",
    "register_judge",
]
