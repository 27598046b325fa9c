"""The loop around updates that all trainers share: step, schedule, log, checkpoint, resume, stop on nonsense.

A trainer brings a function that leaves the gradient of update ``i`` in the parameters; everything that depends on the
number of updates done lives here.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grape.core.errors import TrainingError
from grape.core.events import Reporter, append_event
from grape.core.seeds import derive_seed
from grape.training.checkpoints import CheckpointFolder
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup, local_part
from grape.training.metrics_logger import MetricsLogger
from grape.training.settings import OptimizerSettings, TrainerSettings

__all__ = [
    "Gradient",
    "PeriodicEvaluation",
    "TrainLoop",
    "deterministic",
    "learning_rate",
    "with_policy_path",
]


@dataclass(frozen=True)
class Gradient:
    """What the function that computes an update's gradient reports.

    Attributes:
        metrics: Metrics of the update.
        frames: Steps that went through the network.
        nonfinite: Names of the items whose loss is not finite; empty if all are.
    """

    metrics: dict[str, float]
    frames: int
    nonfinite: Sequence[str] = ()


def learning_rate(settings: OptimizerSettings, update: int, updates: int) -> float:
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


@dataclass(frozen=True)
class PeriodicEvaluation:
    """How a run evaluation at itself now and then, to keep its best state.

    Attributes:
        every: Updates between two looks; the last update is always one.
        measure: Loss on data held out and whatever belongs to it, under names that begin with ``eval/`` and among
            them ``eval/loss``; None takes the mean loss of the updates since the last look.
    """

    every: int
    measure: Callable[[], dict[str, float]] | None = None


class TrainLoop:
    """Runs updates from the latest checkpoint to the last one.

    Args:
        settings: What the verb was told.
        model: The network; its parameters that require a gradient are trained.
        updates: Number of all updates.
        processes: The processes of the run; process 0 writes.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        model: nn.Module,
        updates: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._settings = settings
        self._updates = updates
        self._processes = processes
        self._out = settings.out
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.lr,
        )
        self._checkpoints = CheckpointFolder(
            self._out / "checkpoints", settings.keep_checkpoints, model, self._optimizer, processes
        )

    def run(
        self,
        gradient: Callable[[int], Gradient],
        reporter: Reporter,
        title: str,
        name_nonfinite: Callable[[int], Sequence[str]] = lambda update: (),
        describe: Callable[[dict[str, float]], str] = lambda metrics: "",
        evaluation: PeriodicEvaluation | None = None,
    ) -> dict[str, float]:
        """Run all updates that are not done yet.

        Args:
            gradient: Leaves the gradient of an update in the parameters' ``grad``, summed over all processes.
            reporter: Progress.
            title: Title of the bar.
            name_nonfinite: Names the items of an update whose gradient is not finite; called on failure only.
            describe: Note beside the bar from an update's metrics.
            evaluation: When and how to look for the best state; None keeps none.

        Returns:
            The last update's row of metrics.

        Raises:
            TrainingError: A loss, gradient or weight is not finite. The latest checkpoint stays as it is.
            SettingsError: A tracker cannot be opened.
        """
        done = self._checkpoints.restore(reporter)
        logger = MetricsLogger(self._settings, done, reporter, self._processes)
        with logger, reporter.progress(title, self._updates, done) as bar:
            for update in range(done, self._updates):
                began = time.perf_counter()
                found = self._update(update, gradient, name_nonfinite)
                row = {"update": update + 1, **found.metrics}
                best = evaluation is not None and self._evaluate(evaluation, update + 1, row, logger.rows)
                logger.write(row, found.frames, time.perf_counter() - began)
                last = update + 1 == self._updates
                if (
                    best
                    or last
                    or (self._settings.checkpoint_every and (update + 1) % self._settings.checkpoint_every == 0)
                ):
                    logger.sync()  # the checkpoint's rows must be there whenever the checkpoint is
                    self._save(update + 1, best=best)
                bar.advance(1, describe(found.metrics))
        return logger.rows[-1] if logger.rows else {}

    def take_best(self) -> int:
        """Load the best state and return its number of updates."""
        return self._checkpoints.restore_best()

    def _update(
        self, update: int, gradient: Callable[[int], Gradient], name_nonfinite: Callable[[int], Sequence[str]]
    ) -> Gradient:
        # Everything random is derived already; this also pins what a library might draw behind our back.
        torch.manual_seed(derive_seed(self._settings.seed, "update", update))
        found = gradient(update)
        finite = all(math.isfinite(value) for value in found.metrics.values())
        if found.nonfinite or not finite:
            self._stop(update, "loss is", found.nonfinite)
        norm = float(_norm(self.parameters, self._processes))
        if not math.isfinite(norm):
            self._stop(update, "gradient is", name_nonfinite(update))
        if self._settings.max_grad_norm and norm > self._settings.max_grad_norm:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._settings.max_grad_norm / norm)
        rate = learning_rate(self._settings, update, self._updates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        if not self._weights_are_finite():
            self._stop(update, "weights are", ())
        metrics = {**found.metrics, "grad_norm": norm, "lr": rate, "frames": found.frames}
        return Gradient(metrics, found.frames)

    def _evaluate(
        self, evaluation: PeriodicEvaluation, done: int, row: dict[str, float], rows: Sequence[Mapping[str, float]]
    ) -> bool:
        """Add what a look finds to the row, if it is time for one; returns whether the state is the best so far."""
        if done % evaluation.every and done != self._updates:
            return False
        if evaluation.measure is not None:
            row |= evaluation.measure()
        else:
            since = [*rows[(done - 1) // evaluation.every * evaluation.every :], row]
            row["loss/mean"] = sum(entry["loss"] for entry in since) / len(since)
        earlier = [_score(entry) for entry in rows if _score(entry) is not None]
        score = _score(row)
        return score is not None and all(score < other for other in earlier if other is not None)

    def _save(self, done: int, *, best: bool) -> None:
        facts = {
            "seed": self._settings.seed,
            "learning_rate": learning_rate(self._settings, done, self._updates),
            "next_update": done,
            "updates": self._updates,
        }
        if best:
            self._checkpoints.save_best(done, facts)
        every = self._settings.checkpoint_every
        if done == self._updates or (every and done % every == 0):
            self._checkpoints.save(done, facts)

    def _weights_are_finite(self) -> bool:
        """One look at all weights: what is not finite stays so in a sum of squares."""
        parts = [local_part(parameter.detach()) for parameter in self.parameters]
        finite = math.isfinite(float(torch.stack(torch._foreach_norm(parts)).sum()))
        return all(self._processes.gather(finite))

    def _stop(self, update: int, what: str, names: Sequence[str]) -> None:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        if self._processes.is_main:
            append_event(self._out, "stopped", update=update + 1, what=what.split()[0], names=list(names))
        raise TrainingError(
            f"Update {update + 1} of {self._updates}: the {what} not finite{f' ({shown})' if shown else ''}.",
            f"The last good state is kept in {self._out / 'checkpoints'}. Lower the learning rate, or look at the "
            "data named here.",
        )


def _score(row: Mapping[str, float]) -> float | None:
    """What the best state is chosen by, smaller is better; None in a row without a look."""
    return row.get("eval/loss", row.get("loss/mean"))


def _norm(parameters: Sequence[nn.Parameter], processes: ProcessGroup) -> float:
    """Length of the whole gradient."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [local_part(gradient).double().square().sum() for gradient in gradients]
    total = float(torch.stack(squares).sum()) if squares else 0.0
    if any(local_part(gradient) is not gradient for gradient in gradients):
        total = sum(processes.gather(total))
    return math.sqrt(total)
