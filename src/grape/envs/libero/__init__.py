"""LIBERO's Panda arm: four suites of ten tasks and one of ninety (Liu et al. 2023, arXiv 2306.03310)."""
