"""RLDS: data sets of episodes in the layout of TensorFlow Datasets, read and written without TensorFlow."""

from grape.store.rlds.dataset import Episode, RldsDataset, open_rlds

__all__ = ["Episode", "RldsDataset", "open_rlds"]
