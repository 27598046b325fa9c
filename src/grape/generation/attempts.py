"""Trying a generated specification on recorded episodes: what :mod:`grape.costs.validation` finds, for the model."""

from collections.abc import Callable, Sequence
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError
from grape.costs import CostSpecification, ValidationCriteria, episodes_of_task, validate_specification
from grape.generation.validators import Trial

__all__ = ["trial_on"]


def trial_on(
    stores: Sequence[Path], task: str, criteria: ValidationCriteria | None = None
) -> Callable[[CostSpecification], Trial]:
    """A judge that tries specifications on a store's episodes of a task.

    Recordings that cannot tell (no failure, say) reject nothing: that is a warning for the user, not a finding that a
    model could fix. Recordings that lack what the specification speaks of (a camera, say) reject it: a model can speak
    of something else.

    Args:
        stores: The episodes.
        task: Which of them, for specifications that name no task.
        criteria: What is asked; None for the usual.
    """

    def trial(specification: CostSpecification) -> Trial:
        episodes = episodes_of_task(stores, specification, task)
        try:
            card = validate_specification(specification, episodes, criteria or ValidationCriteria())
        except (CompatibilityError, DataError) as error:
            return Trial((" ".join([error.message, error.hint]).strip(),))
        if card.verdict == "reject":
            return Trial(card.reasons, report=card.to_dict())
        undecided = tuple(f"Not tried: {reason}" for reason in card.reasons)
        return Trial((), undecided, card.to_dict())

    return trial
