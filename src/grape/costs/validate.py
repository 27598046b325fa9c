"""``grape costs validate``: try a specification on recorded episodes of its task, and accept or reject it."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.settings import Range, check_ranges, setting
from grape.core.trajectories import Trajectory
from grape.costs.checks import check_specification
from grape.costs.report_card import card_text
from grape.costs.specification import CostSpecification
from grape.costs.validation import ValidationCriteria, validate_specification
from grape.costs.verb import find_specification
from grape.store import EpisodeStore

__all__ = ["CostsValidateSettings", "episodes_of_task", "find_episodes", "run_costs_validate"]


_CRITERIA = "Criteria"


@dataclass(frozen=True)
class CostsValidateSettings:
    """Try a cost specification on recorded episodes of its task before it is used.

    Good recordings hold experts, failures and perturbed episodes from the same initial states, e.g. 'grape collect'
    with the operators clean, noisy and sloppy. Leaves with exit code 0 if the specification is accepted, else 1.

    Attributes:
        target: A YAML file, or a built-in as SUITE/TASK, e.g. metaworld/drawer-open.
        store: Episode stores, or folders that grape collect wrote; episodes of other tasks are left out.
        task: Task whose episodes are looked at, for a specification that names none.
        max_unavailable: Largest share (0 to 1) of constraints of entered stages that could not be measured.
        min_fall: Smallest share (0 to 1) of stages that make an expert's episode cheaper when they are finished.
        max_trend: Largest mean rank correlation (-1 to 1) of time and cost so far along an expert's episode.
        min_auc: Smallest chance (0 to 1) that a success costs less than a failure, the verdict hidden.
        min_auc_low: What the lower end of that chance's 95 % interval must exceed.
        noise: Root mean square displacements of keypoints, metres, under which rankings should stay.
        max_flips: Largest share (0 to 1) of success and failure pairs that any of them turns round.
        draws: How often each episode is displaced.
        min_agreement: Smallest share (0 to 1) of the gripper's closings and openings at which a stage ends; 0 tells
            it only, where good stages end elsewhere, e.g. when the object has been lifted.
        seed: Of the displacements.
    """

    target: str = setting("", common=True)
    store: tuple[Path, ...] = setting((), common=True)
    task: str = setting("", common=True)
    max_unavailable: float = setting(
        ValidationCriteria.max_unavailable, group=_CRITERIA, range=Range(0, 1), common=True
    )
    min_fall: float = setting(ValidationCriteria.min_fall, group=_CRITERIA, range=Range(0, 1), common=True)
    max_trend: float = setting(ValidationCriteria.max_trend, group=_CRITERIA, range=Range(-1, 1), common=True)
    min_auc: float = setting(ValidationCriteria.min_auc, group=_CRITERIA, range=Range(0, 1), common=True)
    min_auc_low: float = setting(ValidationCriteria.min_auc_low, group=_CRITERIA, range=Range(0, 1))
    noise: tuple[float, ...] = setting(ValidationCriteria.noise, group=_CRITERIA)
    max_flips: float = setting(ValidationCriteria.max_flips, group=_CRITERIA, range=Range(0, 1), common=True)
    draws: int = setting(ValidationCriteria.draws, group=_CRITERIA, range=Range(1))
    min_agreement: float = setting(ValidationCriteria.min_agreement, group=_CRITERIA, range=Range(0, 1), common=True)
    seed: int = setting(0, group=_CRITERIA)

    @property
    def criteria(self) -> ValidationCriteria:
        """The limits among the settings."""
        names = [field.name for field in dataclasses.fields(ValidationCriteria)]
        return ValidationCriteria(**{name: getattr(self, name) for name in names})


def run_costs_validate(settings: CostsValidateSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Try a specification.

    Returns:
        ``text`` for people and the card, see :meth:`grape.costs.report_card.ReportCard.to_dict`.

    Raises:
        SettingsError: The target or the stores are missing or unknown, or a limit is out of range.
        DataError: The file is no valid specification, or speaks of what was not recorded.
        CompatibilityError: The stores hold no episode of the specification's task.
    """
    _check(settings)
    specification = find_specification(settings.target)
    recorded = episodes_of_task(settings.store, specification, settings.task)
    episodes = [episode for episode in recorded if episode.meta.success is not None]
    if not episodes:
        raise CompatibilityError(
            f"The outcome of all {len(recorded)} episodes is unknown, and a trial compares successes with failures.",
            "Give a store whose outcomes are known.",
        )
    if len(episodes) < len(recorded):
        reporter.warn(f"{len(recorded) - len(episodes)} of {len(recorded)} episodes have no known outcome: left out.")
    first = episodes[0]
    check_specification(specification, first.keypoints, first.signals, "camera" in first.meta.extra)
    with reporter.progress("trying", len(episodes)) as progress:
        card = validate_specification(
            specification, episodes, settings.criteria, seed=settings.seed, advance=progress.advance
        )
    return {"text": card_text(card), "stores": list(map(str, settings.store)), **card.to_dict()}


def find_episodes(
    stores: Sequence[Path], specification: CostSpecification, task: str = ""
) -> list[tuple[EpisodeStore, str]]:
    """Where the episodes of a specification's task are: store and id of each.

    Args:
        stores: Where they are.
        specification: Whose task is looked for.
        task: The task, where the specification names none.

    Raises:
        SettingsError: No store is named, or the task is not known.
        CompatibilityError: The stores hold no episode of it.
    """
    if not stores:
        raise SettingsError("No episodes are named.", "Give one or more stores, e.g. --store runs/rollouts/store.")
    opened = [EpisodeStore.open(path) for path in stores]
    recorded = sorted({meta.task for store in opened for meta in store.metas()})
    wanted = specification.task or task or (recorded[0] if len(recorded) == 1 else "")
    if not wanted:
        raise SettingsError(
            f"{specification.source} names no task, and the stores hold several.",
            f"Give --task, one of {', '.join(recorded)}.",
        )
    found = [(store, meta.episode_id) for store in opened for meta in store.metas() if meta.task == wanted]
    if not found:
        places = ", ".join(map(str, stores))
        raise CompatibilityError(
            f"{places}: no episode of task '{wanted}'.", f"Tasks that were recorded: {', '.join(recorded) or 'none'}."
        )
    return found


def episodes_of_task(stores: Sequence[Path], specification: CostSpecification, task: str = "") -> list[Trajectory]:
    """All recorded episodes of a specification's task, without images; see :func:`find_episodes`."""
    return [store.read(name, frames=False) for store, name in find_episodes(stores, specification, task)]


def _check(settings: CostsValidateSettings) -> None:
    check_ranges(settings)
    if not all(math.isfinite(rms) and rms > 0.0 for rms in settings.noise):
        raise SettingsError(f"--noise is {settings.noise}.", "Give lengths in metres above 0, e.g. 0.01 0.02.")
