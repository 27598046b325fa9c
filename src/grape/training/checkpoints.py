"""State of a training run on disk: enough to go on as if nothing had happened.

``checkpoints/update-000050/`` holds ``state.safetensors`` (trainable parameters, buffers, the optimizer's moments, all
flat tensors) and ``state.json``: the number of updates done and names, and what follows from them (position in the
data, learning rate, seed of the random numbers), which are functions of the run's seed and the number of the update.
Where parameters are sharded, ``shards/`` stands in the place of ``state.safetensors``: one file a process, so that no
process ever holds the whole state; a run with another number of processes can go on from it.
``checkpoints/best/`` is the same of the best state so far. ``state.json`` has the hash of every file beside it: where a
folder comes back in parts, as from an object store that a killed process was uploading to, a part of another state is
noticed. No pickle: a checkpoint of unknown origin can be read safely.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import DataError, GrapeError
from grape.core.events import Reporter
from grape.core.files import file_hash, read_json_mapping, sweep_temporaries, sync_folder, write_json
from grape.core.reading import open_file
from grape.policies.tensor_files import save_tensors
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup, is_sharded, put_whole, reshard
from grape.training.shards import read_shards, shapes_of_shards, write_shards

__all__ = ["CheckpointFolder"]

_NAME = re.compile(r"update-(\d{6,})")
_TENSORS = "state.safetensors"
_SHARDS = "shards"
_FACTS = "state.json"
_HASHES = "sha256"
_AGAIN = "Delete the run's folder and train again."
_BEST = "best"


class CheckpointFolder:
    """The checkpoints of one run.

    With several processes all of them call every method; process 0 writes, and each its part of a sharded network.

    Args:
        path: Folder of the checkpoints, which all processes see.
        keep: How many of the latest stay, besides the best.
        model: The network.
        optimizer: Its optimizer; the state of each trainable parameter is saved under the parameter's name.
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

    def restore(
        self, reporter: Reporter, best_of: Callable[[int], int | None] | None = None, *, needs_best: bool = False
    ) -> int:
        """Load the latest checkpoint that can be read, and clear what a killed process left.

        A best state that is damaged or not the best is made again from the checkpoint of its update.

        Args:
            reporter: Hears of what is damaged.
            best_of: After which of so many updates the state was best: 0 where none was evaluated, None where the
                run's record lacks some of them, and then the checkpoint is passed over. Process 0 calls it.
            needs_best: Whether to go back, where a best state cannot be made again, to a checkpoint before it: the
                updates that follow make it then.

        Returns:
            The number of updates it holds; 0 where there is none, and then nothing was changed.
        """
        processes = self._processes
        processes.run_on_main(lambda: sweep_temporaries(self.path, alone=True))
        for update, folder in reversed(processes.run_on_main(self._saved)):
            put, problem = self._read_together(folder, update)
            if problem is None and best_of is not None:
                problem = self._settle_best(
                    update, processes.run_on_main(partial(best_of, update)), reporter, needs_best
                )
            if put is not None and problem is None:
                put()
                processes.run_on_main(self._prune)
                return update
            reporter.warn(f"{problem} Going back to the one before.")
            processes.run_on_main(partial(shutil.rmtree, folder, ignore_errors=True))
        return 0

    def restore_best(self) -> int:
        """Load the best state and return its number of updates.

        Raises:
            DataError: It is missing, truncated or mixed of two states.
        """
        update = self._processes.run_on_main(self._best_update)
        put, problem = self._read_together(self.path / _BEST, update)
        if put is None or problem is not None:
            raise DataError(problem or "", _AGAIN)
        put()
        return update

    def _settle_best(self, update: int, due: int | None, reporter: Reporter, needed: bool) -> str | None:
        """See that ``best`` holds the state it should after so many updates; returns why it cannot, where it must."""
        if due is None:
            return f"Metrics of the {update} updates up to a checkpoint in {self.path} are missing."
        if not due:
            return None
        best, source = self.path / _BEST, self.path / f"update-{due:06d}"
        held, problem = self._processes.run_on_main(self._held_best)
        if held > update:
            return None  # a killed process was ahead; that update comes again and replaces it
        if not problem and held != due:
            problem = f"Checkpoint {best} is of update {held}, the best one is of update {due}."
        if not problem and (damage := self._check_together(best, held)):
            problem = damage
        if not problem:
            return None
        if self._check_together(source, due) is None:
            self._processes.run_on_main(partial(_copy, source, best))
            reporter.warn(f"{problem} It was made again from {source.name}.")
            return None
        if needed:
            return problem
        self._processes.run_on_main(partial(shutil.rmtree, best, ignore_errors=True))
        reporter.warn(f"{problem} It was removed; the result does not depend on it.")
        return None

    def _held_best(self) -> tuple[int, str]:
        """Number of updates that ``best`` says it holds, or 0 and what is wrong with it."""
        try:
            return self._best_update(), ""
        except DataError as error:
            return 0, error.message

    def _best_update(self) -> int:
        update = read_json_mapping(self.path / _BEST / _FACTS, hint=_AGAIN, within=self.path).get("update")
        if type(update) is not int:
            raise DataError(f"Checkpoint {self.path / _BEST} does not say after which update it was made.", _AGAIN)
        return update

    def _write(self, target: Path, update: int, facts: Mapping[str, Any]) -> None:
        if self._processes.run_on_main(lambda: target.name != _BEST and target.exists()):
            return
        facts = {"format": 1, "update": update, **facts}
        tensors = self._tensors()
        if is_sharded(self._model):
            self._write_shards(target, tensors, facts)
            return

        def write() -> None:
            with atomic_folder(target) as temporary:
                whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
                save_tensors(whole, temporary / _TENSORS, metadata=None)
                hashes = {_TENSORS: file_hash(temporary / _TENSORS)}
                write_json(temporary / _FACTS, {**facts, "tensors": sorted(tensors), _HASHES: hashes})

        self._processes.run_on_main(write)

    def _write_shards(self, target: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Each process writes its part into one folder, which takes its name when all have."""
        processes = self._processes
        with contextlib.ExitStack() as stack:  # process 0's; the others' stay empty

            def begin() -> Path:
                temporary = stack.enter_context(atomic_folder(target))
                (temporary / _SHARDS).mkdir()
                return temporary

            def arrived() -> list[str]:
                names = sorted(path.name for path in (temporary / _SHARDS).iterdir())
                if len(names) != processes.size:
                    raise GrapeError(
                        f"{len(names)} of {processes.size} parts of checkpoint {target} arrived.",
                        "--out must lie on a file system that all processes share.",
                    )
                return names

            def complete() -> None:
                sync_folder(temporary / _SHARDS)
                if unread := [name for name in names if name not in hashes]:
                    raise GrapeError(f"Part {unread[0]} of checkpoint {target} cannot be read again.")
                shown = {"shards": names, _HASHES: {name: hashes[name] for name in names}}
                write_json(temporary / _FACTS, {**facts, "tensors": sorted(tensors), **shown})
                stack.close()

            temporary = processes.run_on_main(begin)
            write_shards(tensors, temporary / _SHARDS)
            names = processes.run_on_main(arrived)
            hashes: dict[str, str] = {}
            for part in processes.gather(self._hashes(temporary / _SHARDS, names)):
                hashes |= part
            processes.run_on_main(complete)

    def _hashes(self, folder: Path, names: Sequence[str]) -> dict[str, str]:
        """Hashes of the files that fall to this process; those that cannot be read are left out, others wait for it."""
        hashes = {}
        for name in self._share(names):
            with contextlib.suppress(DataError, OSError):
                hashes[name] = file_hash(folder / name)
        return hashes

    def _share(self, names: Sequence[str]) -> Sequence[str]:
        """The names that fall to this process."""
        return names[self._processes.rank :: self._processes.size]

    def _prune(self) -> None:
        """Drop the oldest checkpoints beyond those to keep."""
        for _, old in self._saved()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _saved(self) -> list[tuple[int, Path]]:
        """Checkpoints by number of updates, oldest first."""
        if not self.path.is_dir():
            return []
        matches = ((_NAME.fullmatch(entry.name), entry) for entry in self.path.iterdir())
        return sorted((int(match[1]), entry) for match, entry in matches if match)

    def _trainable(self) -> dict[str, nn.Parameter]:
        reshard(self._model)
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that belong to the model's state; frozen parameters and constants do not change."""
        known = self._model.state_dict(keep_vars=True)
        return {name: buffer for name, buffer in self._model.named_buffers() if name in known}

    def _tensors(self) -> dict[str, Tensor]:
        """Everything to save, as this process holds it."""
        trainable = self._trainable()
        tensors: dict[str, Tensor] = {f"parameter/{name}": parameter for name, parameter in trainable.items()}
        tensors |= {f"buffer/{name}": value for name, value in self._buffers().items()}
        for name, parameter in trainable.items():
            slots = self._optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{slot}/{name}": torch.as_tensor(value) for slot, value in slots.items()}
        return {name: value.detach() for name, value in tensors.items()}

    def _read_together(self, folder: Path, update: int) -> tuple[Callable[[], None] | None, str | None]:
        """What puts a checkpoint into network and optimizer, or what is wrong with it; the same in all processes."""
        put: Callable[[], None] | None = None
        problem = None
        try:
            put = self._read(folder, update)
        except DataError as error:
            problem = error.message
        problems = [one for one in self._processes.gather(problem) if one is not None]
        return (None, problems[0]) if problems else (put, None)

    def _check_together(self, folder: Path, update: int) -> str | None:
        """What is wrong with a checkpoint; None for nothing. No tensor is kept."""
        problem = None
        try:
            self._check(folder, update)
        except DataError as error:
            problem = error.message
        return next((one for one in self._processes.gather(problem) if one is not None), None)

    def _check(self, folder: Path, update: int) -> tuple[bool, Mapping[str, tuple[tuple[int, ...], Any]]]:
        """Whether a checkpoint is sharded, and shape and type of its tensors, where its files belong together.

        Raises:
            DataError: A file is missing or truncated, or of another state.
        """
        facts = read_json_mapping(folder / _FACTS, hint=_AGAIN, within=self.path)
        sharded = "shards" in facts
        if sharded and facts["shards"] != sorted(path.name for path in (folder / _SHARDS).glob("*")):
            raise DataError(f"Checkpoint {folder}: some of its files are missing.")
        shapes = shapes_of_shards(folder / _SHARDS) if sharded else self._shapes(folder / _TENSORS)
        if facts.get("update") != update or facts.get("tensors") != sorted(shapes):
            raise DataError(f"Checkpoint {folder}: its files do not belong together.")
        if _HASHES in facts:  # not in those of earlier releases
            place, names = (folder / _SHARDS, facts["shards"]) if sharded else (folder, [_TENSORS])
            expected, hashes = facts[_HASHES], self._hashes(place, names)
            for name in self._share(names):
                if not isinstance(expected, dict) or hashes.get(name) != expected.get(name, ""):
                    raise DataError(f"Checkpoint {folder}: {name} is damaged, or of another state than {_FACTS}.")
        return sharded, shapes

    def _read(self, folder: Path, update: int) -> Callable[[], None]:
        """Check a checkpoint and read it as far as needed; calling the result puts it into network and optimizer.

        Raises:
            DataError: A file is missing or truncated, of another state, or of another model.
        """
        sharded, shapes = self._check(folder, update)
        trainable = self._trainable()
        due = {f"parameter/{name}": parameter.detach() for name, parameter in trainable.items()}
        due |= {f"buffer/{name}": value for name, value in self._buffers().items()}
        state = {name for name in shapes if name.startswith("optimizer/")}
        fits = shapes.keys() - state == due.keys() and all(shapes[name][0] == tuple(due[name].shape) for name in due)
        if not fits or any(not _is_state(name, shapes[name][0], trainable) for name in state):
            raise DataError(f"Checkpoint {folder} is of another model.")
        if not sharded:
            return partial(self._put_whole, folder / _TENSORS, due, sorted(state))
        tensors = {name: torch.empty_like(value) for name, value in due.items()}
        for name in state:
            shape, dtype = shapes[name]
            parameter = trainable[name.split("/", 2)[2]].detach()
            tensors[name] = torch.empty_like(parameter, dtype=dtype) if shape else torch.empty((), dtype=dtype)
        read_shards(tensors, folder / _SHARDS)
        return partial(self._put, due, tensors)

    def _shapes(self, path: Path) -> dict[str, tuple[tuple[int, ...], None]]:
        open_file(path, within=self.path).close()  # a named pipe would never end
        try:
            with safe_open(path, framework="pt") as handle:
                return {name: (tuple(handle.get_slice(name).get_shape()), None) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise DataError(f"Checkpoint {path.parent} is truncated ({error}).") from error

    def _put_whole(self, path: Path, due: Mapping[str, Tensor], state: Sequence[str]) -> None:
        """Take over a file of whole tensors, one at a time: a process of a sharded network keeps its part only."""
        trainable = self._trainable()
        with safe_open(path, framework="pt") as handle:
            for name, target in due.items():
                target.copy_(put_whole(target, handle.get_tensor(name)))
            tensors = {}
            for name in state:
                value = handle.get_tensor(name)
                # AdamW counts its steps on the CPU; moments live beside the parameter.
                tensors[name] = value if value.ndim == 0 else put_whole(trainable[name.split("/", 2)[2]], value)
        self._put({}, tensors)

    def _put(self, due: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        for name, target in due.items():
            target.copy_(tensors[name])
        trainable = self._trainable()
        self._optimizer.state.clear()
        for key in sorted(tensors.keys() - due.keys()):
            _, slot, name = key.split("/", 2)
            self._optimizer.state[trainable[name]][slot] = tensors[key]


def _copy(source: Path, target: Path) -> None:
    """Copy a checkpoint, durably."""
    with atomic_folder(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        for folder, _, names in os.walk(temporary):
            for name in names:
                with Path(folder, name).open("rb") as handle:
                    os.fsync(handle.fileno())
            sync_folder(Path(folder))


def _is_state(name: str, shape: tuple[int, ...], trainable: Mapping[str, nn.Parameter]) -> bool:
    """Whether ``optimizer/<slot>/<parameter>`` names state of a parameter and has its shape, or is a scalar."""
    parameter = trainable.get(name.split("/", 2)[-1])
    return name.count("/") >= 2 and parameter is not None and shape in ((), tuple(parameter.shape))
