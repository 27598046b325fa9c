"""``grape label``: people say which of two episodes of one initial state is better, on a page that this machine serves.

``couples`` are the candidates, ``choosing`` says which one comes next, ``session`` stands between the page and the
files of votes (:mod:`grape.judges.votes`), ``server`` answers the page (``label.html``) on loopback alone, ``videos``
encodes, and ``verb`` is the verb.
"""

from grape.labeling.verb import LabelSettings, run_label

__all__ = ["LabelSettings", "run_label"]
