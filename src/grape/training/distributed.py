"""Training in several processes: ranks, sums over all, and sharded parameters.

Started by ``--gpus`` (:mod:`grape.training.process_group`), ``torchrun``, ``accelerate launch`` or ``srun``, each
process takes a share of an update's pairs, and what is summed over processes equals what one process would have
computed. Everything else is the same in all of them (same data order, same weights), so that only process 0 writes.
Alone, nothing here touches ``torch.distributed``.

Where all parameters of a model train that one GPU cannot hold thrice, PyTorch's ``fully_shard`` (FSDP) turns them into
distributed tensors, and each block of the network is gathered while it computes. The trainer asks three things of such
a tensor: the part that lives here, the whole, and putting a whole back in.
"""

import atexit
import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from grape.core.errors import GrapeError, SettingsError
from grape.core.launched import launched_process, variables_of_slurm
from grape.training.shards import check_storage

__all__ = [
    "SINGLE_PROCESS",
    "ProcessGroup",
    "ReducedOnce",
    "copy_whole",
    "device_of",
    "is_sharded",
    "join_process_group",
    "local_part",
    "put_whole",
    "reshard",
    "shard_fully",
    "whole",
]

T = TypeVar("T")


class ProcessGroup:
    """The processes of one training run.

    Args:
        rank: Number of this process.
        size: Number of all.
        device: Where this process computes, e.g. ``"cuda:1"``.
    """

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank = rank
        self.size = size
        self.device = device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Do something in process 0 only and tell the others its result, or the error that it ended with.

        Args:
            work: What to do; its result must survive pickling.

        Raises:
            GrapeError: What ``work`` raised, in every process.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except GrapeError as error:
                outcome[1] = error
            except Exception as error:  # the others wait for an answer, whatever it is
                outcome[1] = GrapeError(f"Process 0 failed: {type(error).__name__}: {error}.")
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def gather(self, value: T) -> list[T]:
        """One value of every process, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each parameter's gradient by its sum over all processes.

        A parameter without a gradient anywhere stays without one, as it would in one process.
        """
        if self.size == 1:
            return
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self.device)
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        for parameter, anywhere in zip(parameters, has.tolist(), strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def add_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Sum each metric over the processes that know it (one without pairs knows none)."""
        total: dict[str, float] = {}
        for part in self.gather(dict(metrics)):
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def share(self, weights: Sequence[int]) -> list[int]:
        """Which items this process takes, so that all have about the same to do.

        Args:
            weights: Cost of each item.

        Returns:
            Positions, ascending; together the processes take each item once.
        """
        loads = [0] * self.size
        items = []
        for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
            taker = min(range(self.size), key=lambda rank: (loads[rank], rank))
            loads[taker] += weights[item]
            if taker == self.rank:
                items.append(item)
        return sorted(items)

    def span(self, count: int) -> tuple[int, int]:
        """Half-open range [start, stop) of this process among ``count`` items in a row."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size


_PATIENCE = datetime.timedelta(hours=6)
# PyTorch's own limit is 10 or 30 minutes: less than one process may take to write a large checkpoint.

SINGLE_PROCESS = ProcessGroup(0, 1, "cpu")
"""The only process there is."""


def join_process_group(device: str, patience: datetime.timedelta = _PATIENCE) -> ProcessGroup:
    """Join the processes that a launcher started, for the life of this one; or be alone.

    Args:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        patience: How long processes wait for one another. Counts where they are joined for the first time.

    Raises:
        SettingsError: Accelerate is missing, the device does not fit several processes, or the launcher's variables
            are unusable.
    """
    process = launched_process()
    if process.count == 1:
        return ProcessGroup(0, 1, device_of(device))
    try:
        from accelerate import PartialState
    except ModuleNotFoundError as error:
        raise SettingsError("Several processes need Accelerate.", "pip install 'grape-vla[train]'") from error
    if ":" in device:
        raise SettingsError(f"--device {device} names one GPU for several processes.", "Use 'cuda' or 'auto'.")
    on_cpu = device_of(device) == "cpu"
    if process.by_slurm:
        _take_variables_of_slurm()
    if not dist.is_initialized():
        atexit.register(_leave)
    try:
        state = PartialState(cpu=on_cpu, timeout=patience)
    except (ValueError, RuntimeError, OSError) as error:  # what a launcher sets and torch cannot use
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"The launcher's processes cannot be joined: {reason}.",
            "Start them with --gpus, torchrun, accelerate launch or srun; or unset RANK and WORLD_SIZE to work alone.",
        ) from error
    return ProcessGroup(state.process_index, state.num_processes, "cpu" if on_cpu else str(state.device))


def _take_variables_of_slurm() -> None:
    """Set what torchrun would have set. Where each task sees GPUs of its own, its device is the first of them."""
    variables = variables_of_slurm(os.environ)
    local, visible = int(variables["LOCAL_RANK"]), torch.cuda.device_count()
    os.environ.update(variables, LOCAL_RANK=str(local % visible if visible else local))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def device_of(device: str) -> str:
    """Where a run computes: the device named, or with ``"auto"`` the GPU if there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def shard_fully(model: Any, compute: torch.dtype) -> None:
    """Spread a network's parameters over all processes, in place.

    Args:
        model: A network of OpenVLA's family.
        compute: What blocks compute in; parameters and sums of gradients stay float32.

    Raises:
        SettingsError: It is another network.
    """
    if not (hasattr(model, "vision_backbone") and hasattr(model, "language_model")):
        raise SettingsError(
            "Networks of this type of policy cannot be spread over processes.", "Leave --sharding full out."
        )
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    check_storage()
    precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    backbone = model.vision_backbone
    towers = [backbone.featurizer, *([backbone.fused_featurizer] if backbone.fused else [])]
    for tower in towers:
        for number in range(tower.config.feature_block + 1):
            fully_shard(tower.blocks[number], mp_policy=precision)
    for block in model.language_model.model.layers:
        fully_shard(block, mp_policy=precision)
    fully_shard(model, mp_policy=precision)
    for name in ("action_logps", "action_logits", "token_logps", "decision_logps", "chunk_logits"):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard_fully` was applied."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def reshard(model: nn.Module) -> None:
    """Let every parameter of a sharded network be the one that the optimizer knows.

    After a pass without gradient the root's parameters are still whole ones, which stand in for the distributed ones.
    """
    if is_sharded(model):
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def copy_whole(source: nn.Module, target: nn.Module | None) -> None:
    """Copy a sharded network's state into one that is not, tensor by tensor; all processes must call.

    Args:
        source: The sharded network.
        target: A network of the same shape in the process that needs it; None in the others.
    """
    into = {} if target is None else target.state_dict()
    for name, tensor in source.state_dict().items():
        gathered = whole(tensor.detach())
        if target is not None:
            into[name].copy_(gathered)


class ReducedOnce:
    """Log-probabilities of a sharded network whose gradients are summed over the processes once an update.

    Without it every backward pass ends with a reduction. In between, each process adds its gradient up whole, in
    float32.

    Args:
        logps: Log-probabilities of some frames. Each call with gradients enabled is followed by its backward pass.
        model: The network.
        passes: Number of backward passes of the update, the same in every process.
    """

    def __init__(self, logps: Callable[[Tensor], Tensor], model: Any, passes: int) -> None:
        self._logps = logps
        self._model = model
        self._passes = passes
        self._begun = 0

    def __call__(self, frames_B: Tensor) -> Tensor:
        """As ``logps``."""
        if torch.is_grad_enabled():
            self._begun += 1
            self._model.set_requires_gradient_sync(self._begun == self._passes)
        return self._logps(frames_B)

    def check(self) -> None:
        """Refuse a gradient that was never reduced.

        Raises:
            RuntimeError: The number of backward passes was another one.
        """
        if self._begun != self._passes:
            raise RuntimeError(f"An update took {self._begun} backward passes where {self._passes} were announced.")


def local_part(tensor: Tensor) -> Tensor:
    """What lives in this process; the tensor itself if it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The complete tensor, gathered in every process: all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put_whole(target: Tensor, value: Tensor) -> Tensor:
    """A whole value laid out as ``target`` is: on its device, spread as it is spread.

    Every process takes its part of the value it has; nothing is sent.
    """
    if isinstance(target, DTensor):
        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    return value.to(target.device)
