"""How scorers, judges, people and success agree on which of two episodes of one initial state is better.

``sources`` reads what was recorded, ``concordance``, ``reliability`` and ``probabilities`` measure, ``measure`` puts
the figures together. ``grape agree`` is in :mod:`grape.report`, which makes its page.
"""

from grape.agreement.concordance import Concordance, concordance_between
from grape.agreement.measure import MeasuredAgreement, measure_agreement
from grape.agreement.reliability import Reliability, krippendorff_alpha, reliability_of
from grape.agreement.sources import Couples, Source, judge_folders, read_sources

__all__ = [
    "Concordance",
    "Couples",
    "MeasuredAgreement",
    "Reliability",
    "Source",
    "concordance_between",
    "judge_folders",
    "krippendorff_alpha",
    "measure_agreement",
    "read_sources",
    "reliability_of",
]
