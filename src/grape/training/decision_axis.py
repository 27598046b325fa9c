"""Where decisions lie on the control steps of a step table.

Pairs name ranges of control steps, and a loss adds up the executed tokens of exactly these. The network computes whole
decisions: a range is cut where decisions begin, and its first and last parts may hold some of a chunk's actions only.
With one action a decision the two axes are one.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["DecisionAxis", "Segments"]


@dataclass(frozen=True, eq=False)
class Segments:
    """``F`` runs of executed actions, each within one decision; int64 ``(F,)`` throughout.

    Attributes:
        rows_F: Row of the decision in the step table.
        first_F: First action of the run within its chunk.
        stop_F: The action behind its last one, at most the executed ones.
    """

    rows_F: Tensor
    first_F: Tensor
    stop_F: Tensor

    def __len__(self) -> int:
        return len(self.rows_F)

    def __getitem__(self, positions: Tensor) -> "Segments":
        """The runs at some positions, in that order."""
        return Segments(self.rows_F[positions], self.first_F[positions], self.stop_F[positions])


@dataclass(frozen=True, eq=False)
class DecisionAxis:
    """The ``N`` decisions of a step table on its ``T`` control steps.

    Attributes:
        bounds: First control step of each decision, and ``T`` at the end, int64 ``(N + 1,)``.
    """

    bounds: npt.NDArray[np.int64]

    @staticmethod
    def of(executed_N: npt.NDArray[np.integer]) -> "DecisionAxis":
        """The axis of decisions that executed so many actions each."""
        return DecisionAxis(np.concatenate([[0], np.cumsum(executed_N, dtype=np.int64)]))

    @staticmethod
    def plain(steps: int) -> "DecisionAxis":
        """The axis on which each control step is a decision of its own."""
        return DecisionAxis(np.arange(steps + 1))

    def steps_of(self, rows: tuple[int, int]) -> tuple[int, int]:
        """Control steps [start, stop) of a range of decisions."""
        return int(self.bounds[rows[0]]), int(self.bounds[rows[1]])

    def cut(self, steps: tuple[int, int]) -> list[tuple[int, int]]:
        """A range of control steps, cut where decisions begin."""
        start, stop = steps
        if start >= stop:
            return []
        inner = self.bounds[self.bounds.searchsorted(start, "right") : self.bounds.searchsorted(stop)]
        edges = [start, *inner.tolist(), stop]
        return list(itertools.pairwise(edges))

    def count(self, steps: tuple[int, int]) -> int:
        """Decisions that a range of control steps lies in."""
        return len(self.cut(steps))

    def segments(self, ranges: Iterable[tuple[int, int]]) -> Segments:
        """Ranges of control steps, each within one decision, as runs of actions."""
        starts_F, stops_F = np.array(list(ranges), dtype=np.int64).reshape(-1, 2).T
        rows_F = self.bounds.searchsorted(starts_F, "right") - 1
        first_F, stop_F = starts_F - self.bounds[rows_F], stops_F - self.bounds[rows_F]
        return Segments(*(torch.from_numpy(part.astype(np.int64)) for part in (rows_F, first_F, stop_F)))

    def sums(self, segments: Segments, values_T: npt.NDArray[np.float64]) -> Tensor:
        """Sum of a value of each control step over each run of actions, float64 ``(F,)``."""
        totals = torch.from_numpy(np.concatenate([[0.0], np.cumsum(values_T)]))
        starts_F = torch.from_numpy(self.bounds)[segments.rows_F]
        return totals[starts_F + segments.stop_F] - totals[starts_F + segments.first_F]

    def windows(self, steps: tuple[int, int], window: int, stride: int) -> list[tuple[int, int]]:
        """Windows of so many decisions of a range of control steps; a shorter range is one window."""
        parts: Sequence[tuple[int, int]] = self.cut(steps)
        if len(parts) <= window:
            return [steps]
        firsts = range(0, len(parts) - window + 1, stride)
        return [(parts[first][0], parts[first + window - 1][1]) for first in firsts]
