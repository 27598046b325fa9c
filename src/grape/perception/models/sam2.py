"""Segmentation of what is in a box with SAM 2 (arXiv 2408.00714)."""

import numpy as np
import numpy.typing as npt

from grape.core.errors import PolicyError
from grape.perception.models.opening import load_torch, load_transformers, model_errors, normalized, open_model

__all__ = ["Sam2"]

_LONGEST = 4_096  # published: 1,024


class Sam2:
    """Segmenter.

    Args:
        name: Folder or name on the hub, e.g. ``facebook/sam2.1-hiera-tiny``.
        device: Where it runs.

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._model = open_model(load_transformers().Sam2Model, name, device)
        self._name, self._device = name, device
        with model_errors(name):
            side = self._model.config.prompt_encoder_config.image_size
            self._height, self._width = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
        if not all(1 <= length <= _LONGEST for length in (self._height, self._width)):
            raise PolicyError(
                f"The model {name} takes images of {self._height} x {self._width}.", f"At most {_LONGEST} can be used."
            )

    def segment(self, image: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> npt.NDArray[np.bool_]:
        """See :class:`grape.perception.protocols.Segmenter`."""
        with model_errors(self._name):
            return self._segment(image, box)

    def _segment(self, image: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> npt.NDArray[np.bool_]:
        torch = load_torch()
        height, width = image.shape[:2]
        # The image is stretched to a square, and the box with it.
        scale = np.array([self._width / width, self._height / height] * 2)
        pixels = torch.from_numpy(normalized(image, self._height, self._width)).to(self._device)
        prompt = torch.tensor(np.asarray(box) * scale, dtype=torch.float32, device=self._device)[None, None]
        with torch.inference_mode():
            reply = self._model(pixel_values=pixels, input_boxes=prompt, multimask_output=False)
            logits = torch.nn.functional.interpolate(
                reply.pred_masks[0, :, :1].float(), (height, width), mode="bilinear", align_corners=False
            )
        mask: npt.NDArray[np.bool_] = (logits[0, 0] > 0).cpu().numpy()
        return mask
