"""Log-probabilities of recorded steps under a policy, without running frozen vision towers twice.

Towers that nothing trains give the same features in every epoch, for the reference and for the policy. They are
computed in blocks of neighbouring rows, and always in the same blocks: the last bits of a matrix product may depend on
what shares its batch, and a resumed run must see the same features as an uninterrupted one.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from grape.policies.openvla.model import PolicyInputs
from grape.training.dataset import StepDataset

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["StepLogprobs"]

_PASSING_BLOCKS = 2


class StepLogprobs:
    """``log pi(a_t | o_t, q)`` of the rows of a step table.

    Args:
        policy: The policy; its weights may change between calls, but not which of them are trainable.
        steps: The steps.
        block: Rows whose features are computed at once.
        feature_bytes: Memory for features of frozen towers; 0 computes them at every call.
        autocast: Type to compute in where the weights are kept in a finer one; None computes in the weights' type.
    """

    def __init__(
        self,
        policy: "OpenVLAPolicy",
        steps: StepDataset,
        block: int,
        feature_bytes: float = 0.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._policy = policy
        self.steps = steps
        self._block = block
        self._budget = feature_bytes
        self._autocast = autocast
        self.towers_frozen = not any(p.requires_grad for p in policy.model.vision_backbone.parameters())
        self._kept: dict[int, Tensor] = {}
        self._passing: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, rows_B: Tensor) -> Tensor:
        """Log-probability of each token, float32 ``(B, D)``, with graph.

        Args:
            rows_B: Which rows, int64.
        """
        model = self._policy.model
        inputs, tokens_BD = self._inputs(rows_B), self.steps.tokens_ND[rows_B]
        with torch.autocast(model.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            return model.action_logps(inputs, tokens_BD)

    def _inputs(self, rows_B: Tensor) -> PolicyInputs:
        rows = rows_B.numpy()
        instructions = [self.steps.instructions[row] for row in rows]
        if not (self.towers_frozen and self._budget):
            return self._policy.encode(self.steps.images_NHWC[rows], instructions)
        prompt_ids = tuple(self._policy.processor.prompt_ids(instruction) for instruction in instructions)
        blocks, inverse = np.unique(rows // self._block, return_inverse=True)
        features = [self._features(int(block)) for block in blocks]
        picked = [
            features[place][row - block * self._block]
            for place, row, block in zip(inverse, rows, blocks[inverse], strict=True)
        ]
        return PolicyInputs(None, prompt_ids, torch.stack(picked))

    def _features(self, block: int) -> Tensor:
        """Features of a whole block, ``(rows, N, C)``; kept while there is room, else for a moment."""
        found = self._kept.get(block)
        if found is None:
            found = self._passing.get(block)
        if found is not None:
            return found
        rows = np.arange(block * self._block, min((block + 1) * self._block, len(self.steps)))
        with torch.no_grad():
            pixels = self._policy.processor.pixels(self.steps.images_NHWC[rows])
            features = self._policy.model.image_features(pixels).cpu()
        if self._bytes + features.nbytes <= self._budget:
            self._kept[block] = features
            self._bytes += features.nbytes
        else:
            self._passing[block] = features
            if len(self._passing) > _PASSING_BLOCKS:
                self._passing.popitem(last=False)
        return features
