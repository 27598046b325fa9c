"""The decision axis of an episode whose policy decides on several control steps at once, or samples in its own way."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_SUPPORT", "PLAIN", "Chunks", "chunk_steps", "cut_chunks", "is_logp_scale"]

DEFAULT_SUPPORT = "vocabulary"
"""What the softmax of a log-probability runs over where nothing else is recorded; its temperature is 1 then."""

PLAIN = (1, DEFAULT_SUPPORT, 1.0)
"""Chunk length, support and temperature of decisions on one action, which episodes do not record."""


def is_logp_scale(support: str, temperature: float) -> bool:
    """Whether log-probabilities can be recorded so: ``""`` and 0 without tokens, else a known support above 0."""
    if not support:
        return temperature == 0.0
    return support in (DEFAULT_SUPPORT, "window") and 0.0 < temperature < np.inf


@dataclass(frozen=True, eq=False)
class Chunks:
    """``N`` decisions on ``K`` actions each, of which the first ones were executed.

    The first control step of a decision follows from the counts before it, so that the two cannot contradict. The
    tokens behind the executed ones are kept as they were sampled; R_self and every loss leave them out.

    Attributes:
        executed: Executed actions of each decision, int32 ``(N,)``, 1 to ``K``; their sum is ``T``, the episode's
            control steps.
        length: Chunk length ``K``: actions a decision.
        tokens: Sampled token ids, int32 ``(N, K, D)``; None for a policy without tokens.
        logps: Their log-probabilities under ``support`` and ``temperature``, float32 ``(N, K, D)``; None without
            tokens.
        support: Token ids that the softmax of ``logps`` ran over: ``"vocabulary"`` (all) or ``"window"`` (the action
            tokens); empty without tokens.
        temperature: Temperature of ``logps``, which need not be that of sampling; 0 without tokens.
    """

    executed: npt.NDArray[np.int32]
    length: int
    tokens: npt.NDArray[np.int32] | None = None
    logps: npt.NDArray[np.float32] | None = None
    support: str = ""
    temperature: float = 0.0

    def __len__(self) -> int:
        return len(self.executed)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First control step of each decision, int64 ``(N,)``."""
        return np.cumsum(self.executed, dtype=np.int64) - self.executed

    @property
    def executed_mask(self) -> npt.NDArray[np.bool_]:
        """Which actions of each chunk were executed, bool ``(N, K)``."""
        mask: npt.NDArray[np.bool_] = np.arange(self.length) < self.executed[:, None]
        return mask

    @property
    def is_plain(self) -> bool:
        """Whether an episode without it says the same: one action a decision, default support, temperature 1."""
        return self.facts() == PLAIN

    def facts(self) -> tuple[int, str, float]:
        """Chunk length, support and temperature: what episodes that are learned from together agree on."""
        return self.length, self.support, self.temperature

    def executed_tokens(self, dim: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Tokens and log-probabilities of the executed actions, one row a control step.

        Args:
            dim: Dimensions ``D`` of an action.

        Returns:
            int32 and float32 ``(T, D)``; -1 and NaN for a policy without tokens, as for experts.
        """
        if self.tokens is None or self.logps is None:
            shape = (int(self.executed.sum()), dim)
            return np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        return self.tokens[self.executed_mask], self.logps[self.executed_mask]

    def problems(self, steps: int, dim: int) -> list[str]:
        """What contradicts an episode of ``steps`` control steps and ``dim`` dimensions, one clause each."""
        if self.executed.ndim != 1 or self.executed.dtype != np.int32:
            return [f"executed is {self.executed.dtype} {self.executed.shape}, not int32 (N,)"]
        clauses = []
        if self.length < 1:
            clauses.append(f"the chunk length is {self.length}")
        if len(self) and not (self.executed.min() >= 1 and self.executed.max() <= self.length):
            low, high = int(self.executed.min()), int(self.executed.max())
            clauses.append(f"decisions executed {low} to {high} actions of a chunk of {self.length}")
        if (total := int(self.executed.sum(dtype=np.int64))) != steps:
            clauses.append(f"decisions executed {total} actions, not {steps}")
        if (self.tokens is None) != (self.logps is None):
            clauses.append("tokens without log-probabilities, or the reverse")
        sampled = (("chunk tokens", self.tokens, np.int32), ("chunk log-probabilities", self.logps, np.float32))
        shape = (len(self), self.length, dim)
        for name, value, dtype in sampled:
            if value is not None and (value.shape != shape or value.dtype != dtype):
                clauses.append(f"{name} are {value.dtype} {value.shape}, not {np.dtype(dtype)} {shape}")
        if not is_logp_scale(self.support, self.temperature) or (self.tokens is None) != (self.support == ""):
            clauses.append(f"log-probabilities over {self.support!r} at temperature {self.temperature:g}")
        return clauses


def cut_chunks(
    values: npt.NDArray[np.float32], starts: npt.NDArray[np.integer], length: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Chunks of an episode's control steps, as an imitator of a policy that acts in chunks learns them.

    Args:
        values: One row a control step, e.g. labels, float32 ``(T, D)``.
        starts: First control step of each chunk, from 0 to ``T - 1``.
        length: Chunk length ``K``.

    Returns:
        float32 ``(N, K, D)``, the episode's last row repeated beyond its end; and which actions lie within the episode,
        bool ``(N, K)``.
    """
    steps, inside = chunk_steps(starts, length, len(values))
    return values[steps], inside


def chunk_steps(
    starts: npt.NDArray[np.integer], length: int, stops: npt.NDArray[np.integer] | int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.bool_]]:
    """Control steps of chunks.

    Args:
        starts: First control step of each chunk, ``(N,)``.
        length: Chunk length ``K``.
        stops: The end of the episode of each chunk, ``(N,)``, or of all of them.

    Returns:
        Integers ``(N, K)``, the episode's last step repeated beyond its end; and which of them lie within it, bool.
    """
    steps, ends = np.asarray(starts)[:, None] + np.arange(length), np.asarray(stops)[..., None]
    return np.minimum(steps, ends - 1), steps < ends
