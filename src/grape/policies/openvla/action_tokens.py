"""Actions as tokens: bins on [-1, 1], one token a bin, counted down from the end of the vocabulary.

With ``n`` bins there are ``n`` edges ``linspace(-1, 1, n)`` and, as published, only ``n - 1`` intervals between them.
``digitize`` gives bins 1..n; bin ``n`` holds the value +1 alone and decodes like bin ``n - 1``. Token ids outside the
action range clip on decoding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.tasks import RotationConvention

__all__ = ["ActionNorm", "ActionTokenizer", "choose_unnorm_key", "rotation_of"]

FloatArray = npt.NDArray[np.floating[Any]]


class ActionTokenizer:
    """Conversion between normalized actions and token ids (OpenVLA, arXiv 2406.09246, section 3.2).

    Args:
        text_vocab: Number of ids that counting starts from; 32000 published.
        bins: Number of bin edges; 256 published.
    """

    def __init__(self, text_vocab: int, bins: int) -> None:
        self.text_vocab = text_vocab
        self.bins = bins
        self.edges = np.linspace(-1.0, 1.0, bins)
        self.centers = (self.edges[:-1] + self.edges[1:]) / 2.0

    @property
    def token_ids(self) -> npt.NDArray[np.int64]:
        """Id of bin 1, 2, ... ``bins``, int64 ``(bins,)``."""
        return self.text_vocab - np.arange(1, self.bins + 1)

    def encode(self, normalized: FloatArray) -> npt.NDArray[np.int64]:
        """Token ids of normalized values; values beyond [-1, 1] are clipped. Any shape."""
        return self.text_vocab - np.digitize(np.clip(normalized, -1.0, 1.0), self.edges)

    def decode(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Bin centers of token ids, float64; ids outside the action range clip. Any shape."""
        number = np.clip(self.text_vocab - np.asarray(tokens, dtype=np.int64) - 1, 0, self.bins - 2)
        return self.centers[number]

    def soft_targets(self, normalized: FloatArray, width_bins: float) -> npt.NDArray[np.float32]:
        """Target distribution over the bins around a value.

        Args:
            normalized: Values, any shape ``(...)``; clipped to [-1, 1].
            width_bins: Standard deviation of the Gaussian in widths of a bin; 0 puts all mass on the token of
                :meth:`encode`. Bin ``bins`` gets no mass otherwise, because it decodes like its neighbor.

        Returns:
            float32 ``(..., bins)``, each row summing to 1, in the order of :attr:`token_ids`.
        """
        clipped = np.clip(np.asarray(normalized, dtype=np.float64), -1.0, 1.0)
        if width_bins <= 0.0:
            hot = self.text_vocab - self.encode(clipped) - 1
            return np.asarray(np.arange(self.bins) == hot[..., None], dtype=np.float32)
        step = 2.0 / (self.bins - 1)
        distance = (clipped[..., None] - self.centers) / (step * width_bins)
        nearest = np.square(distance).min(axis=-1, keepdims=True)  # keeps narrow widths from underflowing to 0/0
        weight = np.exp(-0.5 * (np.square(distance) - nearest))
        target = np.zeros((*clipped.shape, self.bins), dtype=np.float32)
        target[..., :-1] = weight / weight.sum(axis=-1, keepdims=True)
        return target


# BridgeData's name among OpenVLA's statistics, and the first public GRAPE's name for its own of the same policies.
_ROLL_PITCH_YAW_KEYS = ("bridge_orig", "Simpler")


@dataclass(frozen=True, eq=False)
class ActionNorm:
    """Maps actions to [-1, 1] and back, a dimension at a time.

    Attributes:
        low: 1st percentile, float64 ``(D,)``.
        high: 99th percentile, float64 ``(D,)``.
        mask: Which dimensions are mapped; the others (the gripper, usually) pass unchanged. Bool ``(D,)``.
        epsilon: What :meth:`unnormalize` adds to the range: 0 in OpenVLA, 1e-8 in OpenVLA-OFT.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    mask: npt.NDArray[np.bool_]
    epsilon: float = 0.0

    @property
    def dim(self) -> int:
        """Dimensions of an action."""
        return int(self.low.shape[0])

    def normalize(self, actions_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Actions mapped to [-1, 1] and clipped; a dimension that never moved maps to 0. Float64 ``(N, D)``."""
        actions = np.asarray(actions_ND, dtype=np.float64)
        mapped = np.clip(2.0 * (actions - self.low) / (self.high - self.low + 1e-8) - 1.0, -1.0, 1.0)
        mapped = np.where(self.high == self.low, 0.0, mapped)
        return np.where(self.mask, mapped, actions)

    def unnormalize(self, normalized_ND: FloatArray) -> npt.NDArray[np.float64]:
        """Inverse of :meth:`normalize` (without its clipping), float64 ``(N, D)``."""
        mapped = 0.5 * (normalized_ND + 1.0) * (self.high - self.low + self.epsilon) + self.low
        return np.asarray(np.where(self.mask, mapped, normalized_ND), dtype=np.float64)

    @staticmethod
    def from_stats(
        stats: Mapping[str, Any],
        where: str,
        *,
        part: str = "action",
        bounds: tuple[str, str] = ("q01", "q99"),
        epsilon: float = 0.0,
    ) -> "ActionNorm":
        """Read one dataset's statistics; an absent mask means that all dimensions are mapped.

        Args:
            stats: One entry of ``norm_stats``.
            where: Its name, for messages.
            part: Which statistics of it: ``"action"`` or ``"proprio"``.
            bounds: Names of those that map to -1 and 1.
            epsilon: As the attribute.

        Raises:
            DataError: Percentiles are missing, of unequal length, not finite or in the wrong order.
        """
        lower, upper = bounds
        try:
            values = stats[part]
            low = np.asarray(values[lower], dtype=np.float64)
            high = np.asarray(values[upper], dtype=np.float64)
            mask = np.asarray(values.get("mask", np.ones_like(low)), dtype=np.bool_)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Normalization statistics {where!r} lack {part} percentiles ({error!r}).",
                f"They need {part}.{lower} and {part}.{upper}, one number a dimension.",
            ) from error
        if low.ndim != 1 or low.shape != high.shape or low.shape != mask.shape or not low.size:
            raise DataError(f"Normalization statistics {where!r}: {lower}, {upper} and mask differ in length.")
        if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
            raise DataError(
                f"Normalization statistics {where!r}: {lower} and {upper} must be finite and {lower} <= {upper}."
            )
        return ActionNorm(low, high, mask, epsilon)


def rotation_of(unnorm_key: str) -> str:
    """Rotation convention of actions under some statistics, as in :class:`~grape.policies.base.PolicySpec`."""
    return RotationConvention.ROLL_PITCH_YAW if unnorm_key in _ROLL_PITCH_YAW_KEYS else ""


def choose_unnorm_key(norm_stats: Mapping[str, Any], unnorm_key: str | None) -> str:
    """The statistics to use.

    Args:
        norm_stats: Statistics by dataset.
        unnorm_key: The user's choice; None picks the only ones there are.

    Raises:
        SettingsError: The name is unknown, or there are several and none was chosen.
        DataError: There are none.
    """
    if not norm_stats:
        raise DataError("The checkpoint has no normalization statistics.", "Add norm_stats to its config.json.")
    if unnorm_key is None:
        if len(norm_stats) > 1:
            raise SettingsError(
                f"The checkpoint has normalization statistics of {len(norm_stats)} datasets; choose one (unnorm_key).",
                f"Known: {', '.join(sorted(norm_stats))}.",
            )
        return str(next(iter(norm_stats)))
    require_known("unnorm_key", unnorm_key, norm_stats)
    return unnorm_key
