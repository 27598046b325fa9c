"""What all trainers share: the run's folder, and the loop around updates.

The loop steps, schedules the learning rate, logs, saves checkpoints, resumes, and stops on values that are not finite.
A trainer brings a function that leaves the gradient of update ``i`` in the parameters; everything that depends on the
number of updates done lives here.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grape.core.errors import DataError, TrainingError
from grape.core.events import Reporter, append_event
from grape.core.provenance import write_provenance
from grape.core.runs import open_run
from grape.core.seeds import derive_seed
from grape.core.trajectories import EpisodeMeta
from grape.policies.base import TrainablePolicy
from grape.policies.registry import policy_folder
from grape.training.checkpoints import CheckpointFolder
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup, local_part
from grape.training.gradients import norm_of
from grape.training.lora import save_result
from grape.training.metrics_logger import MetricsLogger, read_metrics
from grape.training.settings import OptimizerSettings, SftSettings, TrainerSettings, TrainSettings

__all__ = [
    "Gradient",
    "PeriodicEvaluation",
    "TrainLoop",
    "TrainingRun",
    "deterministic",
    "learning_rate",
]


@dataclass(frozen=True)
class Gradient:
    """What the function that computes an update's gradient reports.

    Attributes:
        metrics: Metrics of the update.
        frames: Steps that went through the network.
        nonfinite: Names of the items whose loss is not finite; empty if all are.
        term_norms: L2 norm of each term's gradient before clipping; empty for a loss of one term.
    """

    metrics: dict[str, float]
    frames: int
    nonfinite: Sequence[str] = ()
    term_norms: Mapping[str, float] = field(default_factory=dict)


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


class TrainingRun:
    """A run's folder among several processes: process 0 takes, writes and completes it, the others learn its answer.

    Args:
        verb: Name of the verb.
        settings: What it was told.
        identity: Hashes of its inputs, which must agree on resumption.
        processes: The processes of the run.

    Attributes:
        done: The summary if all is done already.

    Raises:
        CompatibilityError: The folder belongs to another run, or another process works there.
    """

    def __init__(
        self,
        verb: str,
        settings: SftSettings | TrainSettings,
        identity: Mapping[str, Any],
        processes: ProcessGroup,
    ) -> None:
        self._settings = settings
        self._processes = processes

        def take() -> Mapping[str, Any] | None:
            self._folder = open_run(settings.out, verb, settings, identity)
            return self._folder.done

        self.done = processes.run_on_main(take)

    def finish(
        self,
        policy: TrainablePolicy,
        base: Path | None,
        metas: Iterable[EpisodeMeta],
        facts: Mapping[str, Any],
        **more: Any,
    ) -> Mapping[str, Any]:
        """Save the trained policy as ``out/policy`` and declare the work complete.

        Args:
            policy: The trained policy, whole in process 0.
            base: What adapters point to (see :func:`grape.training.lora.prepare_parameters`).
            metas: Facts of the episodes that the policy was trained on.
            facts: What the summary says before the policy.
            more: What it says after the policy.

        Returns:
            The summary.
        """

        def save() -> Mapping[str, Any]:
            folder = self._settings.out / "policy"
            if not folder.exists():
                save_result(policy, self._settings.out, base)
            parent = self._settings.policy
            write_provenance(folder, None if parent is None else policy_folder(parent), metas)
            summary = {**facts, "policy": "policy", "policy_hash": policy.spec.policy_hash, **more}
            self._folder.finish(summary)
            return summary

        return self._processes.run_on_main(save)


@dataclass(frozen=True)
class PeriodicEvaluation:
    """Periodic evaluation of the state in training; selects the best checkpoint.

    Attributes:
        every: Updates between two evaluations; the last update always has one.
        measure: Loss on data held out and whatever belongs to it, under names that begin with ``eval/`` and among
            them ``eval/loss``; None takes the mean loss of the updates since the last evaluation.
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

    Attributes:
        parameters: What is trained.
        alarm: The first warning that the metrics gave reason to, once the loop has run; empty without one.
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
        self.alarm = ""
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
        alarm: Callable[[Sequence[Mapping[str, float]]], str] = lambda rows: "",
    ) -> dict[str, float]:
        """Run all updates that are not done yet.

        Args:
            gradient: Leaves the gradient of an update in the parameters' ``grad``, summed over all processes.
            reporter: Progress.
            title: Title of the bar.
            name_nonfinite: Names the items of an update whose gradient is not finite; called on failure only.
            describe: Note beside the bar from an update's metrics.
            evaluation: When and how to evaluate, to keep the best state; None keeps none.
            alarm: What to warn of from the rows of metrics so far, empty for nothing; the first one is told and kept.

        Returns:
            The last update's row of metrics.

        Raises:
            TrainingError: A loss, gradient or weight is not finite. The latest checkpoint stays as it is.
            SettingsError: A tracker cannot be opened.
        """
        needs_best = isinstance(self._settings, TrainSettings) and self._settings.result == "best"
        done = self._checkpoints.restore(reporter, self._best_of, needs_best=needs_best)
        logger = MetricsLogger(self._settings, done, reporter, self._processes)
        self.alarm = next(filter(None, (alarm(logger.rows[:count]) for count in range(1, done + 1))), "")
        clipped = sum(map(self._clips, (row["grad_norm"] for row in logger.rows)))
        with logger, reporter.progress(title, self._updates, done) as bar:
            for update in range(done, self._updates):
                began = time.perf_counter()
                result = self._update(update, gradient, name_nonfinite)
                clipped += self._clips(result.metrics["grad_norm"])
                row = {"update": update + 1, **result.metrics, "clipped": clipped / (update + 1)}
                best = evaluation is not None and self._evaluate(evaluation, update + 1, row, logger.rows)
                logger.write(row, result.frames, time.perf_counter() - began)
                every = self._settings.checkpoint_every
                due = update + 1 == self._updates or (every and (update + 1) % every == 0)
                if best or due:
                    logger.sync()  # the checkpoint's rows must be there whenever the checkpoint is
                    self._save(update + 1, best=best, due=bool(due))
                if not self.alarm and (message := alarm(logger.rows)):
                    self.alarm = message
                    reporter.warn(message)
                    if self._processes.is_main:
                        append_event(self._out, "alarm", message=message)
                bar.advance(1, describe(result.metrics))
        return logger.rows[-1] if logger.rows else {}

    def take_best(self) -> int:
        """Load the best state and return its number of updates; all updates must be done.

        Raises:
            DataError: It is missing or damaged, or is not the best one of ``metrics.jsonl``.
        """
        update = self._checkpoints.restore_best()
        if self._processes.run_on_main(lambda: self._best_of(self._updates)) != update:
            raise DataError(
                f"The best state in {self._out / 'checkpoints'} is of update {update}; metrics.jsonl has another one.",
                "Delete the run's folder and train again.",
            )
        return update

    def _best_of(self, done: int) -> int | None:
        """After which of so many updates the state was best; 0 if none was evaluated, None if metrics are missing."""
        rows = read_metrics(self._out, done)
        if len(rows) < done:
            return None
        evaluated = [(score, number) for number, row in enumerate(rows, 1) if (score := _score(row)) is not None]
        return min(evaluated)[1] if evaluated else 0  # of equal ones the first

    def _update(
        self, update: int, gradient: Callable[[int], Gradient], name_nonfinite: Callable[[int], Sequence[str]]
    ) -> Gradient:
        # Everything random is derived already; this also pins what a library might draw behind our back.
        torch.manual_seed(derive_seed(self._settings.seed, "update", update))
        result = gradient(update)
        finite = all(math.isfinite(value) for value in result.metrics.values())
        if result.nonfinite or not finite:
            self._stop(update, "loss is", result.nonfinite)
        norm = float(_norm(self.parameters, self._processes))
        if not math.isfinite(norm):
            self._stop(update, "gradient is", name_nonfinite(update))
        if self._clips(norm):
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._settings.max_grad_norm / norm)
        rate = learning_rate(self._settings, update, self._updates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        if not self._weights_are_finite():
            self._stop(update, "weights are", ())
        terms = {f"grad_norm/{name}": value for name, value in result.term_norms.items()}
        metrics = {**result.metrics, "grad_norm": norm, **terms, "lr": rate, "frames": result.frames}
        return Gradient(metrics, result.frames)

    def _clips(self, norm: float) -> bool:
        return bool(self._settings.max_grad_norm) and norm > self._settings.max_grad_norm

    def _evaluate(
        self, evaluation: PeriodicEvaluation, done: int, row: dict[str, float], rows: Sequence[Mapping[str, float]]
    ) -> bool:
        """Evaluate, if it is time, and add the result to the row; returns whether the state is the best so far."""
        if done % evaluation.every and done != self._updates:
            return False
        if evaluation.measure is not None:
            row |= evaluation.measure()
        else:
            since = [*rows[(done - 1) // evaluation.every * evaluation.every :], row]
            row["loss/mean"] = sum(entry["loss"] for entry in since) / len(since)
        score = _score(row)
        return score is not None and all(score < other for entry in rows if (other := _score(entry)) is not None)

    def _save(self, done: int, *, best: bool, due: bool) -> None:
        facts = {
            "seed": self._settings.seed,
            "learning_rate": learning_rate(self._settings, done, self._updates),
            "next_update": done,
            "updates": self._updates,
        }
        if best:
            self._checkpoints.save_best(done, facts)
        if due:
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
    """What the best state is chosen by, smaller is better; None in a row without an evaluation."""
    return row.get("eval/loss", row.get("loss/mean"))


def _norm(parameters: Sequence[nn.Parameter], processes: ProcessGroup) -> float:
    """Length of the whole gradient."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = norm_of(gradients)
    if any(local_part(gradient) is not gradient for gradient in gradients):
        norm = math.hypot(*processes.gather(norm))
    return norm
