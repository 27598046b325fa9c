"""The episode store: what happened in each rollout, written down once, losslessly, and never changed.

One immutable Parquet file an episode, so that workers never share a file and a kill costs at most the episode under
way. Everything else in a store (the index of facts) is a cache that is rebuilt when it is stale or broken.
"""

from grape.store.combined import open_stores
from grape.store.encoded import EpisodeFile
from grape.store.episode_store import EpisodeStore
from grape.store.memory import EpisodesInMemory, save_trajectories
from grape.store.opened import OpenedStores
from grape.store.source import Decisions, Episodes, EpisodeSource
from grape.store.unfinished import PLAN_FILE, about_unfinished, lost_episodes, note_planned

__all__ = [
    "PLAN_FILE",
    "Decisions",
    "EpisodeFile",
    "EpisodeSource",
    "EpisodeStore",
    "Episodes",
    "EpisodesInMemory",
    "OpenedStores",
    "about_unfinished",
    "lost_episodes",
    "note_planned",
    "open_stores",
    "save_trajectories",
]
