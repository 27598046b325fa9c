"""Where decisions lie on the control steps of a step table.

Pairs name ranges of control steps, and a loss adds up the executed tokens of exactly these. The network computes whole
decisions: a range is cut where decisions begin, and its first and last parts may hold some of a chunk's actions only.
With one action a decision the two axes are one.
"""

import itertools
from collections.abc import Iterable
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
        steps: ``T``.
        bounds: First control step of each decision, and ``T`` at the end, int64 ``(N + 1,)``; None where each control
            step is a decision of its own, which takes no memory.
    """

    steps: int
    bounds: npt.NDArray[np.int64] | None = None

    @staticmethod
    def of(executed_N: npt.NDArray[np.integer]) -> "DecisionAxis":
        """The axis of decisions that executed so many actions each."""
        bounds = np.concatenate([[0], np.cumsum(executed_N, dtype=np.int64)])
        return DecisionAxis(int(bounds[-1]), bounds)

    @staticmethod
    def plain(steps: int) -> "DecisionAxis":
        """The axis on which each control step is a decision of its own."""
        return DecisionAxis(steps)

    def __len__(self) -> int:
        """The number ``N`` of decisions."""
        return self.steps if self.bounds is None else len(self.bounds) - 1

    def first_steps(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """First control step of some decisions, int64; that of decision ``N`` is ``T``."""
        return np.asarray(rows, dtype=np.int64) if self.bounds is None else self.bounds[rows]

    def rows_at(self, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Decisions that control steps lie in, int64."""
        if self.bounds is None:
            return np.asarray(steps, dtype=np.int64)
        return np.asarray(self.bounds.searchsorted(steps, "right") - 1, dtype=np.int64)

    def executed(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Executed actions of some decisions, int64, at least 1."""
        rows = np.asarray(rows)
        return self.first_steps(rows + 1) - self.first_steps(rows)

    def steps_of(self, rows: tuple[int, int]) -> tuple[int, int]:
        """Control steps [start, stop) of a range of decisions."""
        start, stop = self.first_steps(np.array(rows)).tolist()
        return start, stop

    def cut(self, steps: tuple[int, int]) -> list[tuple[int, int]]:
        """A range of control steps, cut where decisions begin."""
        start, stop = steps
        if start >= stop:
            return []
        if self.bounds is None:
            return [(step, step + 1) for step in range(start, stop)]
        inner = self.bounds[self.bounds.searchsorted(start, "right") : self.bounds.searchsorted(stop)]
        edges = [start, *inner.tolist(), stop]
        return list(itertools.pairwise(edges))

    def count(self, steps: tuple[int, int]) -> int:
        """Decisions that a range of control steps lies in."""
        start, stop = steps
        if start >= stop:
            return 0
        first, last = self.rows_at(np.array([start, stop - 1])).tolist()
        return int(last - first + 1)

    def segments(self, ranges: Iterable[tuple[int, int]]) -> Segments:
        """Ranges of control steps, each within one decision, as runs of actions."""
        starts_F, stops_F = np.array(list(ranges), dtype=np.int64).reshape(-1, 2).T
        rows_F = self.rows_at(starts_F)
        first_F, stop_F = starts_F - self.first_steps(rows_F), stops_F - self.first_steps(rows_F)
        return Segments(*(torch.from_numpy(part.astype(np.int64)) for part in (rows_F, first_F, stop_F)))

    def sums(self, segments: Segments, values_T: npt.NDArray[np.float64]) -> Tensor:
        """Sum of a value of each control step over each run of actions, float64 ``(F,)``."""
        totals = torch.from_numpy(np.concatenate([[0.0], np.cumsum(values_T)]))
        starts_F = torch.from_numpy(self.first_steps(segments.rows_F.numpy()))
        return totals[starts_F + segments.stop_F] - totals[starts_F + segments.first_F]

    def windows(self, steps: tuple[int, int], size: int, stride: int) -> int:
        """Windows of so many decisions of a range of control steps; a shorter range is one window."""
        return max(0, self.count(steps) - size) // stride + 1

    def window(self, steps: tuple[int, int], first: int, size: int = 1) -> tuple[int, int]:
        """Control steps of a window of a range of control steps.

        Args:
            steps: The range.
            first: First decision of the window, counted from the range's own.
            size: Decisions of the window; it ends with the range.
        """
        start, stop = steps
        row = int(self.rows_at(np.array([start]))[0]) + first
        edges = self.first_steps(np.minimum([row, row + size], len(self)))
        return max(start, int(edges[0])), min(stop, int(edges[1]))
