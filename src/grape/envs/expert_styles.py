"""Styles of scripted operators, shared by all suites.

An expert of a suite computes actions; the operator's style decides where it aims and how much noise is added. A policy
trained on demonstrations of mixed styles both succeeds and fails from one initial state, which preference pairs need.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grape.core.errors import require_known
from grape.core.seeds import derive_rng

__all__ = [
    "HELD_NOISE_SHARE",
    "HELD_NOISE_STD",
    "HELD_NOISE_STEPS",
    "NOISE_STD",
    "OPERATORS",
    "SLOPPY_OFFSET",
    "SLOW_SHARE",
    "Operator",
]

OPERATORS = ("clean", "noisy", "sloppy", "held-noise", "slow")
"""``clean`` follows the script; ``noisy`` shakes; ``sloppy`` aims beside the target for the whole episode;
``held-noise`` drifts for a few control steps, now and then: where actions are short, it strays farther than ``noisy``,
whose steps cancel out, and shows how to come back; ``slow`` does what ``clean`` does in shorter steps."""

NOISE_STD = 0.2
"""Standard deviation of the noisy operator's translation, in units of the action."""

HELD_NOISE_STD = 0.3
"""Standard deviation of the drift of ``held-noise``, where that of the noisy operator is :data:`NOISE_STD`."""

HELD_NOISE_STEPS = 4
"""Control steps for which a drift lasts."""

HELD_NOISE_SHARE = 0.4
"""Probability that ``held-noise`` drifts in the next :data:`HELD_NOISE_STEPS` control steps."""

SLOPPY_OFFSET = 0.08
"""Horizontal distance in meters between the target and the point at which the sloppy operator aims."""


SLOW_SHARE = 0.5
"""Share of the scripted translation and rotation that the slow operator carries out in a step."""


class Operator:
    """One operator during one episode.

    Args:
        style: One of :data:`OPERATORS`.
        seed: Seed of the noise and of the sloppy operator's direction.
        noise_std: Of the noisy operator's translation, in units of the action; less than usual where a unit is a long
            way.

    Attributes:
        aim_offset: Where the operator aims relative to the true target, meters, float64 ``(3,)``; constant over the
            episode and zero unless sloppy.

    Raises:
        SettingsError: The style is unknown.
    """

    def __init__(self, style: str, seed: int, noise_std: float = NOISE_STD) -> None:
        require_known("operator", style, OPERATORS)
        self._style = style
        self._noise_std = noise_std
        self._drift: npt.NDArray[np.float32] = np.zeros(3, dtype=np.float32)
        self._acted = 0
        self._rng = derive_rng(seed, "operator", style)
        self.aim_offset: npt.NDArray[np.float64] = np.zeros(3)
        if style == "sloppy":
            angle = self._rng.uniform(0.0, 2.0 * math.pi)
            self.aim_offset = SLOPPY_OFFSET * np.array([math.cos(angle), math.sin(angle), 0.0])

    def perform(
        self, scripted_action: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Turn the script's action into the executed action and the label for imitation.

        Args:
            scripted_action: The script's action ``(D,)``, translation first; may exceed [-1, 1].

        Returns:
            Executed action and label, float32 ``(D,)`` within [-1, 1]. They differ only for operators with noise, whose
            label is the action without it: noise moves the state, the label says how to recover from there.
        """
        label = np.clip(scripted_action, -1.0, 1.0).astype(np.float32)
        if self._style == "slow":
            label[:6] *= SLOW_SHARE
        executed = label.copy()
        if self._style == "noisy":
            executed[:3] += self._rng.normal(0.0, self._noise_std, size=3).astype(np.float32)
        elif self._style == "held-noise":
            executed[:3] += self._next_drift()
        return np.clip(executed, -1.0, 1.0), label

    def _next_drift(self) -> npt.NDArray[np.float32]:
        """The drift of the next control step, ``(3,)``; drawn anew at the beginning of each block of them."""
        if self._acted % HELD_NOISE_STEPS == 0:
            drifts = self._rng.random() < HELD_NOISE_SHARE
            std = self._noise_std * HELD_NOISE_STD / NOISE_STD if drifts else 0.0
            self._drift = self._rng.normal(0.0, std, size=3).astype(np.float32)
        self._acted += 1
        return self._drift
