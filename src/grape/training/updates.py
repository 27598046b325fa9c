"""The loop around updates that all trainers share: step, schedule, log, checkpoint, resume, stop on nonsense.

A trainer brings a function that leaves the gradient of update ``i`` in the parameters; everything that depends on the
number of updates done lives here. Metrics go to ``metrics.jsonl`` (no times: equal runs give equal bytes), speed and
memory to ``log.jsonl``.
"""

import contextlib
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grape.core.errors import TrainingError
from grape.core.events import Reporter, append_event
from grape.core.files import write_text
from grape.core.seeds import derive_seed
from grape.training.checkpoints import CheckpointFolder

__all__ = ["Gradient", "Optimisation", "UpdateLoop", "deterministic", "learning_rate", "with_policy_path"]


@dataclass(frozen=True)
class Optimisation:
    """How parameters move.

    Attributes:
        lr: Peak learning rate.
        schedule: Learning rate after the warm-up.
        warmup: Share of all updates that warms up.
        weight_decay: Decoupled weight decay of matrices; vectors (norms, biases) are not decayed.
        max_grad_norm: Longest gradient that is not scaled down; 0 switches clipping off.
    """

    lr: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup: float
    weight_decay: float
    max_grad_norm: float


@dataclass(frozen=True)
class Gradient:
    """What the function that computes an update's gradient reports.

    Attributes:
        metrics: Metrics of the update.
        frames: Steps that went through the network.
        suspects: Names of the items whose loss is not finite; empty if all are.
    """

    metrics: dict[str, float]
    frames: int
    suspects: Sequence[str] = ()


def learning_rate(settings: Optimisation, update: int, updates: int) -> float:
    """Learning rate of update ``update``, counted from 0."""
    warm = round(settings.warmup * updates)
    if update < warm:
        return settings.lr * (update + 1) / warm
    share = (update - warm) / max(1, updates - warm)
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "linear":
        return settings.lr * (1 - share)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def with_policy_path(summary: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """A summary with the path of the policy; ``done.json`` names it as seen from its folder, so that runs can move."""
    return {**summary, "policy": str(out / "policy")}


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Fixed number of threads and deterministic algorithms; the process's former choice comes back afterwards."""
    before = torch.get_num_threads()
    strict, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict, warn_only=warn)


class UpdateLoop:
    """Runs updates from the latest checkpoint to the last one.

    Args:
        out: Output folder of the verb.
        model: The network; its parameters that require a gradient are trained.
        optimisation: How they move.
        updates: Number of all updates.
        seed: Seed of the run.
        checkpoint_every: Updates between checkpoints; 0 saves the last state only.
        keep_checkpoints: How many of the latest stay.
    """

    def __init__(
        self,
        out: Path,
        model: nn.Module,
        optimisation: Optimisation,
        updates: int,
        seed: int,
        checkpoint_every: int,
        keep_checkpoints: int,
    ) -> None:
        self._out = out
        self._settings = optimisation
        self._updates = updates
        self._seed = seed
        self._every = checkpoint_every
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": optimisation.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=optimisation.lr,
        )
        self._checkpoints = CheckpointFolder(out / "checkpoints", keep_checkpoints, model, self._optimizer)

    def run(
        self,
        gradient: Callable[[int], Gradient],
        reporter: Reporter,
        title: str,
        blame: Callable[[int], Sequence[str]] = lambda update: (),
        describe: Callable[[dict[str, float]], str] = lambda metrics: "",
    ) -> dict[str, float]:
        """Run all updates that are not done yet.

        Args:
            gradient: Leaves the gradient of an update in the parameters' ``grad``.
            reporter: Progress.
            title: Title of the bar.
            blame: Names the items of an update whose gradient is not finite; called on failure only.
            describe: Note beside the bar from an update's metrics.

        Returns:
            The last update's row of metrics.

        Raises:
            TrainingError: A loss, gradient or weight is not finite. The latest checkpoint stays as it is.
        """
        done = self._checkpoints.restore(reporter)
        rows = _cut_metrics(self._out / "metrics.jsonl", done)
        last: dict[str, float] = json.loads(rows[-1]) if rows else {}
        with (
            reporter.progress(title, self._updates, done) as bar,
            (self._out / "metrics.jsonl").open("a", encoding="utf-8") as log,
        ):
            frames, began = 0, time.perf_counter()
            for update in range(done, self._updates):
                found = self._update(update, gradient, blame)
                last = {"update": update + 1, **found.metrics}
                log.write(json.dumps(last, allow_nan=False) + "\n")
                log.flush()
                frames += found.frames
                if update + 1 == self._updates or (self._every and (update + 1) % self._every == 0):
                    os.fsync(log.fileno())  # the checkpoint's rows must be there whenever the checkpoint is
                    self._save(update + 1)
                    self._log_speed(update + 1, frames, time.perf_counter() - began)
                    frames, began = 0, time.perf_counter()
                bar.advance(1, describe(found.metrics))
        return last

    def _update(
        self, update: int, gradient: Callable[[int], Gradient], blame: Callable[[int], Sequence[str]]
    ) -> Gradient:
        # Everything random is derived already; this also pins what a library might draw behind our back.
        torch.manual_seed(derive_seed(self._seed, "update", update))
        found = gradient(update)
        finite = all(math.isfinite(value) for value in found.metrics.values())
        if found.suspects or not finite:
            self._stop(update, "loss is", found.suspects)
        norm = float(_norm(self.parameters))
        if not math.isfinite(norm):
            self._stop(update, "gradient is", blame(update))
        if self._settings.max_grad_norm and norm > self._settings.max_grad_norm:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._settings.max_grad_norm / norm)
        rate = learning_rate(self._settings, update, self._updates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        metrics = {**found.metrics, "grad_norm": norm, "lr": rate, "frames": found.frames}
        return Gradient(metrics, found.frames)

    def _save(self, update: int) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
            self._stop(update - 1, "weights are", ())
        self._checkpoints.save(update)

    def _stop(self, update: int, what: str, names: Sequence[str]) -> None:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        append_event(self._out, "stopped", update=update + 1, what=what.split()[0], names=list(names))
        raise TrainingError(
            f"Update {update + 1} of {self._updates}: the {what} not finite{f' ({shown})' if shown else ''}.",
            f"The last good state is kept in {self._out / 'checkpoints'}. Lower the learning rate, or look at the "
            "data named here.",
        )

    def _log_speed(self, update: int, frames: int, seconds: float) -> None:
        append_event(
            self._out,
            "checkpoint",
            update=update,
            frames_per_second=round(frames / max(seconds, 1e-9), 1),
            seconds=round(seconds, 2),
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Length of the whole gradient, float64."""
    squares = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)


def _cut_metrics(path: Path, done: int) -> list[str]:
    """Keep the rows of the first ``done`` updates: what a killed run wrote after its last checkpoint comes again."""
    lines: list[Any] = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = lines[:done]
    write_text(path, "".join(f"{row}\n" for row in rows))
    return rows
