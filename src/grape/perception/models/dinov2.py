"""Features of every part of an image with DINOv2 (arXiv 2304.07193)."""

import numpy as np
import numpy.typing as npt

from grape.core.errors import PolicyError
from grape.perception.models.opening import load_torch, load_transformers, model_errors, normalized, open_model

__all__ = ["DinoV2"]


class DinoV2:
    """Extractor of features.

    Args:
        name: Folder or name on the hub, e.g. ``facebook/dinov2-small``.
        device: Where it runs.
        patches: Cells along the image's shorter side; each is a patch of the network (14 pixels).

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """

    def __init__(self, name: str, device: str = "cpu", patches: int = 37) -> None:
        self._model = open_model(load_transformers().Dinov2Model, name, device)
        self._name, self._device, self._patches = name, device, patches

    def features(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See :class:`grape.perception.protocols.FeatureExtractor`."""
        torch = load_torch()
        height, width = image.shape[:2]
        scale = self._patches / min(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        size = int(self._model.config.patch_size)
        pixels = normalized(image, rows * size, columns * size, cubic=True)
        with model_errors(self._name), torch.inference_mode():
            reply = self._model(pixel_values=torch.from_numpy(pixels).to(self._device))
            cells: npt.NDArray[np.float32] = reply.last_hidden_state[0, 1:].float().cpu().numpy()  # first: the class
            features = cells.reshape(rows, columns, -1)
        if not np.isfinite(features).all():
            raise PolicyError(f"The model {self._name} gives features that are no numbers.", "Download it again.")
        return features
