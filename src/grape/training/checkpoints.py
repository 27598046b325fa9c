"""State of a training run on disk: enough to go on as if nothing had happened.

``checkpoints/update-000050/`` holds ``state.safetensors`` (trainable parameters, buffers, the optimiser's moments, all
flat tensors) and ``state.json`` (number of updates done, names). Order of data, learning rate and random numbers are
functions of the seed and the number of the update, so nothing else is needed. No pickle: a checkpoint of unknown
origin can be read safely.
"""

import os
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from grape.core.errors import DataError
from grape.core.events import Reporter
from grape.core.files import read_json, write_json
from grape.policies.openvla.checkpoint import atomic_folder

__all__ = ["CheckpointFolder", "sweep"]

_NAME = re.compile(r"update-(\d{6,})")
_TENSORS = "state.safetensors"
_FACTS = "state.json"


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        path: Folder of the checkpoints.
        keep: How many of the latest stay.
        model: The network.
        optimizer: Its optimiser; the state of each trainable parameter is saved under the parameter's name.
    """

    def __init__(self, path: Path, keep: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.path = path
        self._keep = keep
        self._model = model
        self._optimizer = optimizer

    def save(self, update: int) -> None:
        """Save the state after ``update`` updates and drop the oldest checkpoints beyond those to keep.

        Raises:
            GrapeError: The disk is full; older checkpoints are untouched then.
        """
        target = self.path / f"update-{update:06d}"
        if not target.exists():
            tensors = self._tensors()
            with atomic_folder(target) as temporary:
                save_file(tensors, temporary / _TENSORS)
                _sync(temporary / _TENSORS)
                write_json(temporary / _FACTS, {"format": 1, "update": update, "tensors": sorted(tensors)})
        for _, old in self._found()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def restore(self, reporter: Reporter) -> int:
        """Load the latest checkpoint that can be read.

        Returns:
            The number of updates it holds; 0 where there is none, and then nothing was changed.
        """
        sweep(self.path)
        for update, folder in reversed(self._found()):
            try:
                self._load(folder, update)
            except DataError as error:
                reporter.warn(f"{error.message} Going back to the one before.")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            return update
        return 0

    def _found(self) -> list[tuple[int, Path]]:
        """Checkpoints by number of updates, oldest first."""
        if not self.path.is_dir():
            return []
        matches = ((_NAME.fullmatch(entry.name), entry) for entry in self.path.iterdir())
        return sorted((int(match[1]), entry) for match, entry in matches if match)

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that belong to the model's state; frozen parameters and constants do not change."""
        known = self._model.state_dict(keep_vars=True)
        return {name: buffer for name, buffer in self._model.named_buffers() if name in known}

    def _tensors(self) -> dict[str, Tensor]:
        trainable = self._trainable()
        tensors = {f"parameter/{name}": p.detach().cpu().contiguous() for name, p in trainable.items()}
        tensors |= {f"buffer/{name}": value.detach().cpu().contiguous() for name, value in self._buffers().items()}
        for name, parameter in trainable.items():
            for slot, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{slot}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return tensors

    def _load(self, folder: Path, update: int) -> None:
        """Load everything or change nothing.

        Raises:
            DataError: A file is missing or torn, or it is of another model.
        """
        facts = read_json(folder / _FACTS)
        try:
            with safe_open(folder / _TENSORS, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise DataError(f"Checkpoint {folder} is torn ({error}).") from error
        trainable, buffers = self._trainable(), self._buffers()
        due: dict[str, Tensor] = {f"parameter/{name}": p for name, p in trainable.items()}
        due |= {f"buffer/{name}": value for name, value in buffers.items()}
        state = {name: value for name, value in tensors.items() if name.startswith("optimizer/")}
        weights = {name: value for name, value in tensors.items() if name not in state}
        fits = weights.keys() == due.keys() and all(value.shape == due[name].shape for name, value in weights.items())
        if not isinstance(facts, dict) or facts.get("update") != update or facts.get("tensors") != sorted(tensors):
            raise DataError(f"Checkpoint {folder}: its two files do not belong together.")
        if not fits or any(name.split("/", 2)[2] not in trainable for name in state):
            raise DataError(f"Checkpoint {folder} is of another model.")
        with torch.no_grad():
            for name, value in weights.items():
                due[name].copy_(value)
        self._optimizer.state.clear()
        for key, value in state.items():
            _, slot, name = key.split("/", 2)
            parameter = trainable[name]
            # AdamW counts its steps on the CPU; moments live beside the parameter.
            self._optimizer.state[parameter][slot] = value if value.ndim == 0 else value.to(parameter.device)


def sweep(folder: Path) -> None:
    """Delete what killed writers of a run's own folder left half-written: hidden files and folders."""
    for entry in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
