"""A fair comparison of ways to use the same rollouts: arms x seeds (x iterations) from one starting policy a seed.

``settings`` is the study file, ``arms`` the named ways of training, ``checks`` refuses mistakes before the first
rollout, ``run`` makes the cells, ``cells`` holds their small result files, ``analysis`` and ``seeds`` compare them,
``plan`` says what it will cost, ``table`` and ``page`` show it. ``inspection`` finds out what training did in finished
cells, ``diagnosis`` holds that in small files, ``diagnosis_table`` says it.
"""

from grape.study.run import run_study
from grape.study.settings import StudySettings

__all__ = ["StudySettings", "run_study"]
