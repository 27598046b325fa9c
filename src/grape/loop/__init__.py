"""The verbs in a row, again and again: collect, score, pair, train, evaluate, with a gate between iterations.

``settings`` nests the settings of the verbs, ``stages`` fills in what the loop decides (paths, seeds, initial states),
``checks`` refuses mistakes before the first stage, ``plan`` says what it will cost, ``loop`` runs the stages and
decides which policy goes on, ``filtered_bc`` puts the obvious baseline beside it.
"""

from grape.loop.loop import run_loop
from grape.loop.settings import RECIPES, LoopSettings, out_of_seed

__all__ = ["RECIPES", "LoopSettings", "out_of_seed", "run_loop"]
