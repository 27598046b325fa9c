"""State of a training run on disk: enough to go on as if nothing had happened.

``checkpoints/update-000050/`` holds ``state.safetensors`` (trainable parameters, buffers, the optimiser's moments, all
flat tensors) and ``state.json``: the number of updates done and names, and what follows from them (position in the
data, learning rate, seed of the random numbers), which are functions of the run's seed and the number of the update.
``checkpoints/best/`` is the same of the best state so far. No pickle: a checkpoint of unknown origin can be read
safely.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import DataError
from grape.core.events import Reporter
from grape.core.files import read_json_mapping, sweep_temporaries, write_json
from grape.core.reading import open_file
from grape.policies.openvla.checkpoint import save_tensors
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup, put_whole, whole

__all__ = ["CheckpointFolder"]

_NAME = re.compile(r"update-(\d{6,})")
_TENSORS = "state.safetensors"
_FACTS = "state.json"
_AGAIN = "Delete the run's folder and train again."
_BEST = "best"


class CheckpointFolder:
    """The checkpoints of one run.

    With several processes all of them call every method; process 0 writes.

    Args:
        path: Folder of the checkpoints.
        keep: How many of the latest stay, besides the best.
        model: The network.
        optimizer: Its optimiser; the state of each trainable parameter is saved under the parameter's name.
        processes: The processes of the run.
    """

    def __init__(
        self,
        path: Path,
        keep: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.path = path
        self._keep = keep
        self._model = model
        self._optimizer = optimizer
        self._processes = processes

    def save(self, update: int, facts: Mapping[str, Any] | None = None) -> None:
        """Save the state after ``update`` updates and drop the oldest checkpoints beyond those to keep.

        Args:
            update: Number of updates done.
            facts: Further JSON values for ``state.json``.

        Raises:
            GrapeError: The disk is full; older checkpoints are untouched then.
        """
        self._write(self.path / f"update-{update:06d}", update, facts or {})
        if self._processes.is_main:
            self._prune()

    def save_best(self, update: int, facts: Mapping[str, Any] | None = None) -> None:
        """Save the state as the best one so far; the former best is replaced.

        Raises:
            GrapeError: The disk is full; the former best is untouched then.
        """
        self._write(self.path / _BEST, update, facts or {})

    def restore(self, reporter: Reporter) -> int:
        """Load the latest checkpoint that can be read, and clear what a killed process left.

        Returns:
            The number of updates it holds; 0 where there is none, and then nothing was changed.
        """
        update = self._processes.run_on_main(lambda: self._restore_latest(reporter))
        if update and not self._processes.is_main:
            self._load(self.path / f"update-{update:06d}", update)
        return update

    def restore_best(self) -> int:
        """Load the best state and return its number of updates.

        Raises:
            DataError: It is missing or truncated.
        """
        update = self._processes.run_on_main(self._restore_best)
        if not self._processes.is_main:
            self._load(self.path / _BEST, update)
        return update

    def _restore_best(self) -> int:
        update = read_json_mapping(self.path / _BEST / _FACTS, hint=_AGAIN, within=self.path).get("update")
        if type(update) is not int:
            raise DataError(f"Checkpoint {self.path / _BEST} does not say after which update it was made.", _AGAIN)
        self._load(self.path / _BEST, update)
        return update

    def _write(self, target: Path, update: int, facts: Mapping[str, Any]) -> None:
        tensors = self._tensors()
        self._processes.run_on_main(lambda: self._write_folder(target, tensors, update, facts))

    def _write_folder(self, target: Path, tensors: Mapping[str, Tensor], update: int, facts: Mapping[str, Any]) -> None:
        if target.name != _BEST and target.exists():
            return
        with atomic_folder(target) as temporary:
            save_tensors(tensors, temporary / _TENSORS, metadata=None)
            write_json(temporary / _FACTS, {"format": 1, "update": update, "tensors": sorted(tensors), **facts})

    def _restore_latest(self, reporter: Reporter) -> int:
        sweep_temporaries(self.path, alone=True)
        for update, folder in reversed(self._found()):
            try:
                self._load(folder, update)
            except DataError as error:
                reporter.warn(f"{error.message} Going back to the one before.")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._prune()
            return update
        return 0

    def _prune(self) -> None:
        """Drop the oldest checkpoints beyond those to keep."""
        for _, old in self._found()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

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
        """Everything to save, in the process that writes; the others help to gather and keep nothing."""
        trainable = self._trainable()
        named: list[tuple[str, Tensor]] = [(f"parameter/{name}", parameter) for name, parameter in trainable.items()]
        named += [(f"buffer/{name}", value) for name, value in self._buffers().items()]
        for name, parameter in trainable.items():
            slots = self._optimizer.state.get(parameter, {})
            named += [(f"optimizer/{slot}/{name}", torch.as_tensor(value)) for slot, value in slots.items()]
        tensors = {}
        for name, value in named:
            gathered = whole(value.detach())
            if self._processes.is_main:
                tensors[name] = gathered.cpu().contiguous()
        return tensors

    def _load(self, folder: Path, update: int) -> None:
        """Load everything or change nothing.

        Raises:
            DataError: A file is missing or truncated, or it is of another model.
        """
        facts = read_json_mapping(folder / _FACTS, hint=_AGAIN, within=self.path)
        open_file(folder / _TENSORS, within=self.path).close()  # a named pipe would never end
        try:
            with safe_open(folder / _TENSORS, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise DataError(f"Checkpoint {folder} is truncated ({error}).") from error
        trainable, buffers = self._trainable(), self._buffers()
        due: dict[str, Tensor] = {f"parameter/{name}": p for name, p in trainable.items()}
        due |= {f"buffer/{name}": value for name, value in buffers.items()}
        state = {name: value for name, value in tensors.items() if name.startswith("optimizer/")}
        weights = {name: value for name, value in tensors.items() if name not in state}
        fits = weights.keys() == due.keys() and all(value.shape == due[name].shape for name, value in weights.items())
        if facts.get("update") != update or facts.get("tensors") != sorted(tensors):
            raise DataError(f"Checkpoint {folder}: its two files do not belong together.")
        if not fits or any(not _is_state(name, value, trainable) for name, value in state.items()):
            raise DataError(f"Checkpoint {folder} is of another model.")
        with torch.no_grad():
            for name, value in weights.items():
                due[name].copy_(put_whole(due[name], value))
        self._optimizer.state.clear()
        for key, value in state.items():
            _, slot, name = key.split("/", 2)
            parameter = trainable[name]
            # AdamW counts its steps on the CPU; moments live beside the parameter.
            self._optimizer.state[parameter][slot] = value if value.ndim == 0 else put_whole(parameter, value)


def _is_state(name: str, value: Tensor, trainable: Mapping[str, nn.Parameter]) -> bool:
    """Whether ``optimizer/<slot>/<parameter>`` names state of a parameter and has its shape, or is a scalar."""
    parameter = trainable.get(name.split("/", 2)[-1])
    return name.count("/") >= 2 and parameter is not None and (value.ndim == 0 or value.shape == parameter.shape)
