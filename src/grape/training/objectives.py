"""Which loss a run minimizes: built from its settings, with what single episodes need to know of a whole update."""

from collections.abc import Mapping
from dataclasses import dataclass

from grape.training.distributed import ProcessGroup
from grape.training.losses import (
    Loss,
    LossSettings,
    LossTerms,
    TrajectorySums,
    imitation_loss,
    preference_loss,
)
from grape.training.settings import TrainSettings
from grape.training.unpaired import finish_metrics, group_loss, kto_loss, mean_log_ratio

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """The loss of a run.

    Attributes:
        settings: What the verb was told.
        tokens_per_step: Action tokens a control step, D.
        processes: The processes that share an update.
    """

    settings: TrainSettings
    tokens_per_step: int
    processes: ProcessGroup

    def loss(self, share: float) -> Loss:
        """The loss over one process's part of an update; all processes must call it together.

        Args:
            share: The part's share of the update's items.
        """
        settings, tokens = self.settings, self.tokens_per_step
        if settings.method == "filtered-bc":
            return lambda sums: imitation_loss(sums, tokens)
        if settings.method == "rloo":
            return lambda sums: group_loss(sums, settings.clip_range, tokens)
        if settings.method == "kto":
            beta, anchor, normalized = settings.beta, settings.anchor, settings.length_normalised

            def loss_of_update(sums: TrajectorySums) -> tuple[LossTerms, dict[str, float]]:
                means = self.processes.gather(share * mean_log_ratio(sums, length_normalized=normalized))
                z0 = max(0.0, sum(means))
                return kto_loss(sums, beta, z0, tokens, anchor=anchor, length_normalized=normalized)

            return loss_of_update
        preference = LossSettings(
            loss_type=settings.loss_type,
            beta=settings.beta,
            length_normalised=settings.length_normalised,
            label_smoothing=settings.label_smoothing,
            preference_weight=settings.preference_weight,
            anchor=settings.anchor,
            nll_weight=settings.nll_weight,
            chosen_floor=settings.chosen_floor,
            tokens_per_step=tokens,
        )
        return lambda sums: preference_loss(sums, preference)

    def finish(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics of a whole update, from those of its parts, weighted by their shares and added."""
        return finish_metrics(metrics) if self.settings.unpaired else dict(metrics)
