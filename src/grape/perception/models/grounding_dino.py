"""Open-vocabulary detection with Grounding DINO (arXiv 2303.05499)."""

import numpy as np
import numpy.typing as npt

from grape.perception.models.opening import (
    load_torch,
    load_transformers,
    model_errors,
    normalized,
    open_model,
    open_tokenizer,
    shorter_side,
)
from grape.perception.protocols import Detection

__all__ = ["GroundingDino"]

Float64 = npt.NDArray[np.float64]

_SAME = 0.7  # overlap (intersection over union) above which the less sure of two boxes is dropped


class GroundingDino:
    """Detector of what a phrase names.

    Asked for one phrase at a time, so that no box needs to be told apart by words.

    Args:
        name: Folder or name on the hub, e.g. ``IDEA-Research/grounding-dino-tiny``.
        device: Where it runs.
        threshold: Least score of a box.
        shortest: Length of the image's shorter side for the network, pixels.
        longest: Largest length of the other side.

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """

    def __init__(
        self, name: str, device: str = "cpu", threshold: float = 0.3, shortest: int = 800, longest: int = 1333
    ) -> None:
        transformers = load_transformers()
        self._model = open_model(transformers.GroundingDinoForObjectDetection, name, device)
        self._tokenizer = open_tokenizer(transformers.BertTokenizer, name)
        self._name, self._device, self._threshold = name, device, threshold
        self._shortest, self._longest = shortest, longest

    def detect(self, image: npt.NDArray[np.uint8], phrase: str) -> tuple[Detection, ...]:
        """See :class:`grape.perception.protocols.Detector`; a box's score is that of its best word."""
        with model_errors(self._name):
            return self._detect(image, phrase)

    def _detect(self, image: npt.NDArray[np.uint8], phrase: str) -> tuple[Detection, ...]:
        torch = load_torch()
        height, width = image.shape[:2]
        pixels = normalized(image, *shorter_side(height, width, self._shortest, self._longest))
        # Lower case and a full stop at the end: how the model was trained.
        text = self._tokenizer([phrase.lower().strip().rstrip(".") + "."], return_tensors="pt")
        with torch.inference_mode():
            reply = self._model(
                pixel_values=torch.from_numpy(pixels).to(self._device),
                pixel_mask=torch.ones((1, *pixels.shape[2:]), dtype=torch.int64, device=self._device),
                **{key: value.to(self._device) for key, value in text.items()},
            )
        chances = reply.logits[0].sigmoid().float().cpu().numpy().astype(np.float64)
        boxes = reply.pred_boxes[0].float().cpu().numpy().astype(np.float64)
        tokens = text["input_ids"][0].numpy()
        aside = {self._tokenizer.cls_token_id, self._tokenizer.sep_token_id, self._tokenizer.pad_token_id}
        aside.add(self._tokenizer.convert_tokens_to_ids("."))
        words = np.array([token not in aside for token in tokens])
        scores = chances[:, : len(tokens)][:, words].max(axis=1, initial=0.0)
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        corners = np.clip(corners, 0.0, 1.0) * np.array([width, height, width, height])
        order = np.argsort(-scores, kind="stable")
        selected: list[int] = []
        for index in order[scores[order] >= self._threshold]:
            if all(_overlap(corners[index], corners[other]) < _SAME for other in selected):
                selected.append(int(index))
        return tuple(
            Detection((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score))
            for box, score in zip(corners[selected], scores[selected], strict=True)
        )


def _overlap(one: Float64, other: Float64) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    together = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / together if together > 0 else 0.0
