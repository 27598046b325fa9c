"""A small store with images, and the page's server over it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.labeling.choosing import Plan, order_couples
from grape.labeling.couples import candidates_of_store
from grape.labeling.session import Labeling
from grape.labeling.videos import EpisodeVideos
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout

TOKEN = "token"


def images(count: int, color: int) -> npt.NDArray[np.uint8]:
    """A block that moves from left to right."""
    frames = np.full((count, 64, 64, 3), 210, np.uint8)
    for number in range(count):
        x = 4 + 44 * number // max(1, count - 1)
        frames[number, 24:40, x : x + 12] = (color, 40, 255 - color)
    return frames


def make_store(path: Path, states: int = 2, samples: int = 4, **facts: Any) -> EpisodeStore:
    """Episodes of 5 and more control steps; even samples succeed."""
    store = EpisodeStore.create(path, "metaworld", {})
    for state in range(states):
        for sample in range(samples):
            rollout = make_rollout(state=state, sample=sample, success=sample % 2 == 0, steps=5 + 2 * sample, **facts)
            store.write(dataclasses.replace(rollout, frames=images(6 + 2 * sample, 60 * sample)))
    return store


def make_labeling(
    store: EpisodeStore, folder: Path, couples: int = 100, repeats: float = 0.0, **context: Any
) -> Labeling:
    candidates = candidates_of_store(store.path)
    order = order_couples(candidates.uncertain, candidates.states)
    plan = Plan(candidates.names, order, min(couples, len(order)), repeats)
    return Labeling(candidates.store, plan, folder, EpisodeVideos(candidates.store, 64), TOKEN.encode(), **context)
